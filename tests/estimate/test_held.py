"""Some variances held: the dense oracle over the free ones, exact cases, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixform as mf
from mixform.errors import ConvergenceWarning, DesignError, InferenceError
from mixform.estimate.criterion import average_information, evaluate, gradient
from mixform.estimate.held import Given
from mixform.estimate.problem import build_problem

#: Which variances of two random terms are held: g0, g1, residual; "ratio" is relative.
PATTERNS = {
    "first": ("g0",),
    "both": ("g0", "g1"),
    "residual": ("residual",),
    "residual and first": ("g0", "residual"),
    "ratio": ("ratio g0",),
    "ratios": ("ratio g0", "ratio g1"),
    "ratio and second": ("ratio g0", "g1"),
    "ratio and residual": ("ratio g0", "residual"),
}


def two_terms(seed, *, reml=True, weighted=False):
    """Return data, dense Z's and X, formula: slopes of g0, intercepts of g1."""
    rng = np.random.default_rng(seed)
    n = 60
    data = pd.DataFrame(
        {
            "g0": rng.integers(0, 8, n),
            "g1": rng.integers(0, 9, n),
            "x": rng.normal(size=n),
        }
    )
    b0 = rng.normal(size=(8, 2)) @ np.array([[1.5, 0.4], [0.0, 0.8]])
    data["y"] = 5.0 + data["x"] + (b0[data["g0"]] * np.c_[np.ones(n), data["x"]]).sum(1)
    data["y"] += rng.normal(size=9)[data["g1"]] + rng.normal(size=n)
    data["w"] = rng.uniform(0.5, 3.0, n) if weighted else 1.0
    X = np.column_stack([np.ones(n), data["x"]])
    Z0 = np.zeros((n, 16))
    Z0[np.arange(n), 2 * data["g0"]] = 1.0
    Z0[np.arange(n), 2 * data["g0"] + 1] = data["x"]
    Z1 = np.zeros((n, 9))
    Z1[np.arange(n), data["g1"]] = 1.0
    return data, X, (Z0, Z1)


def deviance(V, y, X, reml):
    inverse = np.linalg.inv(V)
    crossed = X.T @ inverse @ X
    rest = y - X @ np.linalg.solve(crossed, X.T @ inverse @ y)
    df = len(y) - X.shape[1] * reml
    out = np.linalg.slogdet(V)[1] + rest @ inverse @ rest + df * np.log(2.0 * np.pi)
    return out + (np.linalg.slogdet(crossed)[1] if reml else 0.0)


def covariances(x, pattern, held):
    """Return Sigma_0 (2, 2), Sigma_1, sigma^2 of free parameters x in order."""
    x = list(x)
    sigma2 = held["residual"] if "residual" in pattern else None
    L, log_1 = None, None
    if not any(name.endswith("g0") for name in pattern):
        L = np.array([[np.exp(x.pop(0)), 0.0], [x.pop(0), np.exp(x.pop(0))]])
    if not any(name.endswith("g1") for name in pattern):
        log_1 = x.pop(0)
    if sigma2 is None:
        sigma2 = np.exp(2.0 * x.pop(0))
    assert not x
    Sigma_0 = held["g0"] if L is None else L @ L.T
    Sigma_1 = held["g1"] if log_1 is None else np.exp(2.0 * log_1)
    if "ratio g0" in pattern:
        Sigma_0 = held["g0"] * sigma2
    if "ratio g1" in pattern:
        Sigma_1 = held["g1"] * sigma2
    return Sigma_0, Sigma_1, sigma2


HELD = {"g0": np.array([[1.7, 0.3], [0.3, 0.6]]), "g1": 0.8, "residual": 1.3}


def varcomp_of(pattern):
    return {
        name.removeprefix("ratio "): mf.ratio(HELD[name[6:]])
        if name.startswith("ratio")
        else HELD[name]
        for name in pattern
    }


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_free_variances_are_at_the_dense_minimum(pattern, method, backend):
    seed = list(PATTERNS).index(pattern)
    weighted, pattern = seed % 2 == 1, PATTERNS[pattern]
    data, X, (Z0, Z1) = two_terms(seed, weighted=weighted)
    m = mf.fit(
        "y ~ x + (x | g0) + (1 | g1)",
        data,
        method=method,
        weights="w",
        varcomp=varcomp_of(pattern),
        control={"backend": backend},
    )
    W_inverse = np.diag(1.0 / data["w"].to_numpy())

    def criterion(Sigma_0, Sigma_1, sigma2):
        V = Z0 @ np.kron(np.eye(8), Sigma_0) @ Z0.T + Sigma_1 * Z1 @ Z1.T
        return deviance(
            V + sigma2 * W_inverse, data["y"].to_numpy(), X, method == "REML"
        )

    sigma2 = m.sigma**2
    found = [sigma2 * T @ T.T for T in m._fit.T]
    assert m.criterion == pytest.approx(criterion(*found, sigma2), abs=1e-8)
    size = 5 - 3 * any("g0" in p for p in pattern) - any("g1" in p for p in pattern)
    size -= "residual" in pattern
    best = minimize(
        lambda x: criterion(*covariances(x, pattern, HELD)),
        np.zeros(size),
        method="BFGS",
        options={"gtol": 1e-7},
    )
    assert m.criterion == pytest.approx(best.fun, abs=1e-6)
    assert m.npar == 2 + size
    assert m.converged
    given = varcomp_of(pattern)
    if isinstance(given.get("g0"), np.ndarray):
        np.testing.assert_allclose(found[0], HELD["g0"], rtol=1e-10)
    if given.get("g1") == HELD["g1"]:
        np.testing.assert_allclose(found[1], HELD["g1"], rtol=1e-10)
    if "residual" in given:
        assert sigma2 == pytest.approx(1.3, rel=1e-12)


def problem_of(pattern, *, reml, residual=None):
    data, X, Z = two_terms(3, weighted=True)
    data["t"] = data.groupby("g0").cumcount()
    given_residual = "residual" in pattern
    ratio = {p.removeprefix("ratio ") for p in pattern if p.startswith("ratio")}
    Sigma, ratios = [], []
    for name in ("g0", "g1"):
        value = np.atleast_2d(HELD[name])
        Sigma.append(value if name in pattern else None)
        ratios.append(value if name in ratio else None)
    design = mf.fit(
        "y ~ x + (x | g0) + (1 | g1)" if residual is None else "y ~ x + (x | g0)",
        data,
        weights="w",
        residual=residual,
        varcomp={"g0": HELD["g0"], "residual": 1.0}
        | ({"g1": 1.0} if residual is None else {}),
    ).design
    given = Given(
        names=tuple(pattern),
        Sigma=tuple(Sigma[: len(design.blocks)]),
        ratio=tuple(ratios[: len(design.blocks)]),
        sigma2=HELD["residual"] if given_residual else None,
    )
    return build_problem(design, reml=reml, given=given), data, X, Z


@pytest.mark.parametrize("residual", [None, "ar1(t | g0)"])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradient_is_that_of_the_criterion(pattern, reml, residual):
    pattern = PATTERNS[pattern]
    if residual and any("g1" in name for name in pattern):
        pytest.skip("one term only")
    problem = problem_of(pattern, reml=reml, residual=residual)[0]
    rng = np.random.default_rng(1)
    theta = problem.start() * rng.uniform(0.7, 1.3, len(problem.start()))
    theta[problem.n_theta :] += 0.2
    g = gradient(evaluate(problem, theta), theta)
    for k in range(len(theta)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = theta.copy()
            moved[k] += step
            sides.append(evaluate(problem, moved).criterion)
        assert g[k] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("pattern", ["first", "both", "residual", "ratio and second"])
def test_average_information_is_that_of_dense_derivatives(pattern):
    problem, data, X, (Z0, Z1) = problem_of(PATTERNS[pattern], reml=True)
    theta = problem.start() * 1.1
    w = data["w"].to_numpy()

    def V(at):
        T = problem.factors(at)
        user = [np.linalg.solve(C, t) for C, t in zip(problem.Z_scales, T, strict=True)]
        sigma2 = problem.sigma2(T, np.nan) * problem.y_scale**2
        G0 = np.kron(np.eye(8), user[0] @ user[0].T)
        whole = Z0 @ G0 @ Z0.T + user[1][0, 0] ** 2 * Z1 @ Z1.T + np.diag(1.0 / w)
        return sigma2 * whole

    inverse = np.linalg.inv(V(theta))
    inner = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    P = inverse - inverse @ X @ inner
    Py = P @ data["y"].to_numpy()
    columns = []
    for k in range(len(theta)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = theta.copy()
            moved[k] += step
            sides.append(V(moved))
        columns.append((sides[0] - sides[1]) / 2e-5 @ Py)
    q = np.column_stack(columns)
    A = average_information(evaluate(problem, theta), theta)
    np.testing.assert_allclose(A, q.T @ P @ q, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_holding_what_was_estimated_reproduces_the_rest(pattern):
    data = two_terms(11)[0]
    formula = "y ~ x + (x | g0) + (1 | g1)"
    free = mf.fit(formula, data)
    Sigma = [free.sigma**2 * T @ T.T for T in free._fit.T]
    values = {"g0": Sigma[0], "g1": Sigma[1], "residual": free.sigma**2}
    varcomp = {}
    for name in PATTERNS[pattern]:
        key = name.removeprefix("ratio ")
        relative = key != name
        varcomp[key] = (
            mf.ratio(values[key] / free.sigma**2) if relative else values[key]
        )
    m = mf.fit(formula, data, varcomp=varcomp)
    assert m.criterion == pytest.approx(free.criterion, abs=1e-8)
    np.testing.assert_allclose(m.theta, free.theta, rtol=1e-4, atol=1e-5)
    assert m.sigma == pytest.approx(free.sigma, rel=1e-5)
    np.testing.assert_allclose(m.bse, free.bse, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["first", "residual", "ratio", "ratio and second"])
def test_satterthwaite_is_over_the_free_parameters(pattern):
    pattern = PATTERNS[pattern]
    data, X, (Z0, Z1) = two_terms(4)
    m = mf.fit("y ~ x + (x | g0) + (1 | g1)", data, varcomp=varcomp_of(pattern))
    y = data["y"].to_numpy()

    def V(x):
        Sigma_0, Sigma_1, sigma2 = covariances(x, pattern, HELD)
        G0 = np.kron(np.eye(8), Sigma_0)
        return Z0 @ G0 @ Z0.T + Sigma_1 * Z1 @ Z1.T + sigma2 * np.eye(len(y))

    def variances(x):
        return np.linalg.inv(X.T @ np.linalg.inv(V(x)) @ X).diagonal()

    T, sigma = m._fit.T, m.sigma
    L = np.linalg.cholesky(sigma**2 * T[0] @ T[0].T)
    x = []
    if not any("g0" in p for p in pattern):
        x += [np.log(L[0, 0]), L[1, 0], np.log(L[1, 1])]
    if not any("g1" in p for p in pattern):
        x.append(np.log(sigma * T[1][0, 0]))
    if "residual" not in pattern:
        x.append(np.log(sigma))
    x = np.array(x)
    H = second_differences(lambda at: deviance(V(at), y, X, True), x)
    slopes = np.array(
        [(variances(x + e) - variances(x - e)) / 2e-5 for e in 1e-5 * np.eye(len(x))]
    )
    spread = np.einsum("tj,ts,sj->j", slopes, 2.0 * np.linalg.inv(H), slopes)
    np.testing.assert_allclose(m.ddf, 2.0 * variances(x) ** 2 / spread, rtol=1e-4)


def second_differences(function, x, step=1e-3):
    units = step * np.eye(len(x))
    H = np.empty((len(x), len(x)))
    for i, a in enumerate(units):
        for j, b in enumerate(units):
            H[i, j] = function(x + a + b) - function(x + a - b)
            H[i, j] += function(x - a - b) - function(x - a + b)
    return H / (4.0 * step**2)


def test_a_known_ratio_leaves_exact_t_tests():
    """One variance, estimated with n - p df, is all that is left."""
    data = two_terms(5)[0]
    m = mf.fit("y ~ x + (1 | g0)", data, varcomp={"g0": mf.ratio(0.5)})
    np.testing.assert_allclose(m.ddf, len(data) - 2)
    V = np.eye(60) + 0.5 * np.equal.outer(data["g0"].to_numpy(), data["g0"].to_numpy())
    X = np.column_stack([np.ones(60), data["x"]])
    inverse = np.linalg.inv(V)
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ data["y"])
    rest = data["y"] - X @ beta
    assert m.sigma**2 == pytest.approx(rest @ inverse @ rest / 58)
    np.testing.assert_allclose(m.params, beta)


def test_a_ratio_and_the_residual_variance_are_the_product():
    data = two_terms(5)[0]
    one = mf.fit("y ~ x + (1|g0)", data, varcomp={"g0": mf.ratio(0.5), "residual": 3.0})
    two = mf.fit("y ~ x + (1|g0)", data, varcomp={"g0": 1.5, "residual": 3.0})
    assert one.criterion == pytest.approx(two.criterion)


#: BCG vaccine against tuberculosis, 13 trials (Colditz et al. 1994, JAMA 271, 698):
#: vaccinated with and without the disease, controls with and without it.
TRIALS = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209),
    (62, 13536, 248, 12619), (33, 5036, 47, 5761), (180, 1361, 372, 1079),
    (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
    (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338),
    (27, 16886, 29, 17825),
]  # fmt: skip


def test_meta_analysis_of_the_bcg_trials_is_metafors():
    """Random effects with known sampling variances: weights 1/v, residual variance 1.

    Viechtbauer (2010, J. Stat. Softw. 36(3), 1-48), section 3: tau^2 = 0.3132,
    estimate -0.7145 (0.1798).
    """
    a, b, c, d = np.array(TRIALS, dtype=float).T
    log_risk = np.log(a / (a + b)) - np.log(c / (c + d))
    v = 1.0 / a - 1.0 / (a + b) + 1.0 / c - 1.0 / (c + d)
    data = pd.DataFrame({"y": log_risk, "w": 1.0 / v, "trial": range(13)})
    m = mf.fit("y ~ 1 + (1 | trial)", data, weights="w", varcomp={"residual": 1.0})
    assert m.varcorr["vcov"].round(4).tolist() == [0.3132, 1.0]
    assert round(m.params["Intercept"], 4) == -0.7145
    assert round(m.bse["Intercept"], 4) == 0.1798
    assert m.npar == 2


def test_a_variance_that_is_free_may_end_at_zero():
    data = two_terms(6)[0]
    data["y"] = data["x"] + np.random.default_rng(0).normal(size=60)
    m = mf.fit("y ~ x + (1 | g0)", data, varcomp={"residual": 9.0})
    assert m.converged
    assert m.singular
    plain = mf.fit("y ~ x", data, varcomp={"residual": 9.0})
    assert m.criterion == pytest.approx(plain.criterion, abs=1e-9)
    np.testing.assert_allclose(m.bse, plain.bse)
    assert np.isinf(m.ddf).all()
    assert "is estimated as zero" in str(m.summary())


def test_a_singular_covariance_is_held_as_it_is():
    data = two_terms(7)[0]
    Sigma = np.array([[4.0, 2.0], [2.0, 1.0]])
    m = mf.fit("y ~ x + (x | g0)", data, varcomp={"g0": Sigma})
    np.testing.assert_allclose(m.sigma**2 * m._fit.T[0] @ m._fit.T[0].T, Sigma)
    assert m.converged
    assert not m.singular
    zero = mf.fit("y ~ x + (1 | g0)", data, varcomp={"g0": 0.0})
    assert zero.criterion == pytest.approx(mf.fit("y ~ x", data).criterion)
    assert zero.npar == 3


def test_units_do_not_matter():
    data = two_terms(8)[0]
    scaled = data.assign(y=1e3 * data["y"], x=1e-2 * data["x"])
    D = np.diag([1.0, 100.0]) * 1e3
    for names in (("g0",), ("residual",), ("g0", "residual")):
        held = {name: HELD[name] for name in names}
        m = mf.fit("y ~ x + (x | g0)", data, varcomp=held)
        moved = {
            name: D @ value @ D if name == "g0" else 1e6 * value
            for name, value in held.items()
        }
        other = mf.fit("y ~ x + (x | g0)", scaled, varcomp=moved)
        assert other.sigma == pytest.approx(1e3 * m.sigma, rel=1e-6)
        np.testing.assert_allclose(other.tvalues, m.tvalues, rtol=1e-6)


def related_data(seed=0):
    rng = np.random.default_rng(seed)
    parents = pd.DataFrame(
        {
            "animal": range(1, 61),
            "sire": [0] * 10 + rng.integers(1, 6, 50).tolist(),
            "dam": [0] * 10 + rng.integers(6, 11, 50).tolist(),
        }
    )
    pedigree = mf.Pedigree(parents)
    rows = np.repeat(np.arange(11, 61), 2)
    A = pedigree.A()
    L = np.linalg.cholesky(A.to_numpy())
    u = pd.Series(L @ rng.normal(size=60), A.index)
    y = 10.0 + u.loc[rows.astype(str)].to_numpy() + rng.normal(size=100)
    return pd.DataFrame({"animal": rows, "y": y}), pedigree, A


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_related_levels_with_a_variance_held(backend):
    data, pedigree, A = related_data()
    m = mf.fit(
        "y ~ 1 + (1 | animal) + iid(1 | animal)",
        data,
        relationship={"animal": pedigree},
        varcomp={"animal": 0.7},
        control={"backend": backend},
    )
    names = data["animal"].astype(str)
    ZAZ = A.loc[names, names].to_numpy()
    same = np.equal.outer(names.to_numpy(), names.to_numpy())
    y, X = data["y"].to_numpy(), np.ones((100, 1))
    best = minimize(
        lambda x: deviance(
            0.7 * ZAZ + x[0] ** 2 * same + x[1] ** 2 * np.eye(100), y, X, True
        ),
        [0.5, 1.0],
        method="BFGS",
    )
    assert m.criterion == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize("held", [("g0",), ("residual",), ("g0", "residual")])
def test_residual_structures_with_variances_held(held):
    data = two_terms(9)[0]
    data["t"] = data.groupby("g0").cumcount()
    varcomp = {"g0": 0.8} if "g0" in held else {}
    varcomp |= {"residual": 1.3} if "residual" in held else {}
    m = mf.fit("y ~ x + (1 | g0)", data, residual="ar1(t | g0)", varcomp=varcomp)
    same = np.equal.outer(data["g0"].to_numpy(), data["g0"].to_numpy())
    lag = np.abs(np.subtract.outer(data["t"].to_numpy(), data["t"].to_numpy()))
    y, X = data["y"].to_numpy(), np.column_stack([np.ones(60), data["x"]])

    def criterion(x):
        x = list(x)
        tau2 = 0.8 if "g0" in held else x.pop() ** 2
        sigma2 = 1.3 if "residual" in held else np.exp(x.pop())
        return deviance((tau2 + sigma2 * np.tanh(x[0]) ** lag) * same, y, X, True)

    best = minimize(criterion, [0.3] * (3 - len(held)), method="BFGS")
    assert m.criterion == pytest.approx(best.fun, abs=1e-6)
    assert m.npar == 5 - len(held)
    table = m.residual_parameters()
    assert np.isnan(table.loc["sd", "se"]) == ("residual" in held)
    assert table["se"].iloc[1] > 0.0


def test_a_residual_covariance_held_over_its_positions():
    data, _, _ = two_terms(10)
    data = data.assign(t=data.groupby("g0").cumcount())
    data = data[data["t"] < 3].drop(index=[0])
    R = np.array([[1.0, 0.4, 0.2], [0.4, 2.0, 0.5], [0.2, 0.5, 1.5]])
    m = mf.fit("y ~ x + (1 | g0)", data, residual="us(t | g0)", varcomp={"residual": R})
    same = np.equal.outer(data["g0"].to_numpy(), data["g0"].to_numpy())
    RR = R[np.ix_(data["t"], data["t"])] * same
    y, X = data["y"].to_numpy(), np.column_stack([np.ones(len(data)), data["x"]])
    best = minimize(lambda x: deviance(x[0] ** 2 * same + RR, y, X, True), [1.0])
    assert m.criterion == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(m.residual_covariance(), R)
    assert m.npar == 3
    assert m.residual_parameters()["se"].isna().all()
    shuffled = pd.DataFrame(R, list("012"), list("012")).iloc[[2, 0, 1], [1, 2, 0]]
    again = mf.fit(
        "y ~ x + (1|g0)", data, residual="us(t | g0)", varcomp={"residual": shuffled}
    )
    assert again.criterion == pytest.approx(m.criterion)


def test_residual_covariances_by_stratum():
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {
            "id": np.repeat(range(30), 2),
            "t": [0, 1] * 30,
            "arm": np.repeat(["a", "b"], 30),
            "y": rng.normal(size=60),
        }
    )
    R = {"a": np.array([[1.0, 0.3], [0.3, 2.0]]), "b": np.diag([3.0, 0.5])}
    m = mf.fit("y ~ arm", data, residual="us(t | arm/id)", varcomp={"residual": R})
    V = np.kron(np.diag(np.arange(30) < 15), R["a"])
    V = V + np.kron(np.diag(np.arange(30) >= 15), R["b"])
    X = np.column_stack([np.ones(60), data["arm"] == "b"]).astype(float)
    assert m.criterion == pytest.approx(deviance(V, data["y"].to_numpy(), X, True))
    with pytest.raises(DesignError, match="each stratum: a, b"):
        mf.fit(
            "y ~ arm",
            data,
            residual="us(t|arm/id)",
            varcomp={"residual": {"a": R["a"]}},
        )


# After the fit.


def held_model(**changes):
    data = two_terms(12)[0]
    options = {"varcomp": {"g1": 0.8}} | changes
    return mf.fit("y ~ x + (1 | g0) + (1 | g1)", data, **options), data


def test_summary_says_what_is_held():
    text = str(held_model()[0].summary())
    lines = [line for line in text.splitlines() if "(held)" in line]
    assert len(lines) == 1
    assert lines[0].split()[0] == "g1"
    assert "held, not estimated: g1." in text
    text = str(held_model(varcomp={"g1": mf.ratio(1.0)})[0].summary())
    assert "g1 (relative to the residual variance)" in text


@pytest.mark.parametrize("held", [{"g1": 0.8}, {"residual": 1.3}, {"g1": mf.ratio(2)}])
def test_a_refit_holds_the_same(held):
    m, data = held_model(varcomp=held)
    y = 30.0 * data["y"] + data["g1"]
    again = m.refit(y)
    anew = mf.fit("y ~ x + (1 | g0) + (1 | g1)", data.assign(y=y), varcomp=held)
    assert again.criterion == pytest.approx(anew.criterion, abs=1e-6)
    np.testing.assert_allclose(again.params, anew.params, rtol=1e-5)
    ml = m.update(method="ML")
    assert ml.npar == m.npar


def test_bootstrap_holds_the_variance():
    m, _ = held_model(varcomp={"residual": 1.3})
    draws = m.bootstrap(5, seed=1)
    assert draws.replicates["sigma"].to_numpy() == pytest.approx(np.sqrt(1.3))
    assert draws.replicates["sd(g0: Intercept)"].std() > 0.0


@pytest.mark.parametrize(
    "held",
    [{"g1": 0.8}, {"residual": 1.3}, {"g1": mf.ratio(2.0), "g0": 0.5}],
)
def test_a_saved_model_holds_the_same(held, tmp_path):
    m, _ = held_model(varcomp=held)
    m.save(tmp_path / "m.mixform")
    again = mf.load(tmp_path / "m.mixform")
    assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
    assert again.npar == m.npar
    np.testing.assert_allclose(again.ddf, m.ddf, rtol=1e-6)
    assert str(again.summary()) == str(m.summary())


def test_update_drops_the_variance_of_a_dropped_term():
    m, data = held_model()
    smaller = m.update(". ~ . - (1 | g1)")
    assert smaller.criterion == pytest.approx(mf.fit("y ~ x + (1|g0)", data).criterion)
    kept = m.update(". ~ . - (1 | g0)")
    assert kept.varcorr["vcov"].iloc[0] == pytest.approx(0.8)


def test_comparisons_hold_the_same():
    m, data = held_model(method="ML")
    smaller = m.update(". ~ . - x")
    table = mf.compare(smaller, m)
    assert table["num_df"].iloc[1] == 1
    lrt = m.drop1(test="lrt")
    assert lrt.loc["x", "lrt"] == pytest.approx(table["chisq"].iloc[1], abs=1e-5)
    free = mf.fit("y ~ x + (1 | g0) + (1 | g1)", data, method="ML")
    with pytest.raises(InferenceError, match="hold different variances: g1; none"):
        mf.compare(m, free)


def test_what_needs_all_variances_is_refused():
    m, _ = held_model()
    for ask in (m.profile, m.ranova, m.influence, lambda: m.power("x", 2)):
        with pytest.raises(InferenceError, match=r"those of g1 were given|g1"):
            ask()
    with pytest.raises(InferenceError, match="Kenward-Roger adjusts"):
        m.anova(ddf="kenward-roger")
    with pytest.raises(InferenceError, match="all variances"):
        m.residuals("deleted")


def test_a_held_component_has_no_standard_error():
    m, _ = held_model()
    V = m.cov_varcorr()
    assert V.loc["g1", "g1"] == pytest.approx(0.0, abs=1e-12)
    assert V.loc["Residual", "Residual"] > 0.0
    share = m.vcfun("g1 / (g0 + g1 + residual)")
    assert share.se > 0.0


def test_robust_covariance_does_not_ask_where_variances_come_from():
    data, X, _ = two_terms(13)
    m = mf.fit("y ~ x + (1 | g0)", data, varcomp={"g0": 1.5, "residual": 1.2})
    same = np.equal.outer(data["g0"].to_numpy(), data["g0"].to_numpy())
    W = np.linalg.inv(1.5 * same + 1.2 * np.eye(60))
    M = np.linalg.inv(X.T @ W @ X)
    e = data["y"].to_numpy() - X @ (M @ X.T @ W @ data["y"].to_numpy())
    scores = [X.T @ W @ np.where(data["g0"] == g, e, 0.0) for g in range(8)]
    meat = sum(np.outer(score, score) for score in scores)
    V = m.robust(kind="CR0").cov_params()
    np.testing.assert_allclose(V, M @ meat @ M)


def test_residual_variance_going_to_zero_is_said():
    data = two_terms(14)[0]
    data["y"] = 0.1 * data["y"]
    data["row"] = range(60)
    with pytest.warns(ConvergenceWarning, match="residual variance goes to zero"):
        mf.fit("y ~ x + (1 | row)", data, varcomp={"row": 100.0})


BAD = {
    "ratio of residual": ({"residual": mf.ratio(1.0)}, {}, "relative to itself"),
    "ratio is text": ({"g0": mf.ratio("a")}, {}, "not numeric"),
    "labels": (
        {"g0": pd.DataFrame(np.eye(2), ["a", "b"], ["a", "b"])},
        {"formula": "y ~ x + (x | g0)"},
        "labelled a, b",
    ),
    "R without structure": ({"residual": np.eye(2)}, {}, "not a positive number"),
    "R of another structure": (
        {"residual": np.eye(3)},
        {"residual": "cs(t | g0)"},
        "cannot be held for 'cs'",
    ),
    "R of another size": (
        {"residual": np.eye(2)},
        {"residual": "us(t | g0)"},
        r"shape \(2, 2\), but there are",
    ),
    "R singular": (
        {"residual": np.ones((3, 3))},
        {"residual": "us(t | g0)"},
        "residual covariance is singular",
    ),
    "R not diagonal": (
        {"residual": np.eye(3) + 0.1},
        {"residual": "diag(t | g0)"},
        "not diagonal",
    ),
    "R with dispersion": (
        {"residual": np.eye(3)},
        {"residual": "us(t | g0)", "dispersion": "~ x"},
        "together with dispersion",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_held_variances_are_refused(case):
    varcomp, options, message = BAD[case]
    data = two_terms(15)[0]
    data = data.assign(t=data.groupby("g0").cumcount()).query("t < 3")
    formula = options.get("formula", "y ~ x + (1 | g0)")
    options = {name: value for name, value in options.items() if name != "formula"}
    with pytest.raises(DesignError, match=message):
        mf.fit(formula, data, varcomp=varcomp, **options)
