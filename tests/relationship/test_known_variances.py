"""Given variances: published solutions, Henderson's equations, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError

#: Mrode (2014), example 3.1: weaning gain of five calves.
CALVES = pd.DataFrame(
    {
        "animal": [4, 5, 6, 7, 8],
        "sire": [1, 3, 1, 4, 3],
        "dam": [0, 2, 2, 5, 6],
        "sex": ["male", "female", "female", "male", "male"],
        "wwg": [4.5, 2.9, 3.9, 3.5, 5.0],
    }
)
VARIANCES = {"animal": 20.0, "residual": 40.0}

REFERENCES = Path(__file__).parents[1] / "references"
MRODE = json.loads((REFERENCES / "mrode_two_traits.json").read_text())


def animal_model(formula="wwg ~ 0 + sex + (1 | animal)", **options):
    return mf.fit(
        formula,
        CALVES,
        relationship={"animal": mf.Pedigree(CALVES)},
        varcomp=VARIANCES,
        **options,
    )


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_mrode_3_1_to_the_printed_digit(backend):
    m = animal_model(control={"backend": backend})
    table = m.ranef(pev=True, reliability=True).set_index("level").loc[list("12345678")]
    # BLUPF90 tutorial, Mrode c03ex031
    assert m.params.round(3).tolist() == [3.404, 4.359]
    assert table["estimate"].round(3).tolist() == [
        0.098, -0.019, -0.041, -0.009, -0.186, 0.177, -0.249, 0.183,
    ]  # fmt: skip
    assert table["reliability"].round(3).tolist() == [
        0.058, 0.016, 0.087, 0.145, 0.144, 0.115, 0.116, 0.155,
    ]  # fmt: skip
    assert np.sqrt(table["pev"]).round(3).tolist() == [
        4.341, 4.437, 4.273, 4.136, 4.138, 4.206, 4.204, 4.110,
    ]  # fmt: skip
    np.testing.assert_allclose(table["accuracy"] ** 2, table["reliability"])


def two_traits(example, *, G=None, R=None, formula="gain ~ 0 + trait:sex"):
    """Fit an example with two traits; covariances are labelled by trait."""
    calves = pd.DataFrame({k: MRODE[example][k] for k in CALVES.columns[:4]})
    names = MRODE["traits"]
    calves = calves.assign(**{name: MRODE[example][name] for name in names})
    long = calves.melt(["animal", "sex"], names, var_name="trait", value_name="gain")
    held = {"animal": MRODE["G0"] if G is None else G}
    held["residual"] = MRODE["R0"] if R is None else R
    return mf.fit(
        f"{formula} + us(0 + trait | animal)",
        long,
        relationship={"animal": mf.Pedigree(calves)},
        residual="us(trait | animal)",
        varcomp={n: pd.DataFrame(v, names, names) for n, v in held.items()},
    )


@pytest.mark.parametrize("example", ["5.1", "5.2"])
def test_two_traits_to_the_printed_digit(example):
    """5.2 lacks two of the records."""
    m, printed = two_traits(example), MRODE[example]
    for t, trait in enumerate(MRODE["traits"]):
        for sex in ("male", "female"):
            found = m.params[f"trait[{trait}]:sex[{sex}]"]
            assert f"{found:.3f}" == printed[sex][t]
        table = m.ranef().set_index(["term", "level"])["estimate"]
        for i, values in enumerate(printed["animals"]):
            found = table[f"trait[{trait}]", str(i + 1)]
            assert found == pytest.approx(float(values[t]), abs=5.0001e-4)
    assert m.npar == 4
    assert "variances given, not estimated" in str(m.summary())


def test_prediction_errors_of_two_traits_are_blupf90s():
    m = two_traits("5.1")
    table = m.ranef(pev=True, reliability=True).set_index(["term", "level"])
    for trait, se in zip(MRODE["traits"], MRODE["5.1"]["se_animal_1"], strict=True):
        pev = table.loc[(f"trait[{trait}]", "1"), "pev"]
        assert np.sqrt(pev) == pytest.approx(float(se), abs=5e-9)
    reliability = table["reliability"].xs("1", level="level").sort_index()
    assert reliability.round(3).tolist() == [0.102, 0.070]


def test_coding_of_the_traits_does_not_matter():
    one, two = two_traits("5.1"), two_traits("5.1", formula="gain ~ trait * sex")
    pd.testing.assert_frame_equal(one.ranef(pev=True), two.ranef(pev=True))


def test_solution_is_that_of_hendersons_equations():
    m = animal_model()
    pedigree = mf.Pedigree(CALVES)
    W = np.zeros((5, 10))
    W[:, 0], W[:, 1] = CALVES["sex"] == "female", CALVES["sex"] == "male"
    places = pedigree.labels.get_indexer(CALVES["animal"].astype(str))
    W[np.arange(5), 2 + places] = 1.0
    C = W.T @ W / 40.0
    C[2:, 2:] += pedigree.A_inverse().todense() / 20.0
    solution = np.linalg.solve(C, W.T @ CALVES["wwg"] / 40.0)
    inverse = np.linalg.inv(C)
    np.testing.assert_allclose(m.params, solution[:2])
    np.testing.assert_allclose(m.ranef()["estimate"], solution[2:])
    np.testing.assert_allclose(m.bse, np.sqrt(inverse.diagonal()[:2]))
    np.testing.assert_allclose(m.ranef(pev=True)["pev"], inverse.diagonal()[2:])
    assert m.ddf.tolist() == [np.inf, np.inf]
    assert m.varcorr["vcov"].tolist() == pytest.approx([20.0, 40.0])
    assert "variances given, not estimated" in str(m.summary())


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_criterion_is_the_likelihood_at_the_given_variances(method):
    m = animal_model(method=method)
    X = np.column_stack([CALVES["sex"] == s for s in ("female", "male")]).astype(float)
    names = CALVES["animal"].astype(str)
    A = mf.Pedigree(CALVES).A().loc[names, names].to_numpy()
    V = 20.0 * A + 40.0 * np.eye(5)
    inverse = np.linalg.inv(V)
    rest = CALVES["wwg"].to_numpy() - X @ m.params
    deviance = np.linalg.slogdet(V)[1] + rest @ inverse @ rest
    deviance += (5 - 2 * (method == "REML")) * np.log(2.0 * np.pi)
    if method == "REML":
        deviance += np.linalg.slogdet(X.T @ inverse @ X)[1]
    assert m.criterion == pytest.approx(deviance, abs=1e-9)


def test_estimates_given_back_change_nothing():
    data = mf.datasets.load("sleepstudy")
    free = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    Sigma = free.sigma**2 * free._fit.T[0] @ free._fit.T[0].T
    held = {"Subject": Sigma, "residual": free.sigma**2}
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data, varcomp=held)
    assert m.criterion == pytest.approx(free.criterion, abs=1e-8)
    np.testing.assert_allclose(m.bse, free.bse, rtol=1e-9)
    np.testing.assert_allclose(
        m.ranef(pev=True)["pev"], free.ranef(pev=True)["pev"], rtol=1e-7
    )


def test_a_variance_of_zero_is_the_model_without_the_term():
    data = mf.datasets.load("sleepstudy")
    held = {"Subject": 0.0, "residual": 900.0}
    m = mf.fit("Reaction ~ Days + (1 | Subject)", data, varcomp=held)
    plain = mf.fit("Reaction ~ Days", data, varcomp={"residual": 900.0})
    np.testing.assert_allclose(m.params, plain.params)
    np.testing.assert_allclose(m.bse, plain.bse)
    assert not m.ranef()["estimate"].any()


def test_a_saved_model_keeps_its_variances(tmp_path):
    m = animal_model()
    m.save(tmp_path / "calves.mixform")
    again = mf.load(tmp_path / "calves.mixform")
    assert again.criterion == pytest.approx(m.criterion)
    pd.testing.assert_frame_equal(again.ranef(pev=True), m.ranef(pev=True))


BAD = {
    "unknown": ({**VARIANCES, "anmal": 1.0}, "names 'anmal'"),
    "negative": ({**VARIANCES, "animal": -1.0}, "indefinite"),
    "no residual": ({**VARIANCES, "residual": 0.0}, "not a positive number"),
    "shape": ({**VARIANCES, "animal": np.eye(2)}, r"shape \(2, 2\)"),
    "text": ({**VARIANCES, "animal": "a"}, "not numeric"),
    "no mapping": (20.0, "varcomp is a float"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_variances_are_refused(case):
    varcomp, message = BAD[case]
    pedigree = mf.Pedigree(CALVES)
    with pytest.raises(DesignError, match=message):
        mf.fit(
            "wwg ~ sex + (1 | animal)",
            CALVES,
            relationship={"animal": pedigree},
            varcomp=varcomp,
        )


def test_what_is_about_estimated_variances_is_refused():
    m = animal_model()
    with pytest.raises(InferenceError, match="Kenward-Roger adjusts"):
        m.anova(ddf="kenward-roger")
    for ask in (m.profile, m.influence, m.ranova, lambda: m.bootstrap(2)):
        with pytest.raises(InferenceError, match="were given"):
            ask()
    with pytest.raises(InferenceError, match="were given"):
        m.drop1(test="lrt")
