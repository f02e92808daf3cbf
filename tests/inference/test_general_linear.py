"""gls: the pigs of the lecture by hand, statsmodels, BLUE and BLUP both ways."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.sparse import csr_array
from scipy.stats import chi2, f, norm, t

import mixform as mf
from mixform.errors import DesignError, InferenceError

REFERENCES = Path(__file__).parent.parent / "references"

#: The lecture's pigs: gain of three controls and three treated.
Y = np.array([53.0, 46.0, 58.0, 61.0, 66.0, 57.0])
MU = np.array([157.0 / 3.0, 184.0 / 3.0])
#: Squares within groups: (4 + 361 + 289) / 9 and (1 + 196 + 169) / 9 = 340 / 3.
RSS = 340.0 / 3.0
CONTROL = np.r_[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
FULL = pd.DataFrame({"mu": 1.0, "d1": CONTROL, "d2": 1.0 - CONTROL})

#: Solutions of y = mu + delta_i, each with the condition that picks it.
SOLUTIONS = {
    "d2 = 0": ("set-to-zero", [MU[1], -9.0, 0.0]),
    "d1 = 0": ("d1 = 0", [MU[0], 0.0, 9.0]),
    "mu = 0": ("mu = 0", [0.0, MU[0], MU[1]]),
    "sum to zero": ("d1 + d2 = 0", [MU.mean(), -4.5, 4.5]),
    "mapping": ({"d1": 2.0, "d2": 2.0}, [MU.mean(), -4.5, 4.5]),
    # Least squares of mu^2 + (mu_1 - mu)^2 + (mu_2 - mu)^2: mu = (mu_1 + mu_2) / 3.
    "least length": ("moore-penrose", [MU.sum() / 3.0, *(MU - MU.sum() / 3.0)]),
}


@pytest.mark.parametrize(("given", "beta"), SOLUTIONS.values(), ids=SOLUTIONS)
def test_pigs_have_many_solutions_and_one_set_of_estimable_functions(given, beta):
    m = mf.gls(Y, FULL, solution=given)
    np.testing.assert_allclose(m.params, beta, atol=1e-12)
    assert not m.estimable.any()
    X = FULL.to_numpy()
    A = X.T @ X
    np.testing.assert_allclose(A @ m.ginv @ A, A, atol=1e-12)
    np.testing.assert_allclose(m.ginv @ X.T @ Y, m.params, atol=1e-12)
    estimates, variances = m.estimate([[1, 1, 0], [1, 0, 1], [0, -1, 1]])
    np.testing.assert_allclose(estimates, [*MU, 9.0])
    sigma2 = RSS / 4.0
    np.testing.assert_allclose(variances, sigma2 * np.array([1, 1, 2]) / 3.0)
    assert m.rss == pytest.approx(RSS)
    np.testing.assert_allclose(m.fittedvalues, np.repeat(MU, 3))


def test_moore_penrose_is_that_of_numpy():
    X = FULL.to_numpy()
    m = mf.gls(Y, FULL, solution="moore-penrose")
    np.testing.assert_allclose(m.ginv, np.linalg.pinv(X.T @ X), atol=1e-14)


def test_pigs_by_hand():
    m = mf.gls(Y, FULL)
    assert m.rank == 2
    assert m.sigma2 == pytest.approx(RSS / 4.0)
    assert m.sigma2_ml == pytest.approx(RSS / 6.0)
    # Sum of squares between: 6 pigs, 4.5 above or below the mean of all.
    between = 6.0 * 4.5**2
    assert m.rsquared == pytest.approx(between / (between + RSS))
    assert m.rsquared_adj == pytest.approx(1.0 - (RSS / 4.0) / ((between + RSS) / 5.0))
    assert m.f_value == pytest.approx(between / (RSS / 4.0))
    assert m.p_value == pytest.approx(f.sf(between / (RSS / 4.0), 1, 4))
    assert m.llf == pytest.approx(-3.0 * (np.log(2.0 * np.pi * RSS / 6.0) + 1.0))
    found = m.test("d2 - d1 = 0")
    assert found.f_value == pytest.approx(m.f_value)
    assert found.den_df == 4.0
    assert found.p_value == pytest.approx(m.p_value)


@pytest.mark.parametrize(
    "columns", [["d1", "d2"], ["mu", "d2"], ["mu", "d1", "d2"]], ids=" ".join
)
def test_equivalent_parameterizations_fit_alike(columns):
    m, full = mf.gls(Y, FULL[columns]), mf.gls(Y, FULL)
    np.testing.assert_allclose(m.fittedvalues, full.fittedvalues)
    for name in ("rss", "rsquared", "f_value", "p_value", "llf", "aic", "rank"):
        assert getattr(m, name) == pytest.approx(getattr(full, name)), name


def test_known_variance_gives_the_lectures_covariance_and_chi_square():
    V = 25.0 * np.eye(6)
    m = mf.gls(Y, FULL, V, sigma2=1.0)
    np.testing.assert_allclose(m.estimate([0, -1, 1])[1], [2.0 * 25.0 / 3.0])
    found = m.test("d2 - d1 = 0")
    chisq = 81.0 / (50.0 / 3.0)
    assert found.f_value == pytest.approx(chisq)
    assert np.isinf(found.den_df)
    assert found.p_value == pytest.approx(chi2.sf(chisq, 1))
    assert m.f_value == pytest.approx(chisq)
    assert m.llf == pytest.approx(-0.5 * (6.0 * np.log(50.0 * np.pi) + RSS / 25.0))
    assert m.npar == 2
    np.testing.assert_allclose(
        m.table["p_value"][:2], 2.0 * norm.sf(np.abs(m.params / m.bse))[:2]
    )
    same = mf.gls(Y, FULL, sigma2=25.0)
    np.testing.assert_allclose(same.bse, m.bse)
    assert same.llf == pytest.approx(m.llf)


def example(seed=3, n=30):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    return X @ [1.0, 2.0, 0.0, -1.0] + rng.normal(size=n), X, rng.uniform(0.2, 3.0, n)


def ar1(n, rho=0.6):
    i = np.arange(n)
    return rho ** np.abs(i[:, None] - i)


def models():
    y, X, w = example()
    V = ar1(len(y)) * np.sqrt(np.outer(w, w))
    return {
        "OLS": (mf.gls(y, X), sm.OLS(y, X).fit()),
        "WLS": (mf.gls(y, X, w), sm.WLS(y, X, weights=1.0 / w).fit()),
        "GLS": (mf.gls(y, X, V), sm.GLS(y, X, sigma=V).fit()),
        "GLS sparse": (mf.gls(y, csr_array(X), csr_array(V)), sm.GLS(y, X, V).fit()),
        "no constant": (mf.gls(y, X[:, 1:], w), sm.WLS(y, X[:, 1:], 1.0 / w).fit()),
    }


@pytest.mark.parametrize("name", list(models()))
def test_agrees_with_statsmodels(name):
    m, other = models()[name]
    for ours, theirs in (
        (m.params, other.params),
        (m.bse, other.bse),
        (m.table["t_value"], other.tvalues),
        (m.table["p_value"], other.pvalues),
        (m.cov_params(), other.cov_params()),
        (m.fittedvalues, other.fittedvalues),
        (m.rss, other.ssr),
        (m.sigma2, other.scale),
        (m.rsquared, other.rsquared),
        (m.rsquared_adj, other.rsquared_adj),
        (m.f_value, other.fvalue),
        (m.p_value, other.f_pvalue),
        (m.llf, other.llf),
        (m.aic, other.aic + 2.0),  # statsmodels does not count sigma^2
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    K = np.eye(len(m.params))[1:] - 0.5
    rhs = np.arange(len(K))
    theirs = other.f_test((K, rhs))
    found = m.test(K, rhs)
    assert found.f_value == pytest.approx(float(theirs.fvalue), rel=1e-9)
    assert (found.num_df, found.den_df) == (theirs.df_num, theirs.df_denom)


def test_rank_deficient_agrees_with_statsmodels():
    y, X, w = example()
    X = np.column_stack([X, X[:, 1] - 2.0 * X[:, 3]])
    m = mf.gls(y, X, w, solution="moore-penrose")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer versions, that rank is lacking
        other = sm.WLS(y, X, weights=1.0 / w).fit()  # by pinv: of least length
    np.testing.assert_allclose(m.params, other.params, rtol=1e-8)
    np.testing.assert_allclose(m.rsquared_adj, other.rsquared_adj)
    np.testing.assert_allclose(m.f_value, other.fvalue)
    np.testing.assert_allclose(m.llf, other.llf)
    assert m.estimable.tolist() == [True, False, True, False, False]
    np.testing.assert_allclose(m.bse.iloc[[0, 2]], other.bse[[0, 2]])


def printed(name):
    text = (REFERENCES / "general_linear.txt").read_text().splitlines()
    (line,) = [row for row in text if row.startswith(name)]
    return [float(v) for v in line.removeprefix(name).replace("NA", "nan").split()]


def test_ar1_known_agrees_with_nlme():
    x = [1.0, 2, 4, 5, 7, 8, 11]
    z = [2.1, 3.9, 7.2, 11.8, 13.1, 17.5, 21]
    m = mf.gls(z, np.column_stack([np.ones(7), x]), ar1(7))
    np.testing.assert_allclose(m.params, printed("gls coef"), rtol=1e-8)
    sigma, llf = printed("gls sigma logLik")
    assert np.sqrt(m.sigma2_ml) == pytest.approx(sigma, rel=1e-8)
    assert m.llf == pytest.approx(llf, rel=1e-8)
    sigma, *se = printed("gls REML sigma se")
    assert np.sqrt(m.sigma2) == pytest.approx(sigma, rel=1e-8)
    np.testing.assert_allclose(m.bse, se, rtol=1e-8)


def mixed(rank_deficient):
    """A correlated by an ancestor, R by AR(1), X of full rank or not."""
    rng = np.random.default_rng(8)
    n, q = 14, 5
    groups = np.eye(3)[np.arange(n) % 3]
    X = np.column_stack([np.ones(n), groups]) if rank_deficient else groups
    Z = np.eye(q)[rng.integers(0, q, n)]
    A = np.eye(q)
    A[0, 2] = A[2, 0] = A[1, 2] = A[2, 1] = 0.5  # 3 is a child of 1 and 2
    A[2, 3] = A[3, 2] = 0.5
    A[0, 3] = A[3, 0] = A[1, 3] = A[3, 1] = 0.25
    y = X @ rng.normal(size=X.shape[1]) + rng.normal(size=n) + 5.0
    return y, X, Z, 0.8 * A, 1.5 * ar1(n, 0.4)


@pytest.mark.parametrize("rank_deficient", [False, True])
def test_every_formula_of_the_lecture_for_blue_and_blup_agrees(rank_deficient):
    y, X, Z, G, S = mixed(rank_deficient)
    V = Z @ G @ Z.T + S
    by_V = mf.gls(y, X, V, sigma2=1.0)
    by_mme = mf.MixedModelEquations(y, X, Z, G=G, R=S).solve()
    # The lecture's elimination of u, with inverses as it writes them.
    S_inv = np.linalg.inv(S)
    middle = np.linalg.inv(Z.T @ S_inv @ Z + np.linalg.inv(G))
    W = S_inv - S_inv @ Z @ middle @ Z.T @ S_inv
    np.testing.assert_allclose(W, np.linalg.inv(V), atol=1e-12)
    eliminated = mf.gls(y, X, np.linalg.inv(W), sigma2=1.0)
    assert by_mme.estimable.tolist() == by_V.estimable.tolist()
    assert by_V.estimable.all() == (not rank_deficient)
    K = np.column_stack([np.ones(3), np.eye(3)]) if rank_deficient else np.eye(3)
    blue, variances = by_V.estimate(K)
    for other in (by_mme.estimate(K), eliminated.estimate(K)):
        np.testing.assert_allclose(other[0], blue, rtol=1e-10)
        np.testing.assert_allclose(other[1], variances, rtol=1e-10)
    full = X[:, -3:]
    XtVX = full.T @ np.linalg.inv(V) @ full
    np.testing.assert_allclose(
        blue, np.linalg.solve(XtVX, full.T @ np.linalg.inv(V) @ y), rtol=1e-10
    )
    np.testing.assert_allclose(variances, np.linalg.inv(XtVX).diagonal(), rtol=1e-10)
    rest = y - full @ blue
    u = by_V.blup(G @ Z.T)
    np.testing.assert_allclose(by_V.resid, rest, atol=1e-10)
    np.testing.assert_allclose(u, by_mme.u, atol=1e-10)
    np.testing.assert_allclose(u, G @ Z.T @ np.linalg.solve(V, rest), atol=1e-10)
    np.testing.assert_allclose(u, middle @ Z.T @ S_inv @ rest, atol=1e-10)
    np.testing.assert_allclose(by_V.pev(G @ Z.T, G), by_mme.pev, rtol=1e-9)
    # A singular G has BLUP by V^-1, not the equations.
    none = np.zeros_like(G)
    zero = mf.gls(y, X, S, sigma2=1.0).blup(none @ Z.T)
    np.testing.assert_array_equal(zero, np.zeros(5))
    with pytest.raises(DesignError, match="G is not positive definite") as caught:
        mf.MixedModelEquations(y, X, Z, G=none, R=S)
    assert "blup" in str(caught.value)


def test_relative_variances_give_the_same_blup_and_sigma2():
    y, X, Z, G, S = mixed(False)
    V, sigma2 = Z @ G @ Z.T + S, 2.0
    known = mf.gls(y, X, V, sigma2=sigma2)
    np.testing.assert_allclose(
        known.blup(G @ Z.T), mf.gls(y, X, sigma2 * V).blup(sigma2 * G @ Z.T)
    )
    np.testing.assert_allclose(
        known.pev(G @ Z.T, G),
        mf.gls(y, X, sigma2 * V, sigma2=1.0).pev(sigma2 * G @ Z.T, sigma2 * G),
    )


def test_dependent_rows_count_once_and_contradictions_are_refused():
    m = mf.gls(Y, FULL)
    found = m.test([[0, -1, 1], [0, -2, 2]], rhs=[1.0, 2.0])
    assert found.num_df == 1
    assert found.f_value == pytest.approx((8.0 / np.sqrt(RSS / 6.0)) ** 2)
    assert found.table["p_value"].iloc[1] == pytest.approx(
        2.0 * t.sf(8.0 / np.sqrt(RSS / 6.0), 4)
    )
    assert "2 rows of rank 1" in str(found)
    assert "Covariance of the estimates" in str(found)
    with pytest.raises(InferenceError, match="contradict each other"):
        m.test([[0, -1, 1], [0, -2, 2]], rhs=[1.0, 3.0])
    with pytest.raises(InferenceError, match="adding 1 to mu and -1 to d1, d2"):
        m.test("mu = 0")


def test_output_names_what_is_not_unique():
    m = mf.gls(Y, FULL, solution="d1 + d2 = 0")
    said = str(m)
    assert "A solution, one of many:" in said
    assert said.count("not unique") == 3
    assert "This solution is that with d1 + d2 = 0;" in said.replace("\n", " ")
    assert "Residual standard error: 5.323 on 4 degrees of freedom" in said
    assert "F-statistic: 4.288 on 1 and 4 DF, p-value: 0.1071" in said
    assert "one of many" not in str(mf.gls(Y, FULL[["d1", "d2"]]))
    assert "<table" in m._repr_html_()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("zero", "Unknown solution 'zero'"),
        (None, "Unknown solution None"),
        ("mu + 0.5*d1 + 0.5*d2 = 0", "more than one solution: X leaves 1 direction"),
        ("d1 = 0, d1 - d2 = 0", "restrict an estimable function"),
        ("d1 = 0, d2 = 0", "restrict an estimable function"),
        ("d1 = 1", "equal to zero"),
        ("d3 = 0", "cannot be read"),
        ([[1.0, 2.0]], "has 2 columns"),
    ],
)
def test_side_conditions_must_pick_one_solution(given, message):
    with pytest.raises(DesignError, match=message):
        mf.gls(Y, FULL, solution=given)


X2 = np.column_stack([np.ones(6), CONTROL])
HOLE = np.where(np.arange(6) == 2, np.nan, Y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:4]}, "X has 6 rows, y has 4"),
        ({"y": np.ones((3, 2))}, r"y has shape \(3, 2\)"),
        ({"y": HOLE}, "y is missing or infinite in row 3"),
        ({"X": HOLE[:, None]}, "X is missing or infinite in row 3"),
        ({"X": Y}, r"X has shape \(6,\); it is a matrix"),
        ({"X": [["a"]] * 6}, "X is not numeric"),
        ({"V": -np.eye(6)}, "V is not positive"),
        ({"X": X2 * 1j}, "X is not numeric"),
        ({"y": Y * 1j}, "y is not numeric"),
        ({"V": np.eye(6) * 1j}, "V is a ndarray, no matrix of numbers"),
        ({"y": [], "X": np.ones((0, 2))}, "y has no rows"),
        ({"sigma2": 0.0}, "sigma2 is 0.0, not a positive number"),
        ({"sigma2": "one"}, "sigma2 is not numeric"),
        ({"sigma2": [1.0, 2.0]}, r"sigma2 is \[1.0, 2.0\], not a positive number"),
        ({"y": Y[:2], "X": X2[2:4]}, "2 rows cannot estimate 2 coefficients"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message):
    given = {"y": Y, "X": X2, **arguments}
    with pytest.raises(DesignError, match=message):
        mf.gls(**given)


def test_bad_covariances_of_u_are_refused():
    m = mf.gls(Y, X2)
    with pytest.raises(DesignError, match=r"C has shape \(2, 5\); y has 6 rows"):
        m.blup(np.ones((2, 5)))
    with pytest.raises(DesignError, match=r"G has shape \(3, 3\), not \(2, 2\)"):
        m.pev(np.ones((2, 6)), np.eye(3))


def test_input_is_left_alone():
    y, X, w = example()
    before = y.copy(), X.copy(), w.copy()
    mf.gls(y, X, w)
    for now, then in zip((y, X, w), before, strict=True):
        np.testing.assert_array_equal(now, then)
