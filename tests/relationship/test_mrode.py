"""The worked examples of Mrode's book, to the printed digit.

Data, printed figures and their source: tests/references/mrode_relationships.json.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import eval_legendre

import mixform as mf

BOOK = json.loads(
    (Path(__file__).parents[1] / "references" / "mrode_relationships.json").read_text()
)


def assert_printed(values, printed, units=0.5):
    """Assert that values round to what is printed: half a unit of the last digit."""
    values, printed = np.ravel(values), np.ravel(np.asarray(printed, dtype=object))
    assert len(values) == len(printed)
    for value, text in zip(values, printed, strict=True):
        unit = 10.0 ** Decimal(text).as_tuple().exponent
        assert float(value) == pytest.approx(float(text), abs=1.0001 * units * unit)


def pedigree_of(case):
    sire, dam = BOOK[case]["sire"], BOOK[case]["dam"]
    return mf.Pedigree(np.arange(1, len(sire) + 1), sire, dam)


def effects(m, grp, term="Intercept"):
    table = m.ranef()
    table = table[(table["grp"] == grp) & (table["term"] == term)]
    return table.set_index("level")["estimate"]


def names(count, first=1):
    return [str(i) for i in range(first, first + count)]


def test_pedigree_of_henderson():
    case = BOOK["relationships"]
    family = pedigree_of("relationships")
    T = np.array([row.split() for row in case["T"]], dtype=float)
    D = [1.0, 1.0, 0.5, 0.75, 0.5, 0.5 - 0.25 * 0.125]
    assert_printed(D, case["D"])
    A = family.A(names(6)).loc[names(6)]
    np.testing.assert_allclose(A, T @ np.diag(D) @ T.T, atol=1e-14)
    assert_printed([family.inbreeding["5"]], [case["F_5"]])
    order = family.labels.get_indexer(names(6))
    inverse = family.A_inverse().toarray()[np.ix_(order, order)]
    half = np.linalg.inv(T)
    np.testing.assert_allclose(inverse, half.T @ np.diag(1.0 / np.array(D)) @ half)


def test_sire_model():
    case = BOOK["sire"]
    sires = mf.Pedigree(pd.DataFrame(case["pedigree"]))
    data = pd.DataFrame({name: case[name] for name in ("sex", "sire", "y")})
    m = mf.fit(
        "y ~ 0 + sex + (1 | sire)",
        data,
        relationship={"sire": sires},
        varcomp={"sire": 5.0, "residual": 55.0},
    )
    for sex, printed in case["fixed"].items():
        assert_printed([m.params[f"sex[{sex}]"]], [printed])
    solved = effects(m, "sire")
    assert_printed(solved[list(case["effects"])], list(case["effects"].values()))
    printed = [row.split() for row in BOOK["relationships"]["sires_A_inverse"]]
    order = sires.labels.get_indexer(["1", "3", "4"])
    assert_printed(sires.A_inverse().toarray()[np.ix_(order, order)], printed)


def test_repeatability_model():
    case = BOOK["repeatability"]
    data = pd.DataFrame({name: case[name] for name in ("cow", "parity", "hys", "y")})
    with pytest.warns(mf.RankDeficiencyWarning):  # HYS are nested within parities
        m = mf.fit(
            "y ~ 0 + C(parity) + C(hys) + (1 | cow) + iid(1 | cow)",
            data,
            relationship={"cow": mf.Pedigree(pd.DataFrame(case["pedigree"]))},
            varcomp={"cow": 20.0, "cow.1": 12.0, "residual": 28.0},
        )
    assert_printed(effects(m, "cow")[names(8)], case["animals"])
    # -17.2285 is printed as -17.229, and is -17.228497.
    assert_printed(effects(m, "cow.1")[names(5, 4)], case["environment"], units=0.51)
    # The book sets HYS 1 and 3 to zero: 1 and 2 meet parity 1 only, 3 and 4 parity 2.
    fitted = m.predict(data, random=False).to_numpy()
    by_cell = {(p, h): f for p, h, f in zip(data.parity, data.hys, fitted, strict=True)}
    assert_printed([by_cell[1, 1]], [case["parity_1"]])
    assert_printed([by_cell[2, 3]], [case["parity_2"]])
    assert_printed([by_cell[1, 2] - by_cell[1, 1]], [case["hys_2"]])
    assert_printed([by_cell[2, 4] - by_cell[2, 3]], [case["hys_4"]])


def test_common_environment():
    case = BOOK["litter"]
    data = pd.DataFrame(
        {"piglet": np.arange(6, 16), "sex": case["sex"], "y": case["y"]}
    ).assign(litter=case["dam"][5:])
    m = mf.fit(
        "y ~ 0 + sex + (1 | piglet) + (1 | litter)",
        data,
        relationship={"piglet": pedigree_of("litter")},
        varcomp={"piglet": 20.0, "litter": 15.0, "residual": 65.0},
    )
    for sex, printed in case["fixed"].items():
        assert_printed([m.params[f"sex[{sex}]"]], [printed])
    assert_printed(effects(m, "piglet")[names(15)], case["animals"])
    litters = effects(m, "litter")[list(case["litters"])]
    assert_printed(litters, list(case["litters"].values()))


def indicator(codes, levels):
    return (np.asarray(codes)[:, None] == np.asarray(levels)).astype(float)


def test_two_traits_at_matrix_level():
    case = BOOK["two traits"]
    family = pedigree_of("two traits")
    order = family.labels.get_indexer(names(8))
    A_inverse = family.A_inverse().toarray()[np.ix_(order, order)]
    G, R = (
        np.array([[20.0, 18.0], [18.0, 40.0]]),
        np.array([[40.0, 11.0], [11.0, 30.0]]),
    )
    X = indicator(case["sex"], ["M", "F"])
    Z = indicator(np.arange(4, 9), np.arange(1, 9))
    s = mf.MixedModelEquations(
        case["wwg"] + case["pwg"],
        np.kron(np.eye(2), X),
        np.kron(np.eye(2), Z),
        Ginv=np.kron(np.linalg.inv(G), A_inverse),
        R=np.kron(R, np.eye(5)),
    ).solve()
    assert_printed(s.beta, case["fixed"])
    assert_printed(s.u, case["animals_wwg"] + case["animals_pwg"])
    assert s.pev is not None
    prior = np.kron(np.diag(G), family.diagonal[order] * 0.0 + 1.0)
    reliability = 1.0 - s.pev / prior
    assert_printed(reliability, case["reliability_wwg"] + case["reliability_pwg"])


def test_maternal_effects_at_matrix_level():
    case = BOOK["maternal"]
    family = pedigree_of("maternal")
    order = family.labels.get_indexer(names(14))
    A_inverse = family.A_inverse().toarray()[np.ix_(order, order)]
    G = np.array([[150.0, -40.0], [-40.0, 90.0]])
    dams = np.array(case["dam"][4:])
    animals, own = np.arange(1, 15), [2, 5, 6, 7]
    X = np.hstack([indicator(case["herd"], [2, 3]), indicator(case["pen"], [1, 2])])
    Z = np.hstack([indicator(np.arange(5, 15), animals), indicator(dams, animals)])
    Ginv = np.zeros((32, 32))
    Ginv[:28, :28] = np.kron(np.linalg.inv(G), A_inverse)
    Ginv[28:, 28:] = np.eye(4) / 40.0
    s = mf.MixedModelEquations(
        case["y"], X, np.hstack([Z, indicator(dams, own)]), Ginv=Ginv, R=350.0
    ).solve()
    assert_printed(s.beta, case["herds"][1:] + case["pens"])
    assert_printed(s.u[:14], case["direct"])
    assert_printed(s.u[14:28], case["maternal"])
    assert_printed(s.u[28:], list(case["environment"].values()))


def test_random_regression():
    case = BOOK["random regression"]
    data = pd.DataFrame({name: case[name] for name in ("cow", "day", "htd", "y")})
    t = -1.0 + 2.0 * (data["day"] - 4) / 306
    for j in range(5):
        data[f"p{j}"] = np.sqrt(j + 0.5) * eval_legendre(j, t)
    m = mf.fit(
        "y ~ 0 + C(htd) + p1 + p2 + p3 + p4"
        " + (0 + p0 + p1 + p2 | cow) + iid(0 + p0 + p1 + p2 | cow)",
        data,
        relationship={
            "cow": mf.Pedigree(pd.DataFrame(BOOK["repeatability"]["pedigree"]))
        },
        varcomp={"cow": case["G"], "cow.1": case["P"], "residual": 3.710},
    )
    animals = np.column_stack([effects(m, "cow", f"p{j}")[names(8)] for j in range(3)])
    assert_printed(animals, case["animals"], units=1.0)
    own = np.column_stack([effects(m, "cow.1", f"p{j}")[names(5, 4)] for j in range(3)])
    assert_printed(own, case["environment"], units=1.0)
    # The book sets HTD 10 to zero and keeps a constant p0 = sqrt(1/2).
    htd = m.params[[f"C(htd)[{h}]" for h in range(1, 11)]].to_numpy()
    assert_printed(htd[:9] - htd[9], case["htd_solutions"][:9], units=2.0)
    curve = [htd[9] / np.sqrt(0.5), *m.params[["p1", "p2", "p3", "p4"]]]
    assert_printed(curve, case["curve"], units=1.0)


BULLS = names(14, 13)
MARKERS = pd.DataFrame(
    [[int(x) for x in row] for row in BOOK["genomic"]["markers"]], index=BULLS
)
RECORDS = pd.DataFrame({"bull": BULLS[:8], "y": BOOK["genomic"]["y"]})


def nearly(G):
    return G + 0.01 * np.eye(len(G))


def test_gblup():
    case = BOOK["genomic"]
    G = mf.genomic(MARKERS).K
    assert_printed(G["13"], case["G_first_column"])
    variances = {"bull": 35.241, "residual": 245.0}
    for K, printed in ((nearly(G), "gblup"), (G, "index")):
        m = mf.fit(
            "y ~ 1 + (1 | bull)", RECORDS, relationship={"bull": K}, varcomp=variances
        )
        assert_printed(m.params, [case["mean"]])
        # The book computes with rounded figures: its last digit is off by up to one.
        assert_printed(effects(m, "bull")[BULLS], case[printed], units=1.0)


def test_gblup_with_polygenic_effects():
    case = BOOK["genomic"]
    A = np.array([row.split() for row in case["A"]], dtype=float)
    A = (A + A.T) / 2.0  # 0.023 is printed once as 0.024
    m = mf.fit(
        "y ~ 1 + (1 | bull) + (1 | animal)",
        RECORDS.assign(animal=RECORDS["bull"]),
        relationship={
            "bull": nearly(mf.genomic(MARKERS).K),
            "animal": pd.DataFrame(A, BULLS, BULLS),
        },
        varcomp={"bull": 0.9 * 35.241, "animal": 0.1 * 35.241, "residual": 245.0},
    )
    assert_printed(m.params, [case["polygenic_mean"]])
    polygenic = effects(m, "animal")[BULLS]
    assert_printed(polygenic, case["polygenic"])
    total = effects(m, "bull")[BULLS] + polygenic  # in the book, of rounded figures
    assert_printed(total, case["polygenic_sum"], units=1.0)


def test_single_step():
    case = BOOK["genomic"]
    H = mf.single_step(pedigree_of("genomic"), mf.genomic(MARKERS))
    assert_printed([H.shift, H.slope], case["tuning"])
    m = mf.fit(
        "y ~ 1 + (1 | bull)",
        RECORDS,
        relationship={"bull": H},
        varcomp={"bull": 35.241, "residual": 245.0},
    )
    solved = effects(m, "bull")
    assert_printed(solved[names(12)], case["single_step_1_12"])
    assert_printed(solved[BULLS], case["single_step_13_26"])
