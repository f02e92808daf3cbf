"""Refits in a stack are those made one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.estimate.batch import batch
from mixform.estimate.batch.batch import Refitter, refit_many
from mixform.estimate.batch.boundary import settle_zeros
from mixform.estimate.batch.criterion import (
    derivatives_batch,
    inverse_and_logdet,
    solve_batch,
)
from mixform.estimate.batch.layout import build_layout
from mixform.estimate.batch.search import (
    minimize_batch,
    secant_updates,
    trust_region_steps,
)
from mixform.estimate.criterion import evaluate
from mixform.estimate.problem import at_response
from mixform.estimate.refit import refit
from mixform.estimate.responses import scale_responses
from mixform.estimate.trust_region import _secant_update, trust_region_step

MODELS = {
    "intercept": ("Dyestuff", "Yield ~ 1 + (1 | Batch)", {}),
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    "diagonal, ML": (
        "sleepstudy",
        "Reaction ~ Days + (Days || Subject)",
        {"method": "ML"},
    ),
    "weighted": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"weights": "w"}),
    "no fixed effect": ("sleepstudy", "Reaction ~ 0 + (1 | Subject)", {}),
    "nested": ("Pastes", "strength ~ 1 + (1 | batch/cask)", {}),
    "crossed": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "three coefficients": ("Machines", "score ~ Machine + (Machine | Worker)", {}),
    "two groupings": (
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject) + (1 | h)",
        {"method": "ML", "offset": "w"},
    ),
}
every = pytest.mark.parametrize("name", MODELS)


def fit_of(name):
    dataset, formula, keywords = MODELS[name]
    data = mf.datasets.load(dataset)
    rng = np.random.default_rng(3)
    data["h"], data["w"] = np.arange(len(data)) % 7, rng.uniform(0.5, 2.0, len(data))
    return mf.fit(formula, data, **keywords)._fit


def responses_near(fit, r, seed=0, size=0.5):
    rng = np.random.default_rng(seed)
    Y = fit.design.y[:, None] + size * fit.sigma * rng.normal(size=(fit.n, r))
    responses = scale_responses(fit.design, Y)
    ZtY = fit.evaluation.problem.equations.Zt_dot(responses.rest)
    return Y, responses, ZtY


def drawn(fit, r, seed=0):
    """Responses drawn from the fit, by the dense Z."""
    rng = np.random.default_rng(seed)
    Y = fit.sigma * rng.normal(size=(fit.n, r))
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        b = fit.sigma * rng.normal(size=(r, block.m, block.k)) @ T.T
        Y += block.Z @ b.reshape(r, -1).T
    return Y + (fit.design.fixed.X @ fit.beta)[:, None]


@every
def test_criterion_and_beta_are_those_of_the_single_evaluation(name):
    fit = fit_of(name)
    problem, layout = fit.evaluation.problem, build_layout(fit.evaluation.problem)
    _, responses, ZtY = responses_near(fit, 4)
    theta = problem.start() + 0.2 * np.random.default_rng(1).normal(
        size=(4, problem.n_theta)
    )
    yty = (responses.rest**2).sum(axis=0)
    found = solve_batch(problem, layout, theta, layout.place(ZtY), yty)
    for j in range(4):
        one = evaluate(at_response(problem, responses, ZtY, j), theta[j])
        assert found.criterion[j] == pytest.approx(one.criterion, abs=1e-9)
        np.testing.assert_allclose(found.beta[j], one.beta, rtol=1e-8, atol=1e-10)
        V_XX = one.R_inverse @ one.R_inverse.T
        np.testing.assert_allclose(found.V_XX[j], V_XX, rtol=1e-8, atol=1e-10)


@every
def test_gradient_is_the_difference_of_the_criterion(name):
    fit = fit_of(name)
    problem, layout = fit.evaluation.problem, build_layout(fit.evaluation.problem)
    _, responses, ZtY = responses_near(fit, 3)
    yty, Zty = (responses.rest**2).sum(axis=0), layout.place(ZtY)
    theta = problem.start() + 0.2 * np.random.default_rng(2).normal(
        size=(3, problem.n_theta)
    )
    found = solve_batch(problem, layout, theta, Zty, yty)
    g = derivatives_batch(problem, layout, found)[0]
    for k, step in enumerate(1e-5 * np.eye(problem.n_theta)):
        up, down = (
            solve_batch(problem, layout, theta + s, Zty, yty).criterion
            for s in (step, -step)
        )
        np.testing.assert_allclose(g[:, k], (up - down) / 2e-5, rtol=1e-5, atol=1e-5)


@every
def test_common_theta_is_the_same_as_a_theta_for_each(name):
    fit = fit_of(name)
    problem, layout = fit.evaluation.problem, build_layout(fit.evaluation.problem)
    _, responses, ZtY = responses_near(fit, 3)
    yty, Zty = (responses.rest**2).sum(axis=0), layout.place(ZtY)
    theta = problem.start()[None]
    one = solve_batch(problem, layout, theta, Zty, yty)
    each = solve_batch(problem, layout, np.repeat(theta, 3, axis=0), Zty, yty)
    np.testing.assert_allclose(one.criterion, each.criterion, rtol=1e-12)
    for a, b in zip(
        derivatives_batch(problem, layout, one),
        derivatives_batch(problem, layout, each),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@every
def test_stacked_refits_are_the_single_ones(name):
    fit = fit_of(name)
    Y = drawn(fit, 12)
    found = refit_many(fit, Y)
    assert found.converged.all()
    for j in range(12):
        one = refit(fit, Y[:, j], start=None)
        se = np.sqrt(np.diag(one.V_beta))
        assert found.criterion[j] == pytest.approx(one.criterion, abs=1e-7)
        assert np.all(np.abs(found.beta[j] - one.beta) <= 1e-4 * se)
        np.testing.assert_allclose(found.sigma[j], one.sigma, rtol=1e-4)
        np.testing.assert_allclose(found.theta[j], one.theta, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.V_beta[j], one.V_beta, rtol=1e-3, atol=1e-9)
        for T, expected in zip(found.T, one.T, strict=True):
            np.testing.assert_allclose(T[j], expected, rtol=1e-3, atol=1e-4)
        assert found.singular[j] == bool(one.singular_terms)


def test_most_refits_of_an_interior_model_are_stacked():
    fit = fit_of("slopes")
    found = refit_many(fit, drawn(fit, 200))
    assert found.one_by_one.sum() < 10
    np.testing.assert_array_equal(found.one_by_one, found.singular)


def test_singular_replicates_are_exact_and_certified():
    fit = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))._fit
    Y = drawn(fit, 60)
    found = refit_many(fit, Y)
    assert found.converged.all()
    assert 20 < found.singular.sum() < 55
    # With the variance at zero the fit is that of the mean.
    rss = ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    zero = found.singular
    np.testing.assert_array_equal(found.theta[zero], 0.0)
    np.testing.assert_allclose(found.sigma[zero], np.sqrt(rss[zero] / 29), rtol=1e-10)
    assert np.all(found.theta[~zero] > 0.0)


@pytest.mark.parametrize("name", ["nested", "diagonal, ML"])
def test_variances_of_zero_settle_where_single_searches_find_them(name):
    fit = fit_of(name)
    # A sixth of the variance: many draws are singular in one term or more.
    less = replace(fit, T=tuple(0.4 * T for T in fit.T))
    Y = drawn(less, 50, seed=8)
    found = refit_many(fit, Y)
    assert found.singular.sum() >= 10
    assert found.one_by_one.sum() < 10
    assert found.converged.all()
    for j in range(50):
        one = refit(fit, Y[:, j], start=None)
        assert found.criterion[j] == pytest.approx(one.criterion, abs=1e-7)
        assert found.singular[j] == bool(one.singular_terms)
        np.testing.assert_array_equal(found.theta[j] == 0.0, one.theta == 0.0)


def test_false_zero_does_not_settle():
    """At zero the criterion is stationary whether or not it is a minimum."""
    fit = fit_of("intercept")
    problem, layout = fit.evaluation.problem, build_layout(fit.evaluation.problem)
    _, responses, ZtY = responses_near(fit, 3)
    yty, Zty = (responses.rest**2).sum(axis=0), layout.place(ZtY)
    found = minimize_batch(problem, layout, np.array([1e-3]), (Zty, yty), tolerance=1e3)
    found.theta[:] = 1e-3
    settled = settle_zeros(problem, layout, found, (Zty, yty), tolerance=1e-9)
    assert not settled.any()
    np.testing.assert_array_equal(found.theta, 1e-3)


def test_balanced_one_way_refits_are_the_analysis_of_variance():
    """Var between = (MSB - MSW) / n, and zero where that is negative."""
    data = mf.datasets.load("Dyestuff")
    fit = mf.fit("Yield ~ 1 + (1 | Batch)", data)._fit
    Y = drawn(fit, 50, seed=4)
    cells = Y.reshape(6, 5, -1)
    means = cells.mean(axis=1)
    within = ((cells - means[:, None]) ** 2).sum(axis=(0, 1)) / 24
    between = 5 * means.var(axis=0, ddof=1)
    found = refit_many(fit, Y)
    inside = between > within
    assert inside.sum() > 30
    ours = (found.sigma * found.theta[:, 0]) ** 2
    np.testing.assert_allclose(found.sigma[inside] ** 2, within[inside], rtol=1e-5)
    exact = (between - within)[inside] / 5
    np.testing.assert_allclose(ours[inside], exact, rtol=1e-3, atol=0.3)
    np.testing.assert_array_equal(ours[~inside], 0.0)
    np.testing.assert_allclose(found.beta[:, 0], Y.mean(axis=0), rtol=1e-12)


def test_visitor_gets_each_fit_in_order():
    fit = fit_of("slopes")
    Y = drawn(fit, 9)
    seen = []
    found = Refitter(fit)(Y, lambda j, one: seen.append((j, one)))
    assert [j for j, _ in seen] == list(range(9))
    for j, one in seen:
        np.testing.assert_array_equal(one.design.y, Y[:, j])
        assert one.criterion == pytest.approx(found.criterion[j], abs=1e-8)
        assert one.convergence.converged


def test_large_models_are_refitted_one_by_one(monkeypatch):
    fit = fit_of("slopes")
    Y = drawn(fit, 4)
    stacked = refit_many(fit, Y)
    monkeypatch.setattr(batch, "STACK_LIMIT", 0.0)
    single = refit_many(fit, Y)
    assert single.one_by_one.all()
    np.testing.assert_allclose(single.criterion, stacked.criterion, atol=1e-7)


def test_sparse_backend_gives_the_same_refits():
    data = mf.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    dense = mf.fit(formula, data)._fit
    sparse = mf.fit(formula, data, control={"backend": "sparse"})._fit
    Y = drawn(dense, 5)
    np.testing.assert_allclose(
        refit_many(sparse, Y).criterion, refit_many(dense, Y).criterion, atol=1e-7
    )


def test_response_that_leaves_nothing_is_a_failure_of_its_own():
    fit = fit_of("intercept")
    Y = drawn(fit, 3)
    Y[:, 1] = 7.0
    found = refit_many(fit, Y)
    assert list(found.failures) == [1]
    assert "constant" in found.failures[1]
    assert np.isnan(found.criterion).tolist() == [False, True, False]
    assert found.converged.tolist() == [True, False, True]


# The layout.


def test_equal_groups_share_one_block():
    problem = fit_of("slopes").evaluation.problem
    layout = build_layout(problem)
    assert layout.shape == (1, 2, 18)
    assert layout.counts.tolist() == [18]


def test_unequal_groups_have_blocks_of_their_own():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=40), "g": np.repeat(range(10), 4)})
    data["x"] = rng.normal(size=40)
    layout = build_layout(mf.fit("y ~ x + (x | g)", data)._fit.evaluation.problem)
    assert layout.shape == (10, 2, 1)


def test_components_of_different_size_are_padded_with_empty_levels():
    data = pd.DataFrame(
        {
            "y": np.random.default_rng(1).normal(size=24),
            "a": np.repeat([0, 1, 2], 8),
            "b": np.repeat([0, 1, 2, 3, 4, 5, 6, 6], 3),
        }
    )
    fit = mf.fit("y ~ 1 + (1 | a) + (1 | a:b)", data)._fit
    layout = build_layout(fit.evaluation.problem)
    assert layout.shape[0] * layout.shape[2] >= 3
    assert [piece.levels for piece in layout.pieces] == [1, 4]
    Y = drawn(fit, 5) + np.random.default_rng(2).normal(size=3)[data["a"]][:, None]
    found = refit_many(fit, Y)
    for j in range(5):
        one = refit(fit, Y[:, j], start=None)
        assert found.criterion[j] == pytest.approx(one.criterion, abs=1e-8)


# The pieces of the search.


@pytest.mark.parametrize("s", [1, 2, 5, 6, 7, 20])
def test_inverses_and_log_determinants(s):
    A = np.random.default_rng(s).normal(size=(3, 4, s, s))
    A = A @ A.swapaxes(-1, -2) + np.eye(s)
    inverse, logdet = inverse_and_logdet(A)
    np.testing.assert_allclose(
        inverse @ A, np.broadcast_to(np.eye(s), A.shape), atol=1e-8
    )
    np.testing.assert_allclose(logdet, np.linalg.slogdet(A)[1])


@pytest.mark.parametrize("radius", [0.1, 1.0, 100.0])
def test_steps_are_those_of_the_search_for_one(radius):
    rng = np.random.default_rng(5)
    H = rng.normal(size=(20, 3, 3))
    H = H @ H.swapaxes(1, 2) - 0.3 * np.eye(3)
    g = rng.normal(size=(20, 3))
    steps, predicted, inside = trust_region_steps(H, g, np.full(20, radius))
    for j in range(20):
        step, decrease, within = trust_region_step(H[j], g[j], radius)
        assert inside[j] == within
        assert predicted[j] == pytest.approx(decrease, rel=5e-3)
        np.testing.assert_allclose(steps[j], step, atol=1e-2 * radius)


def test_secant_updates_are_those_of_the_search_for_one():
    rng = np.random.default_rng(6)
    B, A = rng.normal(size=(2, 10, 3, 3))
    B, A = B + B.swapaxes(1, 2), A @ A.swapaxes(1, 2)
    B[0] = 0.0
    step, dg = rng.normal(size=(2, 10, 3))
    found = secant_updates(B, step, dg, A)
    for j in range(10):
        np.testing.assert_allclose(
            found[j], _secant_update(B[j], step[j], dg[j], A[j]), rtol=1e-10
        )
