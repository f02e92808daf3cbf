"""Fits with residual structures: closed forms, dense n x n algebra, invariances."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixform as mf
from mixform.estimate.criterion import average_information, evaluate, gradient
from tests.residual_models import MODELS, fit_of, longitudinal, name_of


def dense_criterion(m, psi=None):
    """-2 log likelihood by n x n matrices, at parameters of the scaled problem.

    sigma^2 is profiled out by hand, as e'V^-1e over its degrees of freedom.
    """
    fit = m._fit
    problem, design = fit.evaluation.problem, fit.design
    psi = fit.scaled_theta if psi is None else psi
    n, reml = fit.n, fit.method == "REML"
    V = np.eye(n)
    if problem.rows is not None:
        half = problem.rows.model.at(psi[problem.n_theta :]).color(np.eye(n))
        V = half @ half.T
    if design.weights is not None:
        V /= np.sqrt(np.outer(design.weights, design.weights))
    for block, T, C in zip(
        design.blocks, problem.factors(psi), problem.Z_scales, strict=True
    ):
        half = block.Z.toarray() @ np.kron(np.eye(block.m), np.linalg.solve(C, T))
        V += half @ half.T
    X, y = design.fixed.X, design.y
    ViX = np.linalg.solve(V, X)
    beta = np.linalg.solve(X.T @ ViX, ViX.T @ y)
    e = y - X @ beta
    df = n - X.shape[1] if reml else n
    sigma2 = e @ np.linalg.solve(V, e) / df
    value = np.linalg.slogdet(V)[1] + df * (1.0 + np.log(2.0 * np.pi * sigma2))
    return value + (np.linalg.slogdet(X.T @ ViX)[1] if reml else 0.0)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("model", MODELS, ids=name_of)
class TestCriterion:
    def test_value_and_gradient_are_those_of_dense_algebra(self, model, method):
        m = fit_of(model, method=method)
        problem, psi = m._fit.evaluation.problem, m._fit.scaled_theta
        assert m.criterion == pytest.approx(dense_criterion(m), abs=1e-9)
        psi = psi + 0.1 * np.random.default_rng(1).normal(size=len(psi))
        there = evaluate(problem, psi)
        expected = np.empty(len(psi))
        for k, unit in enumerate(np.eye(len(psi))):
            low, lower, upper, high = (
                dense_criterion(m, psi + s * 1e-3 * unit) for s in (-2, -1, 1, 2)
            )
            expected[k] = (low - 8 * lower + 8 * upper - high) / 12e-3
        np.testing.assert_allclose(gradient(there, psi), expected, atol=2e-7)

    def test_average_information_is_that_of_dense_algebra(self, model, method):
        """A = (q'P~q - (q'P~y)(P~y'q)/r^2) / sigma^2, q_k = dV_k P~y."""
        m = fit_of(model, method=method)
        problem, design, n = m._fit.evaluation.problem, m.design, m.nobs
        psi = problem.start()
        psi += 0.1 * np.random.default_rng(1).normal(size=len(psi))
        here = evaluate(problem, psi)

        def dense_V(at):
            V = np.eye(n)
            if problem.rows is not None:
                half = problem.rows.model.at(at[problem.n_theta :]).color(np.eye(n))
                V = half @ half.T
            if design.weights is not None:
                V = V / np.sqrt(np.outer(design.weights, design.weights))
            for block, T, C in zip(
                design.blocks, problem.factors(at), problem.Z_scales, strict=True
            ):
                half = block.Z.toarray() @ np.kron(
                    np.eye(block.m), np.linalg.solve(C, T)
                )
                V = V + half @ half.T
            return V

        X, y = design.fixed.X, design.y / problem.y_scale
        Vi = np.linalg.inv(dense_V(psi))
        P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
        q = np.empty((n, len(psi)))
        for k, unit in enumerate(np.eye(len(psi))):
            low, lower, upper, high = (
                dense_V(psi + s * 1e-3 * unit) for s in (-2, -1, 1, 2)
            )
            q[:, k] = (low - 8 * lower + 8 * upper - high) / 12e-3 @ P @ y
        linear = q.T @ P @ y
        expected = (q.T @ P @ q - np.outer(linear, linear) / (y @ P @ y)) / here.sigma2
        np.testing.assert_allclose(
            average_information(here, psi), expected, atol=1e-7 * np.abs(expected).max()
        )


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_no_optimizer_finds_a_lower_criterion(model):
    m = fit_of(model)
    assert m.convergence.converged
    rng = np.random.default_rng(2)
    problem, psi = m._fit.evaluation.problem, m._fit.scaled_theta
    shift = m.criterion - m._fit.evaluation.criterion
    found = min(
        minimize(
            lambda at: evaluate(problem, at).criterion,
            psi + step * rng.normal(size=len(psi)),
            jac=lambda at: gradient(evaluate(problem, at), at),
            method="BFGS",
        ).fun
        for step in (0.02, 0.3)
    )
    assert m.criterion <= found + shift + 1e-6


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_fit_does_not_depend_on_units_and_order_of_rows(model):
    data = longitudinal()
    m = fit_of(model, data)
    other = data.assign(y=1e3 * data.y - 40.0 + 7e3 * data.x).sample(
        frac=1.0, random_state=5
    )
    changed = fit_of(model, other)
    df = m._fit.evaluation.problem.residual_df
    assert changed.criterion == pytest.approx(
        m.criterion + 2.0 * df * np.log(1e3), abs=1e-7
    )
    np.testing.assert_allclose(changed.bse, 1e3 * m.bse, rtol=1e-5)
    np.testing.assert_allclose(changed.ddf, m.ddf, rtol=1e-4)


def test_backends_agree():
    """Levels that all rows of a subject share stay sparse."""
    model = ("y ~ x + (x | site) + (1 | id)", "ar1(visit | id)", "~ arm", "w")
    dense = fit_of(model, control={"backend": "dense"})
    sparse = fit_of(model, control={"backend": "sparse"})
    assert sparse.convergence.backend == "sparse"
    assert sparse.criterion == pytest.approx(dense.criterion, abs=1e-9)
    np.testing.assert_allclose(sparse.bse, dense.bse, rtol=1e-6)
    np.testing.assert_allclose(sparse.ddf, dense.ddf, rtol=1e-5)
    point = dense._fit.scaled_theta + 0.1
    gradients = [
        gradient(evaluate(m._fit.evaluation.problem, point), point)
        for m in (dense, sparse)
    ]
    np.testing.assert_allclose(*gradients, atol=1e-8)


class TestClosedForms:
    """Complete data, every visit with its own mean: estimates in closed form."""

    def data(self):
        rng = np.random.default_rng(11)
        Y = rng.normal(size=(15, 3)) @ rng.normal(size=(3, 3)) + [5.0, 6.0, 8.0]
        frame = pd.DataFrame(
            {"y": Y.ravel(), "id": np.repeat(np.arange(15), 3), "visit": [1, 2, 3] * 15}
        )
        return Y, frame

    @pytest.mark.parametrize(("method", "divisor"), [("REML", 14), ("ML", 15)])
    def test_unstructured_is_the_sample_covariance(self, method, divisor):
        Y, data = self.data()
        m = mf.fit("y ~ 0 + factor(visit)", data, residual="us(visit | id)",
                   method=method)  # fmt: skip
        centered = Y - Y.mean(axis=0)
        S = centered.T @ centered / divisor
        np.testing.assert_allclose(m.residual_covariance(), S, rtol=1e-5)
        np.testing.assert_allclose(m.params, Y.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(m.cov_params(), S / 15, rtol=1e-5)

    def test_each_contrast_of_unstructured_means_has_n_minus_1_df(self):
        _, data = self.data()
        m = mf.fit("y ~ 0 + factor(visit)", data, residual="us(visit | id)")
        np.testing.assert_allclose(m.ddf, 14.0, rtol=1e-6)

    def test_diag_is_the_variance_of_each_visit(self):
        Y, data = self.data()
        m = mf.fit("y ~ 0 + factor(visit)", data, residual="diag(visit | id)")
        sd = m.residual_parameters()["estimate"]
        np.testing.assert_allclose(sd, Y.std(axis=0, ddof=1), rtol=1e-7)
        np.testing.assert_allclose(m.ddf, 14.0, rtol=1e-6)
        dispersion = mf.fit("y ~ 0 + factor(visit)", data, dispersion="~ factor(visit)")
        assert dispersion.criterion == pytest.approx(m.criterion, abs=1e-9)

    def test_compound_symmetry_by_mean_squares(self):
        Y, data = self.data()
        m = mf.fit("y ~ factor(visit)", data, residual="cs(visit | id)")
        subjects, visits = Y.mean(axis=1), Y.mean(axis=0)
        between = 3.0 * np.sum((subjects - Y.mean()) ** 2) / 14
        rest = Y - subjects[:, None] - visits + Y.mean()
        within = np.sum(rest**2) / 28
        variance = (between + 2.0 * within) / 3.0
        rho = (between - within) / (3.0 * variance)
        table = m.residual_parameters()["estimate"]
        np.testing.assert_allclose(table, [np.sqrt(variance), rho], rtol=1e-6)

    def test_standard_errors_of_the_parameters_of_us(self):
        """Var(S_jj) = 2 S_jj^2 / (n - 1), so SE(sd) = sd / sqrt(2 (n - 1)).

        And of a correlation, (1 - r^2) / sqrt(n - 1) (Anderson 2003, section 4.2).
        """
        _, data = self.data()
        m = mf.fit("y ~ 0 + factor(visit)", data, residual="us(visit | id)")
        table = m.residual_parameters()
        sd, r = table["estimate"][:3], table["estimate"][3:]
        expected = np.append(sd / np.sqrt(28.0), (1.0 - r**2) / np.sqrt(14.0))
        np.testing.assert_allclose(table["se"], expected, rtol=1e-4)


class TestEquivalences:
    def test_compound_symmetry_is_a_random_intercept(self):
        data = longitudinal()
        cs = mf.fit("y ~ x + arm", data, residual="cs(visit | id)")
        one = mf.fit("y ~ x + arm + (1 | id)", data)
        assert cs.criterion == pytest.approx(one.criterion, abs=1e-8)
        variance = one.varcorr["vcov"]
        table = cs.residual_parameters()["estimate"]
        assert table["sd"] ** 2 == pytest.approx(variance.sum(), rel=1e-5)
        assert table["rho"] == pytest.approx(variance[0] / variance.sum(), rel=1e-5)
        np.testing.assert_allclose(cs.bse, one.bse, rtol=1e-6)
        np.testing.assert_allclose(cs.ddf, one.ddf, rtol=1e-5)

    def test_compound_symmetry_can_be_negative(self):
        data = longitudinal()
        mean = data.groupby("id").y.transform("mean")
        m = mf.fit("y ~ 1", data.assign(y=data.y - 0.9 * mean), residual="cs(visit|id)")
        assert m.rho["rho"] < -0.1
        assert m.convergence.converged

    def test_exponential_is_continuous_autoregression(self):
        data = longitudinal()
        one = mf.fit("y ~ x", data, residual="car1(visit | id)")
        two = mf.fit("y ~ x", data, residual="exp(visit | id)")
        three = mf.fit("y ~ x", data, residual="ar1(visit | id)")
        assert two.criterion == pytest.approx(one.criterion, abs=1e-8)
        assert one.rho["rho"] == pytest.approx(
            np.exp(-1.0 / two.rho["range"]), rel=1e-5
        )
        assert three.criterion == pytest.approx(one.criterion, abs=1e-8)

    def test_strata_alone_are_fits_of_their_own(self):
        """With fixed effects by arm too, nothing is common to the arms."""
        data = longitudinal()
        both = mf.fit("y ~ 0 + arm", data, residual="toeph(visit | arm/id)")
        parts = [
            mf.fit("y ~ 1", data[data.arm == arm], residual="toeph(visit | id)")
            for arm in "ab"
        ]
        assert both.criterion == pytest.approx(
            sum(part.criterion for part in parts), abs=1e-6
        )
        np.testing.assert_allclose(
            both.bse, [part.bse.iloc[0] for part in parts], rtol=1e-5
        )
        np.testing.assert_allclose(
            both.residual_covariance("b"), parts[1].residual_covariance(), rtol=1e-4
        )

    def test_weights_and_dispersion_by_the_same_column(self):
        data = longitudinal()
        free = mf.fit("y ~ x", data, dispersion="~ arm")
        shift = free.residual_parameters().loc["log sd: arm[T.b]", "estimate"]
        weights = np.exp(-2.0 * shift * (data.arm == "b"))
        held = mf.fit("y ~ x", data, weights=weights)
        assert held.criterion == pytest.approx(free.criterion, abs=1e-8)
        assert held.sigma == pytest.approx(free.sigma, rel=1e-7)


class TestUndetermined:
    @pytest.mark.filterwarnings("ignore::mixform.errors.ConvergenceWarning")
    def test_random_intercept_beside_compound_symmetry(self):
        m = mf.fit("y ~ x + (1 | id)", longitudinal(), residual="cs(visit | id)")
        assert not m.convergence.converged
        assert "do not determine the covariance of random term 1, rho" in str(
            m.convergence.message
        )

    @pytest.mark.filterwarnings("ignore::mixform.errors.ConvergenceWarning")
    def test_visits_that_no_subject_has_both_of_are_named(self):
        data = longitudinal()
        both = data.id.isin(data.id[data.visit == 3])
        m = mf.fit("y ~ x", data[(data.visit != 1) | ~both], residual="us(visit|id)")
        assert m.convergence.message == (
            "not certified: the data do not determine rho(1,3)"
        )

    def test_a_correlation_at_its_edge_is_a_note(self):
        data = longitudinal()
        mean = data.groupby("id").y.transform("mean")
        m = mf.fit("y ~ x", data.assign(y=data.y - mean), residual="car1(visit | id)")
        ordinary = mf.fit("y ~ x", data.assign(y=data.y - mean))
        assert m.convergence.converged
        assert m.criterion == pytest.approx(ordinary.criterion, abs=1e-6)
        assert "rho is at the edge of its range" in str(m)
        np.testing.assert_allclose(m.ddf, ordinary.ddf, rtol=1e-6)
        assert np.isnan(m.residual_parameters().loc["rho", "se"])


class TestLoadings:
    """Levels with a singular covariance, beside a residual structure."""

    @pytest.mark.parametrize("group", ["site", "plot"])
    def test_value_and_gradient_are_those_of_dense_algebra(self, group):
        data = longitudinal()
        levels = sorted(data[group].unique())
        F = np.random.default_rng(3).normal(size=(len(levels), 3))
        K = pd.DataFrame(F @ F.T, index=levels, columns=levels)
        m = mf.fit(f"y ~ x + (x | {group})", data, relationship={group: K},
                   residual="arh1(visit | id)")  # fmt: skip
        problem = m._fit.evaluation.problem
        psi = problem.start() + 0.1
        values = {}
        for s in (-2, -1, 1, 2):
            for k, unit in enumerate(np.eye(len(psi))):
                values[s, k] = self.dense(m, K, psi + s * 1e-3 * unit)
        expected = [
            (values[-2, k] - 8 * values[-1, k] + 8 * values[1, k] - values[2, k])
            / 12e-3
            for k in range(len(psi))
        ]
        here = evaluate(problem, psi)
        shift = m.criterion - m._fit.evaluation.criterion
        assert here.criterion + shift == pytest.approx(self.dense(m, K, psi), abs=1e-8)
        np.testing.assert_allclose(gradient(here, psi), expected, atol=2e-7)

    def dense(self, m, K, psi):
        fit = m._fit
        problem, design, n = fit.evaluation.problem, fit.design, fit.n
        half = problem.rows.model.at(psi[problem.n_theta :]).color(np.eye(n))
        V = half @ half.T
        (block,), (T,), (C,) = design.blocks, problem.factors(psi), problem.Z_scales
        Sigma = np.linalg.solve(C, T)
        Sigma = Sigma @ Sigma.T
        rows = block.codes
        V += K.to_numpy()[np.ix_(rows, rows)] * (block.design @ Sigma @ block.design.T)
        X, y = design.fixed.X, design.y
        ViX = np.linalg.solve(V, X)
        e = y - X @ np.linalg.solve(X.T @ ViX, ViX.T @ y)
        df = n - X.shape[1]
        sigma2 = e @ np.linalg.solve(V, e) / df
        value = np.linalg.slogdet(V)[1] + df * (1.0 + np.log(2.0 * np.pi * sigma2))
        return value + np.linalg.slogdet(X.T @ ViX)[1]


def test_parameters_that_are_given_are_not_at_their_edge():
    R = [[2.0, 0.5, 0.3, 0.1], [0.5, 1.5, 0.4, 0.2], [0.3, 0.4, 1.2, 0.5],
         [0.1, 0.2, 0.5, 1.8]]  # fmt: skip
    m = mf.fit("y ~ x", longitudinal(), residual="us(visit | id)",
               varcomp={"residual": R})  # fmt: skip
    np.testing.assert_allclose(m.residual_covariance(), R, rtol=1e-12)
    assert "edge" not in str(m)


def test_a_trial_that_cannot_be_solved_is_a_step_too_far():
    """A trend that correlations near one describe best: the search meets singular R."""
    data = longitudinal()
    rng = np.random.default_rng(1)
    data["y"] = np.sin(data.lat / 8.0) + 1e-3 * rng.normal(size=len(data))
    m = mf.fit("y ~ 1", data, residual="gau(lat, nugget=True)")
    assert m.convergence.converged
    assert m.criterion == pytest.approx(dense_criterion(m), abs=1e-5)
