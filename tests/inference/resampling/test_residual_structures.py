"""Draws and refits with residual structures."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.estimate.batch.batch import Refitter
from mixform.inference.resampling.new_design import fit_of_new_rows, read_new_rows
from mixform.inference.resampling.power import changed_parameters
from mixform.inference.resampling.simulation import (
    chunks,
    new_simulator,
    parameters,
    simulator_of,
)
from tests.residual_models import MODELS, dense, fit_of, longitudinal, name_of

FEW = [MODELS[0], MODELS[4], MODELS[-6], MODELS[-5], MODELS[-4], MODELS[-2]]


@pytest.mark.parametrize("model", FEW, ids=name_of)
def test_draws_have_the_covariance_of_the_model(model):
    m = fit_of(model)
    _, V, _, X = dense(m)
    V = m.sigma**2 * V
    draws = m.simulate(20_000, seed=3).to_numpy()
    np.testing.assert_allclose(draws.mean(axis=1), X @ m.params, atol=0.12)
    found = np.cov(draws)
    size = np.sqrt(np.outer(np.diag(V), np.diag(V)))
    assert np.abs((found - V) / size).max() < 0.05


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_new_rows_that_are_the_old_ones_are_drawn_alike(model):
    data = longitudinal()
    m = fit_of(model, data)
    pd.testing.assert_frame_equal(
        m.simulate(3, seed=1), m.simulate(3, seed=1, newdata=data)
    )


def test_new_subjects_are_independent_of_each_other():
    data = longitudinal()
    m = fit_of(("y ~ x", "ar1(visit | id)", None, None), data)
    new = pd.DataFrame(
        {"x": 0.0, "visit": [1, 2, 7, 1, 2], "id": ["a", "a", "a", "b", "b"]}
    )
    rho = float(m.rho["rho"])
    found = np.corrcoef(m.simulate(40_000, newdata=new, seed=1))
    expected = np.zeros((5, 5))
    lags = np.array([0, 1, 6])
    expected[:3, :3] = rho ** np.abs(lags[:, None] - lags)
    expected[3:, 3:] = [[1.0, rho], [rho, 1.0]]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_two_new_rows_at_one_position_are_refused():
    data = longitudinal()
    m = fit_of(("y ~ x", "us(visit | id)", None, None), data)
    twice = pd.concat([data, data.iloc[:1]])
    with pytest.raises(DesignError, match="two residuals at visit"):
        m.simulate(newdata=twice)


@pytest.mark.parametrize("model", FEW, ids=name_of)
def test_bootstrap_is_made_of_refits(model):
    m = fit_of(model)
    b = m.bootstrap(2, seed=5)
    draws = m.simulate(2, seed=5)
    for j, name in enumerate(draws):
        own = fit_of(model, longitudinal().assign(y=draws[name]))
        found = b.replicates.iloc[j]
        np.testing.assert_allclose(
            found[own.params.index], own.params, rtol=1e-4, atol=1e-5
        )
        expected = own.residual_parameters().estimate
        np.testing.assert_allclose(
            found[expected.index], expected, rtol=1e-3, atol=1e-3
        )
    assert b.n_failed == 0
    assert m.refit(draws["sim_1"]).criterion <= own_criterion(model, draws) + 1e-6


def own_criterion(model, draws):
    return fit_of(model, longitudinal().assign(y=draws["sim_1"])).criterion


def test_semiparametric_draws_are_of_normalized_residuals():
    m = fit_of(("y ~ x", "us(visit | id)", None, None))
    b = m.bootstrap(3, kind="semiparametric", use_u=True, seed=1)
    assert b.n_failed == 0
    model = m._fit.evaluation.problem.rows.model
    simulator = simulator_of(m._fit, parameters(m._fit), use_u=True, resample=True)
    Y = simulator.draw(*next(iter(chunks(simulator, 3, 1))))
    e = (Y - m.fittedvalues.to_numpy()[:, None]) / m.sigma
    z = model.at(m._fit.rho).whiten(e)
    kept = m.residuals("normalized").to_numpy()
    kept = kept - kept.mean()
    kept /= np.sqrt(np.mean(kept**2))
    assert np.abs(z[:, :, None] - kept).min(axis=2).max() < 1e-10


def test_start_at_the_edge_of_a_range_is_left():
    """A range of zero, where the criterion is flat, is no start for refits."""
    data = longitudinal()
    rng = np.random.default_rng(1)
    apart = data[["lat", "lon"]].to_numpy()
    D = np.linalg.norm(apart[:, None] - apart, axis=2)
    e = np.linalg.cholesky(np.exp(-D / 2.0)) @ rng.normal(size=len(data))
    free = mf.fit(
        "y ~ x", data.assign(y=rng.normal(size=len(data))), residual="exp(lat + lon)"
    )
    assert "range is at the edge of its range." in free.notes
    assert Refitter(free._fit).start != pytest.approx(free._fit.scaled_theta)
    again = mf.fit("y ~ x", data.assign(y=e), residual="exp(lat + lon)")
    assert free.refit(e).criterion == pytest.approx(again.criterion, abs=1e-6)


def test_power_draws_with_changed_residual_parameters():
    m = fit_of(("y ~ x", "us(visit | id)", "~ arm", None))
    truth = changed_parameters(
        m._fit, {"sd(1)": 3.0, "rho(1,2)": 0.1, "log sd: arm[T.b]": 0.5}
    )
    table = m.residual_parameters().estimate
    model = m._fit.evaluation.problem.rows.model
    Sigma = truth.sigma**2 * model.covariance(truth.rho, 0)
    sd = np.sqrt(np.diag(Sigma))
    np.testing.assert_allclose(sd, [3.0, *table[["sd(2)", "sd(3)", "sd(4)"]]])
    C = Sigma / np.outer(sd, sd)
    assert C[0, 1] == pytest.approx(0.1)
    assert C[3, 2] == pytest.approx(table["rho(3,4)"])
    assert truth.rho[-1] == 0.5
    assert m.power("x", 3, params={"sd(1)": 3.0}, seed=1).n_failed == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sd(2)": -1.0}, r"sd\(2\) is -1; it must be positive"),
        ({"rho(1,2)": 0.99, "rho(1,3)": -0.99}, "no residual correlations 'us'"),
        ({"rho(1,5)": 0.5}, r"no parameter 'rho\(1,5\)'"),
    ],
)
def test_parameters_that_are_none_are_refused(params, message):
    m = fit_of(("y ~ x", "us(visit | id)", None, None))
    with pytest.raises(InferenceError, match=message):
        m.power("x", 3, params=params)


def test_power_of_a_larger_design():
    data = longitudinal()
    m = fit_of(("y ~ x", "csh(visit | arm/id)", "~ x", None), data)
    more = pd.concat([data, data.assign(id=data.id + 100)], ignore_index=True)
    rows = read_new_rows(m._fit, more.drop(columns="y"))
    simulator = new_simulator(m._fit, parameters(m._fit), rows)
    larger = fit_of_new_rows(m._fit, rows, simulator, 1)
    assert larger.n == 2 * m.nobs
    assert len(np.unique(larger.design.residual.subjects)) == 48
    found = m.power("x", 4, newdata=more.drop(columns="y"), seed=1)
    assert found.n_failed == 0
    with pytest.raises(InferenceError, match="no row of the stratum 'b'"):
        m.power("x", 4, newdata=data[data.arm == "a"])


def test_bootstrap_of_a_likelihood_ratio():
    data = longitudinal()
    small = mf.fit("y ~ x", data)
    large = fit_of(("y ~ x", "ar1(visit | id)", None, None), data)
    found = mf.bootstrap_lrt(small, large, 20, seed=1)
    assert found.num_df == 1
    assert found.statistic == pytest.approx(small.criterion - large.criterion)
    assert found.p_value < 0.1
    assert found.formulas[1] == "y ~ x, residual ar1(visit | id)"
