"""Structured covariances of random coefficients: dense algebra, and equal models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixform as mf
from mixform.covariance import STRUCTURES, structure_of
from mixform.estimate.criterion import evaluate, gradient
from tests import dense_oracle as dense

NAMES = [name for name in STRUCTURES if name not in ("us", "diag", "iid")]
OPTIONS = {"rr": ", d = 1"}
every = pytest.mark.parametrize("name", NAMES)


def draw(seed=0, m=24, k=4, n=200, positions=None, Sigma=None):
    """Rows of m groups at k positions, some missing; a covariate, a crossed factor."""
    rng = np.random.default_rng(seed)
    if Sigma is None:
        sd = np.linspace(0.8, 1.4, k)
        Sigma = np.outer(sd, sd) * 0.6 ** np.abs(np.subtract.outer(range(k), range(k)))
    b = rng.multivariate_normal(np.zeros(k), Sigma, m)
    g, j = rng.integers(0, m, n), rng.integers(0, k, n)
    g[: 2 * k], j[: 2 * k] = np.arange(2 * k) % m, np.arange(2 * k) % k
    x, h = rng.normal(size=n), rng.integers(0, 7, n)
    y = 5.0 + x + 0.3 * j + b[g, j] + rng.normal(size=7)[h] * 0.5 + rng.normal(size=n)
    at = np.arange(k) if positions is None else np.array(positions)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "f": at[j].astype(str)})


def formula(name, extra=""):
    return f"y ~ x + {name}(0 + f | g{OPTIONS.get(name, '')}){extra}"


@dataclass(frozen=True)
class Structured:
    """A dense term with a structure: only T is ours, checked on its own."""

    term: dense.Term
    structure: object

    def __getattr__(self, name):
        return getattr(self.term, name)

    @property
    def n_theta(self):
        return self.structure.n_parameters(self.term.k)

    def T(self, theta):
        return self.structure.factor(np.real(theta), self.term.k)


def dense_model(m):
    """The model of a fit as dense matrices."""
    design = m._fit.design
    terms = [
        Structured(
            dense.Term(block.codes, block.design),
            structure_of(block, design.formula.source),
        )
        for block in design.blocks
    ]
    X = m.design.X.to_numpy()
    ones = np.ones(len(design.y))
    return dense.Model(design.y, X, tuple(terms), ones, m._fit.method == "REML")


@every
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_criterion_and_estimates_are_those_of_dense_algebra(name, method):
    m = mf.fit(formula(name, " + (1 | h)"), draw(1), method=method)
    model = dense_model(m)
    here = dense.solve(model, m.theta)
    assert m.convergence.converged
    assert m.criterion == pytest.approx(here.criterion, abs=1e-6)
    np.testing.assert_allclose(m.params, here.beta, rtol=1e-8)
    np.testing.assert_allclose(m.cov_params(), here.V_beta, rtol=1e-7)
    best = minimize(
        lambda theta: dense.solve(model, theta).criterion,
        np.asarray(m.theta),
        method="Nelder-Mead",
        options={"maxfev": 150},
    )
    assert m.criterion <= best.fun + 1e-6


@every
def test_gradient_is_the_difference_of_the_criterion(name):
    for method in ("REML", "ML"):
        problem = mf.fit(formula(name), draw(2), method=method)._fit.evaluation.problem
        rng = np.random.default_rng(5)
        theta = rng.uniform(0.3, 1.2, problem.n_theta)
        g = gradient(evaluate(problem, theta), theta)
        for i, step in enumerate(1e-5 * np.eye(len(theta))):
            up, down = (
                evaluate(problem, theta + s * step).criterion for s in (1.0, -1.0)
            )
            assert g[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5)


@every
def test_other_starts_find_no_better_optimum(name):
    data = draw(3)
    m = mf.fit(formula(name), data)
    rng = np.random.default_rng(1)
    for _ in range(4):
        start = rng.uniform(0.2, 1.3, len(m.theta))
        again = mf.fit(formula(name), data, start=start)
        assert m.criterion <= again.criterion + 1e-7


@every
def test_units_of_the_response_change_nothing_but_units(name):
    data = draw(4)
    one = mf.fit(formula(name), data)
    two = mf.fit(formula(name), data.assign(y=1e4 * data["y"] - 7.0))
    np.testing.assert_allclose(two.theta, one.theta, rtol=2e-5, atol=1e-5)
    assert two.sigma == pytest.approx(1e4 * one.sigma, rel=1e-6)


@every
def test_row_order_changes_nothing(name):
    data = draw(5)
    one = mf.fit(formula(name), data)
    two = mf.fit(formula(name), data.sample(frac=1.0, random_state=1))
    assert two.criterion == pytest.approx(one.criterion, abs=1e-8)
    np.testing.assert_allclose(two.params, one.params, rtol=1e-5)


@every
@pytest.mark.parametrize("Sigma", ["zero", "one", "opposite"])
@pytest.mark.parametrize("seed", [0, 1])
def test_limits_end_certified_and_are_no_worse_than_inside(name, Sigma, seed):
    k = 4
    truth = {
        "zero": np.zeros((k, k)),
        "one": np.ones((k, k)),
        "opposite": (k * np.eye(k) - 1.0) / (k - 1),
    }[Sigma]
    data = draw(seed + 20, Sigma=truth)
    m = mf.fit(formula(name), data)
    assert m.convergence.converged, m.convergence.message
    problem = m._fit.evaluation.problem
    best = m._fit.evaluation.criterion
    rng = np.random.default_rng(0)
    for size in (0.003, 0.03):
        for _ in range(15):
            theta = m._fit.scaled_theta + size * rng.normal(size=problem.n_theta)
            assert evaluate(problem, theta).criterion >= best - 1e-7


# ---- equal models ------------------------------------------------------------------


def test_cs_is_a_group_and_its_interaction():
    k = 3
    data = draw(6, k=k, Sigma=0.5 * np.eye(k) + 0.5)
    cs = mf.fit("y ~ x + cs(0 + f | g)", data)
    nested = mf.fit("y ~ x + (1 | g) + (1 | g:f)", data)
    assert cs.criterion == pytest.approx(nested.criterion, abs=1e-7)
    between, within = nested.theta[1] ** 2, nested.theta[0] ** 2
    parts = sorted(nested.varcorr["vcov"][:2])
    rho = cs.random_parameters().set_index("parameter")["estimate"]["rho"]
    total = float(between + within) * nested.sigma**2
    assert cs.varcorr["vcov"][0] == pytest.approx(total, rel=1e-5)
    assert any(rho == pytest.approx(part / total, rel=1e-4) for part in parts)
    np.testing.assert_allclose(
        cs.anova()["den_df"], nested.anova()["den_df"], rtol=1e-4
    )
    np.testing.assert_allclose(
        cs.anova(ddf="kenward-roger")["den_df"],
        nested.anova(ddf="kenward-roger")["den_df"],
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("name", "k"), [("csh", 2), ("arh1", 2), ("toeph", 2), ("fa1", 3), ("rr", 3)]
)
def test_a_structure_with_all_parameters_is_unstructured(name, k):
    loadings = np.array([1.0, 0.8, 1.2])[:k]
    data = draw(7, k=k, Sigma=np.outer(loadings, loadings) + 0.5 * np.eye(k))
    option = f", d = {k}" if name == "rr" else ""
    one = mf.fit(f"y ~ x + {name}(0 + f | g{option})", data)
    us = mf.fit("y ~ x + us(0 + f | g)", data)
    assert one.criterion == pytest.approx(us.criterion, abs=1e-7)
    np.testing.assert_allclose(one.varcorr["vcov"], us.varcorr["vcov"], rtol=1e-4)
    np.testing.assert_allclose(one.bse, us.bse, rtol=1e-5)
    if not one.singular and name != "rr":
        np.testing.assert_allclose(one.tidy()["df"], us.tidy()["df"], rtol=2e-3)


@pytest.mark.parametrize("name", ["cs", "ar1", "toep", "exp"])
def test_two_coefficients_with_one_variance_are_one_model(name):
    data = draw(8, k=2)
    cs = mf.fit("y ~ x + cs(0 + f | g)", data)
    one = mf.fit(f"y ~ x + {name}(0 + f | g)", data)
    assert one.criterion == pytest.approx(cs.criterion, abs=1e-7)


def test_exp_is_ar1_at_equal_distances_with_a_positive_correlation():
    data = draw(9)
    ar1 = mf.fit("y ~ x + ar1(0 + f | g)", data).random_parameters()
    exp = mf.fit("y ~ x + exp(0 + f | g)", data).random_parameters()
    range_ = -1.0 / np.log(ar1["estimate"][1])
    assert exp["estimate"][1] == pytest.approx(range_, rel=1e-4)


# ---- positions ---------------------------------------------------------------------


def test_gaps_between_whole_numbers_count():
    gaps, k = [2001, 2002, 2004, 2007], 4
    data = draw(10, positions=gaps)
    m = mf.fit("y ~ x + ar1(0 + factor(f) | g)", data)
    T = m._fit.T[0]
    C = T @ T.T / T[0, 0] ** 2
    rho = m.random_parameters()["estimate"][1]
    lags = np.abs(np.subtract.outer(gaps, gaps))
    np.testing.assert_allclose(C, rho**lags, atol=1e-12)
    assert k == len(C)


def test_equal_steps_of_two_are_positions_with_gaps():
    one = mf.fit("y ~ ar1(0 + f | g)", draw(11)).random_parameters()["estimate"]
    wide = draw(11, positions=[0, 2, 4, 6])
    two = mf.fit("y ~ ar1(0 + f | g)", wide).random_parameters()["estimate"]
    assert two[1] == pytest.approx(np.sqrt(one[1]), rel=1e-5)


def test_levels_stand_at_their_numbers_in_any_order():
    data = draw(12, positions=[2, 9, 10, 31])  # as strings: 10, 2, 31, 9
    strings = mf.fit("y ~ x + exp(0 + f | g)", data)
    numbers = mf.fit(
        "y ~ x + exp(0 + factor(f) | g)", data.assign(f=data.f.astype(int))
    )
    assert strings.criterion == pytest.approx(numbers.criterion, abs=1e-8)
    assert strings._fit.design.blocks[0].columns[0] == "f[10]"
    one = strings.ranef().set_index(["term", "level"])["estimate"]
    two = numbers.ranef().set_index(["term", "level"])["estimate"]
    two.index = two.index.set_levels(
        two.index.levels[0].str.replace("C(f)", "f", regex=False), level=0
    )
    np.testing.assert_allclose(one.sort_index(), two.sort_index(), atol=1e-5)


def test_equal_spacing_need_not_be_whole():
    data = draw(13, positions=[0.5, 1.0, 1.5, 2.0])
    half = mf.fit("y ~ x + ar1(0 + f | g)", data)
    whole = mf.fit("y ~ x + ar1(0 + f | g)", draw(13))
    assert half.criterion == pytest.approx(whole.criterion, abs=1e-8)


# ---- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "message", "hint"),
    [
        ("y ~ ar1(0 + t | g)", "at least 2 coefficients", "factor(t)"),
        ("y ~ cs(1 | g)", "at least 2 coefficients", "(1 | g)"),
        ("y ~ fa1(0 + two | g)", "at least 3 coefficients", "(... | g)"),
        ("y ~ ar1(f | g)", "levels of one factor", "ar1(0 + f | g)"),
        ("y ~ exp(0 + named | g)", "no different numbers", "ar1"),
        ("y ~ ar1(0 + uneven | g)", "whole numbers or equal spacing", "exp"),
        ("y ~ rr(0 + two | g, d = 3)", "rank 3", "from 1 to 2"),
    ],
)
def test_refusals_underline_the_term(formula, message, hint):
    data = draw(14)
    data["t"] = data["f"].astype(float)
    data["two"] = np.where(data["t"] > 1, "b", "a")
    data["named"] = "p" + data["f"]
    data["uneven"] = data["f"].map({"0": "0.5", "1": "1.5", "2": "1.7", "3": "9"})
    with pytest.raises(mf.DesignError, match=message) as caught:
        mf.fit(formula, data)
    assert hint in str(caught.value)
    assert caught.value.span == (4, len(formula))


def test_a_term_that_holds_the_residual_variance_is_refused():
    data = draw(19, m=60, n=400).drop_duplicates(["g", "f"])
    with pytest.raises(mf.DesignError, match="cannot be told from the residual"):
        mf.fit("y ~ x + cs(0 + f | g)", data)
    assert mf.fit("y ~ x + ar1(0 + f | g)", data).convergence.converged


def test_a_covariance_that_is_held_needs_no_structure():
    data = draw(16, k=3)
    Sigma = np.array([[1.0, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 1.0]])
    with pytest.raises(mf.DesignError, match="cannot be held in the structure 'ar1'"):
        mf.fit("y ~ ar1(0 + f | g)", data, varcomp={"g": Sigma, "residual": 1.0})
    m = mf.fit("y ~ (0 + f | g)", data, varcomp={"g": Sigma, "residual": 1.0})
    np.testing.assert_allclose(m._fit.T[0] @ m._fit.T[0].T, Sigma, atol=1e-12)


def test_related_levels_take_a_structure():
    data = draw(17, m=8)
    rng = np.random.default_rng(3)
    A = rng.normal(size=(8, 12))
    K = pd.DataFrame(A @ A.T / 12, index=range(8), columns=range(8))
    m = mf.fit("y ~ x + ar1(0 + f | g)", data, relationship={"g": K})
    assert m.convergence.converged
    design = m._fit.design
    block = design.blocks[0]
    Z = np.zeros((len(design.y), block.m * block.k))
    for i, code in enumerate(block.codes):
        Z[i, code * block.k : (code + 1) * block.k] = block.design[i]
    T = m._fit.T[0]
    K_block = K.loc[block.levels.astype(int), block.levels.astype(int)].to_numpy()
    V = np.eye(len(Z)) + Z @ np.kron(K_block, T @ T.T) @ Z.T
    X, y = m.design.X.to_numpy(), design.y
    inverse = np.linalg.inv(V)
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
    np.testing.assert_allclose(m.params, beta, rtol=1e-7)


def test_weights_and_a_second_response_keep_the_structure():
    data = draw(18)
    data["w"] = np.random.default_rng(0).uniform(0.5, 2.0, len(data))
    m = mf.fit(formula("toep"), data, weights="w")
    again = m.refit(data["y"] * 2.0)
    np.testing.assert_allclose(again.theta, m.theta, rtol=1e-4, atol=1e-6)
    model = replace(dense_model(m), weights=data["w"].to_numpy())
    criterion = dense.solve(model, m.theta).criterion
    assert m.criterion == pytest.approx(criterion, abs=1e-6)
