"""Variance components by analysis of variance."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf

REFERENCES = Path(__file__).parents[1] / "references"
SAS = json.loads((REFERENCES / "mean_squares_sas.json").read_text())


#: Labels in another order, and one without rows.
ORDER = ["zq", "none", "zp", "zr", "zs", "zt", "zu"]
UNRELATED = pd.DataFrame(np.eye(6), list("pqrstu"), list("pqrstu"))


def half_unit(printed):
    return 0.5 * 10.0 ** Decimal(printed).as_tuple().exponent


def components(m):
    return dict(zip(m.varcorr["grp"], m.varcorr["vcov"], strict=True))


# Balanced designs: closed forms, and REML.


def balanced(seed, sizes, sd):
    """Return a crossed layout a x b x replicate with effects of given SDs."""
    a, b = sizes[:2]
    rng = np.random.default_rng(seed)
    grid = np.indices(sizes).reshape(3, -1)
    y = 10.0 + rng.normal(0, sd[0], a)[grid[0]] + rng.normal(0, sd[1], b)[grid[1]]
    y = y + rng.normal(0, sd[2], (a, b))[grid[0], grid[1]]
    y = y + rng.normal(0, 1.0, y.size)
    return pd.DataFrame(
        {"a": grid[0], "b": grid[1], "r": grid[2], "y": y, "t": grid[1] % 2}
    )


def test_one_way_by_hand():
    data = mf.datasets.load("Dyestuff")
    y = data["Yield"].to_numpy(dtype=float).reshape(6, 5)
    between = 5.0 * y.mean(axis=1).var(ddof=1)
    within = y.var(axis=1, ddof=1).mean()
    m = mf.fit("Yield ~ 1 + (1 | Batch)", data, method="ANOVA")
    found = components(m)
    assert found["Residual"] == pytest.approx(within, rel=1e-12)
    assert found["Batch"] == pytest.approx((between - within) / 5.0, rel=1e-12)
    # Var(s_a^2) = 2 (MSA^2 / 5 + MSE^2 / 24) / 25 (Searle et al. 1992, chapter 4)
    V = m.cov_varcorr()
    expected = 2.0 * (between**2 / 5 + within**2 / 24) / 25
    assert V.loc["Batch", "Batch"] == pytest.approx(expected, rel=1e-10)
    assert V.loc["Residual", "Residual"] == pytest.approx(2 * within**2 / 24, rel=1e-12)
    assert V.loc["Batch", "Residual"] == pytest.approx(
        -2 * within**2 / 24 / 5, rel=1e-10
    )
    assert m.ddf["Intercept"] == pytest.approx(5.0, rel=1e-10)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ 1 + (1 | a)",
        "y ~ 1 + (1 | a/b)",
        "y ~ 1 + (1 | a) + (1 | b)",
        "y ~ 1 + (1 | a) + (1 | b) + (1 | a:b)",
        "y ~ C(t) + (1 | a) + (1 | a:b)",
        "y ~ C(b) + (1 | a) + (1 | a:b)",
    ],
)
@pytest.mark.parametrize("sums", ["henderson3", "type1"])
def test_balanced_estimates_equal_reml(formula, sums):
    data = balanced(3, (7, 4, 3), (2.0, 1.5, 1.0))
    one = mf.fit(formula, data, method="ANOVA", control={"sums": sums})
    two = mf.fit(formula, data)
    assert not two.singular
    np.testing.assert_allclose(one.varcorr["vcov"], two.varcorr["vcov"], rtol=2e-6)
    np.testing.assert_allclose(one.params, two.params, rtol=1e-8)
    np.testing.assert_allclose(one.bse, two.bse, rtol=2e-6)
    np.testing.assert_allclose(one.ddf, two.ddf, rtol=1e-4)
    np.testing.assert_allclose(
        one.ranef()["estimate"], two.ranef()["estimate"], rtol=1e-5, atol=1e-8
    )


def test_split_plot_of_sas():
    data = mf.datasets.load("stroup")
    m = mf.fit("Y ~ A * B + (1 | Block) + (1 | A:Block)", data, method="anova")
    assert components(m) == {
        "Block": pytest.approx(62.395833, abs=5e-7),
        "A:Block": pytest.approx(15.381944, abs=5e-7),
        "Residual": pytest.approx(9.361111, abs=5e-7),
    }
    table = m.anova()
    np.testing.assert_allclose(table["den_df"], [6.0, 9.0, 9.0], rtol=1e-9)
    np.testing.assert_allclose(
        table["f_value"], [4.069574, 19.388724, 4.019288], atol=5e-7
    )
    tested = m.mean_squares().loc[["A", "B", "A:B"]]
    np.testing.assert_allclose(tested["f_value"], table["f_value"], rtol=1e-9)
    np.testing.assert_allclose(tested["p_value"], table["p_value"], rtol=1e-8)


def test_negative_estimate_is_shown():
    data = mf.datasets.load("Dyestuff2")
    y = data["Yield"].to_numpy().reshape(6, 5)
    between = 5.0 * y.mean(axis=1).var(ddof=1)
    within = y.var(axis=1, ddof=1).mean()
    assert between < within
    m = mf.fit("Yield ~ 1 + (1 | Batch)", data, method="ANOVA")
    assert components(m)["Batch"] == pytest.approx((between - within) / 5.0)
    assert np.isnan(m.varcorr["sdcor"][0])
    assert any("Batch is negative" in note for note in m.notes)
    assert "-1.322" in str(m)
    assert np.all(m.ranef()["estimate"] == 0.0)
    ols = mf.fit("Yield ~ 1", data)
    # Effects are those without the term, at the residual variance of this one.
    assert m.params["Intercept"] == pytest.approx(ols.params["Intercept"])
    assert m.bse["Intercept"] == pytest.approx(np.sqrt(within / 30.0))
    assert m.ddf["Intercept"] == pytest.approx(24.0)
    h2 = m.vcfun("Batch / (Batch + residual)")
    assert h2.estimate == pytest.approx((between - within) / (between + 4.0 * within))


# Unbalanced: brute force with n x n matrices.


def unbalanced(seed=0, n=90):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "a": rng.choice(list("pqrstu"), n, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05]),
            "b": rng.integers(0, 5, n),
            "x": rng.normal(50.0, 3.0, n),
            "f": rng.choice(["u", "v", "w"], n),
            "w": rng.uniform(0.5, 3.0, n),
        }
    )
    cells = data["a"] + data["b"].astype(str)
    effect = dict(zip(cells.unique(), rng.normal(0, 2, 99), strict=False))
    data["y"] = 0.2 * data["x"] + cells.map(effect) + rng.normal(0, 1, n)
    return data


def dummies(*columns):
    keys = columns[0].astype(str)
    for column in columns[1:]:
        keys = keys + ":" + column.astype(str)
    return pd.get_dummies(keys).to_numpy(dtype=float)


def projection(*parts):
    W = np.hstack(parts)
    U, s, _ = np.linalg.svd(W, full_matrices=False)
    U = U[:, s > 1e-9 * s[0]]
    return U @ U.T


def by_force(y, quadratics, Z):
    """Return components and their covariance from n x n quadratic forms."""
    Z = [*Z, np.eye(len(y))]
    C = np.array([[np.trace(z.T @ A @ z) for z in Z] for A in quadratics])
    v = np.linalg.solve(C, [y @ A @ y for A in quadratics])
    V = sum(value * z @ z.T for value, z in zip(v, Z, strict=True))
    AV = [A @ V for A in quadratics]
    cov = np.array([[2.0 * np.trace(one @ two) for two in AV] for one in AV])
    inverse = np.linalg.inv(C)
    return C, v, inverse @ cov @ inverse.T


@pytest.mark.parametrize("sums", ["henderson3", "type1"])
@pytest.mark.parametrize("weighted", [False, True])
def test_unbalanced_crossed_against_n_by_n_matrices(sums, weighted):
    data = unbalanced()
    root = np.sqrt(data["w"].to_numpy())[:, None] if weighted else np.ones((90, 1))
    X = root * np.column_stack([np.ones(90), data["x"], dummies(data["f"])[:, 1:]])
    a, b = root * dummies(data["a"]), root * dummies(data["b"])
    ab = root * dummies(data["a"], data["b"])
    y = root[:, 0] * data["y"].to_numpy()
    PX, full = projection(X), projection(X, ab)
    first = projection(X, a, b)
    quadratics = [
        projection(X, a) - PX if sums == "type1" else first - projection(X, b),
        first - projection(X, a),
        full - first,
        np.eye(90) - full,
    ]
    C, v, cov = by_force(y, quadratics, [a, b, ab])
    m = mf.fit(
        "y ~ x + f + (1 | a) + (1 | b) + (1 | a:b)",
        data,
        method="ANOVA",
        weights="w" if weighted else None,
        control={"sums": sums},
    )
    np.testing.assert_allclose(m.varcorr["vcov"], v, rtol=1e-8)
    np.testing.assert_allclose(m.cov_varcorr(), cov, rtol=1e-7, atol=1e-12)
    table = m.mean_squares()
    num_df = np.array([np.trace(A) for A in quadratics])
    rows = table.iloc[-4:]
    np.testing.assert_allclose(rows["num_df"], num_df, atol=1e-8)
    np.testing.assert_allclose(
        rows["mean_sq"],
        [y @ A @ y / d for A, d in zip(quadratics, num_df, strict=True)],
    )
    np.testing.assert_allclose(
        table.expectations.iloc[-4:], C / num_df[:, None], rtol=1e-8, atol=1e-9
    )


def reductions(X, Z, sums):
    """Return the quadratic forms of random terms and the residual, n x n."""
    out = []
    for i, z in enumerate(Z):
        others = [
            other
            for j, other in enumerate(Z)
            if (
                j < i
                if sums == "type1"
                else not np.allclose(projection(other) @ z, z, atol=1e-9)
            )
        ]
        before = projection(X, *others)
        out.append(projection(X, *others, z) - before)
    full = projection(X, *Z)
    return [*out, np.eye(len(full)) - full]


@pytest.mark.parametrize("sums", ["henderson3", "type1"])
@pytest.mark.parametrize("sizes", [(6, 5, 9), (3, 12, 2), (14, 3, 4)])
@pytest.mark.parametrize(
    "groups",
    [
        ["a"],
        ["a", "a:b", "c"],
        ["c", "a", "b"],
        ["a", "b", "a:b", "c"],
        ["a", "b", "a:b", "b:c"],
        ["b", "b:c", "a:b:c"],
        ["a", "x | a"],
    ],
    ids=" ".join,
)
def test_crossed_and_nested_terms_against_n_by_n_matrices(groups, sizes, sums):
    n = 110
    rng = np.random.default_rng(sum(sizes))
    data = pd.DataFrame(
        {
            c: rng.choice(m, n, p=rng.dirichlet(np.ones(m) * 2))
            for c, m in zip("abc", sizes, strict=True)
        }
    ).assign(x=rng.normal(3.0, 1.0, n), o=rng.normal(0.0, 5.0, n))
    Z = []
    for group in groups:
        z = dummies(*(data[c] for c in group.removeprefix("x | ").split(":")))
        Z.append(data[["x"]].to_numpy() * z if group.startswith("x") else z)
    data["y"] = data["o"] + data["x"] + rng.normal(0.0, 1.0, n)
    data["y"] += sum(z @ rng.normal(0.0, 2.0, z.shape[1]) for z in Z)
    bars = "".join(
        f" + (0 + {group})" if group.startswith("x") else f" + (1 | {group})"
        for group in groups
    )
    m = mf.fit(
        f"y ~ x + offset(o) + {bars[3:]}",
        data,
        method="ANOVA",
        control={"sums": sums},
    )
    X = np.column_stack([np.ones(n), data["x"]])
    quadratics = reductions(X, Z, sums)
    C, v, cov = by_force((data["y"] - data["o"]).to_numpy(), quadratics, Z)
    np.testing.assert_allclose(m.varcorr["vcov"], v, rtol=1e-9)
    np.testing.assert_allclose(
        m.cov_varcorr(), cov, rtol=1e-8, atol=1e-11 * np.abs(cov).max()
    )
    num_df = np.array([np.trace(A) for A in quadratics])
    table = m.mean_squares().iloc[-len(quadratics) :]
    np.testing.assert_allclose(table["num_df"], num_df, atol=1e-8)
    np.testing.assert_allclose(
        m.mean_squares().expectations.iloc[-len(quadratics) :],
        C / num_df[:, None],
        rtol=1e-8,
        atol=1e-9,
    )


def test_thousands_of_nested_levels_by_closed_forms():
    a, b, r = 400, 20, 3
    rng = np.random.default_rng(9)
    y = rng.normal(0, 2, (a, 1, 1)) + rng.normal(0, 1, (a, b, 1))
    y = y + rng.normal(0, 1.5, (a, b, r))
    grid = np.indices(y.shape).reshape(3, -1)
    data = pd.DataFrame({"a": grid[0], "b": grid[1], "y": y.ravel()})
    m = mf.fit(
        "y ~ 1 + (1 | a/b)", data.sample(frac=1.0, random_state=1), method="ANOVA"
    )
    cells = y.mean(axis=2)
    msa = b * r * cells.mean(axis=1).var(ddof=1)
    msb = r * cells.var(axis=1, ddof=1).mean()
    mse = y.var(axis=2, ddof=1).mean()
    table = m.mean_squares()
    assert list(table["num_df"]) == [a - 1, a * (b - 1), a * b * (r - 1)]
    np.testing.assert_allclose(table["mean_sq"], [msa, msb, mse], rtol=1e-10)
    np.testing.assert_allclose(
        m.varcorr["vcov"], [(msa - msb) / (b * r), (msb - mse) / r, mse], rtol=1e-9
    )
    parts = 2.0 * np.array([msa, msb, mse]) ** 2 / table["num_df"]
    V = m.cov_varcorr().to_numpy()
    assert V[0, 0] == pytest.approx((parts.iloc[0] + parts.iloc[1]) / (b * r) ** 2)
    assert V[1, 1] == pytest.approx((parts.iloc[1] + parts.iloc[2]) / r**2)
    assert V[0, 1] == pytest.approx(-parts.iloc[1] / (b * r**2))


def test_crossed_terms_too_large_for_dense_matrices_are_refused():
    rng = np.random.default_rng(1)
    n = 60_000
    data = pd.DataFrame(
        {"a": rng.permutation(n) % 20_000, "b": rng.permutation(n) % 20_000}
    ).assign(y=rng.normal(size=n))
    with pytest.raises(mf.SolverError, match="20000 by 40001 numbers"):
        mf.fit("y ~ 1 + (1 | a) + (1 | b)", data, method="ANOVA")


def test_levels_that_are_nested_in_others_count_as_nested():
    data = unbalanced(4).assign(cell=lambda d: d["a"] + d["b"].astype(str))
    one = mf.fit("y ~ x + (1 | a) + (1 | cell)", data, method="ANOVA")
    two = mf.fit("y ~ x + (1 | a/b)", data, method="ANOVA")
    np.testing.assert_allclose(one.varcorr["vcov"], two.varcorr["vcov"], rtol=1e-10)


def test_satterthwaite_of_unbalanced_data_is_the_delta_method():
    data = unbalanced(2)
    m = mf.fit("y ~ x + (1 | a) + (1 | b)", data, method="ANOVA")
    assert np.all(m.varcorr["vcov"] > 0.0)
    X = np.column_stack([np.ones(90), data["x"]])
    Z = [dummies(data["a"]), dummies(data["b"]), np.eye(90)]

    def variance(v, ell):
        V = sum(value * z @ z.T for value, z in zip(v, Z, strict=True))
        return ell @ np.linalg.solve(X.T @ np.linalg.solve(V, X), ell)

    v = m.varcorr["vcov"].to_numpy()
    for name, ell in zip(m.params.index, np.eye(2), strict=True):
        slopes = [
            (variance(v + h, ell) - variance(v - h, ell)) / 2e-5
            for h in 1e-5 * np.eye(3)
        ]
        df = 2 * variance(v, ell) ** 2 / (slopes @ m.cov_varcorr().to_numpy() @ slopes)
        assert m.ddf[name] == pytest.approx(df, rel=1e-5)
        assert m.bse[name] == pytest.approx(np.sqrt(variance(v, ell)), rel=1e-9)


# SAS.


def test_type1_of_sas_varcomp():
    given = SAS["varcomp"]
    data = pd.DataFrame({name: given[name] for name in "aby"}).astype(
        {"a": str, "b": str}
    )
    m = mf.fit(
        "y ~ a + (1 | b) + (1 | a:b)", data, method="ANOVA", control={"sums": "type1"}
    )
    for name, printed in given["estimates"].items():
        assert components(m)[name] == pytest.approx(
            float(printed), abs=half_unit(printed)
        )
    table = m.mean_squares()
    for column in ("num_df", "sum_sq", "mean_sq"):
        for name, printed in given[column].items():
            assert table.loc[name, column] == pytest.approx(
                float(printed), abs=half_unit(printed)
            )
    for source, coefficients in given["expected"].items():
        for name, printed in coefficients.items():
            assert table.expectations.loc[source, name] == pytest.approx(
                float(printed), abs=half_unit(printed)
            )
    assert (
        "Var(Residual) + 2.725 Var(a:b) + 0.1 Var(b) + Q(a)" in table.attrs["expected"]
    )


# Invariance.


def test_scale_order_labels_and_unused_levels_do_not_matter():
    data = unbalanced(5)
    formula = "y ~ x + (1 | a) + (1 | b)"
    m = mf.fit(formula, data, method="ANOVA")
    shuffled = data.sample(frac=1.0, random_state=1).assign(
        a=lambda d: pd.Categorical("z" + d["a"], ORDER),
        y=lambda d: 1e3 * d["y"] + 7.0,
        x=lambda d: 1e4 * d["x"] - 3.0,
    )
    other = mf.fit(formula, shuffled, method="ANOVA")
    np.testing.assert_allclose(
        other.varcorr["vcov"], 1e6 * m.varcorr["vcov"], rtol=1e-9
    )


# After the fit.


def test_result_is_kept_and_repeated(tmp_path):
    data = unbalanced(6)
    formula = "y ~ x + (1 | a) + (1 | b)"
    m = mf.fit(formula, data, method="ANOVA", control={"sums": "type1"})
    m.save(tmp_path / "m.mix")
    again = mf.load(tmp_path / "m.mix")
    pd.testing.assert_frame_equal(again.varcorr, m.varcorr)
    pd.testing.assert_frame_equal(again.mean_squares(), m.mean_squares())
    twice = m.refit(2.0 * data["y"])
    np.testing.assert_allclose(twice.varcorr["vcov"], 4.0 * m.varcorr["vcov"])
    assert m.update(method="REML").method == "REML"
    assert m.npar == 2 + 3
    assert list(m.glance().columns) == ["nobs", "sigma", "df.residual"]
    assert "ANOVA (type 1 sums of squares)" in str(m)


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("AIC", lambda m: m.aic),
        ("A criterion", lambda m: m.llf),
        ("A profile", lambda m: m.conf_int(method="profile")),
        ("A test of a variance", lambda m: m.ranova()),
        ("The bootstrap", lambda m: m.bootstrap(5)),
        ("The bootstrap", lambda m: m.conf_int(method="bootstrap")),
        ("A likelihood-ratio test", lambda m: mf.compare(m, m)),
        ("Influence", lambda m: m.influence()),
    ],
)
def test_what_needs_a_likelihood_is_refused(what, call):
    m = mf.fit("y ~ x + (1 | a)", unbalanced(), method="ANOVA")
    with pytest.raises(mf.InferenceError, match=f"^{what} needs a likelihood"):
        call(m)


def test_kenward_roger_is_refused():
    m = mf.fit("y ~ x + (1 | a)", unbalanced(), method="ANOVA")
    with pytest.raises(mf.InferenceError, match="this fit is by ANOVA"):
        m.anova(ddf="kenward-roger")


# Bad input.


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y ~ x + (x | a)", {}, r"\(x \| a\): its coefficients have a covariance"),
        ("y ~ x + (x || a)", {}, "it has 2 coefficients"),
        ("y ~ x + cs(0 + f | a)", {}, "its coefficients|it has 3 coefficients"),
        (
            "y ~ x + (1 | a)",
            {
                "relationship": {
                    "a": pd.DataFrame(np.eye(6), list("pqrstu"), list("pqrstu"))
                }
            },
            "its levels are related",
        ),
        (
            "y ~ x + (1 | a)",
            {"residual": "ar1(b | f)"},
            "residual structure|twice|position",
        ),
        ("y ~ x + (1 | a)", {"dispersion": "~ x"}, "residual structure"),
        ("y ~ x + (1 | a)", {"varcomp": {"a": 1.0}}, "varcomp= has no use"),
        ("y ~ x + (1 | a)", {"start": [1.0]}, "start= has no use"),
        ("y ~ x + (1 | a)", {"control": {"sums": ["type1"]}}, r"sums is \['type1'\]"),
        ("y ~ x + (1 | a)", {"control": {"tolerance": 1.0}}, "Unknown control option"),
        ("y ~ x + (1 | a)", {"control": {"backend": "cg"}}, "backend is 'cg'"),
        ("y ~ x + (1 | a)", {"control": mf.Control()}, "is a Control, not a mapping"),
        (
            "y ~ x + (1 | a)",
            {"control": 5, "method": "REML"},
            "is a int, not a mapping",
        ),
        (
            "y ~ a + (1 | a)",
            {},
            "no degrees of freedom of its own after the fixed part",
        ),
        ("y ~ x + (1 | a)", {"control": {"sums": "type4"}}, "sums is 'type4'"),
    ],
)
def test_refusals(formula, options, message):
    with pytest.raises(mf.DesignError, match=message):
        mf.fit(formula, unbalanced(), **{"method": "ANOVA"} | options)


def test_type1_says_that_terms_are_in_the_wrong_order():
    data = unbalanced()
    with pytest.raises(mf.DesignError, match="no degrees of freedom") as caught:
        mf.fit(
            "y ~ x + (1 | a:b) + (1 | a)",
            data,
            method="ANOVA",
            control={"sums": "type1"},
        )
    assert "in front of those that contain them" in str(caught.value)


def test_no_residual_is_left():
    data = unbalanced().assign(row=range(90))
    with pytest.raises(mf.DesignError, match="no residual degrees of freedom"):
        mf.fit("y ~ x + (1 | row)", data, method="ANOVA")


def test_same_levels_twice():
    data = unbalanced().assign(copy=lambda d: d["a"] + "!")
    with pytest.raises(mf.DesignError, match="a, copy do not determine"):
        mf.fit("y ~ x + (1 | a) + (1 | copy)", data, method="ANOVA")
