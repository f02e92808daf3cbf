"""Predictive distributions have the variances of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from tests.posteriors import MODELS, constant, scattered

COUNT = 10_000
#: Five standard errors of a variance or correlation of that many normal numbers.
SLACK = 5.0 * np.sqrt(2.0 / COUNT)


@pytest.fixture(scope="module")
def fixed():
    """Many draws, all of them the REML estimates."""
    result = MODELS["slopes"]()
    return result, constant(result, COUNT)


def new_rows(subjects, days):
    return pd.DataFrame({"Subject": subjects, "Days": days})


def test_new_level_has_the_variance_of_its_term(fixed):
    result, m = fixed
    rows = new_rows(["new", "new", "other"], [0.0, 5.0, 5.0])
    draws = m.predict(rows, new_levels="population", draws=True).to_numpy()
    Sigma = result.sigma**2 * result._fit.T[0] @ result._fit.T[0].T
    Z = np.array([[1.0, 0.0], [1.0, 5.0], [1.0, 5.0]])
    wanted = Z @ Sigma @ Z.T
    wanted[2, :2] = wanted[:2, 2] = 0.0  # another level
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.abs((np.cov(draws.T) - wanted) / scale).max() < SLACK
    estimate = m.predict(rows, new_levels="population")
    assert estimate.tolist() == pytest.approx(
        result.predict(rows, random=False).tolist()
    )


def test_new_observation_has_a_residual_and_the_terms_left_out(fixed):
    result, m = fixed
    rows = new_rows(["308", "new"], [2.0, 2.0])
    known = m.predict(rows.head(1), interval="prediction")
    assert known["se"].iloc[0] == pytest.approx(result.sigma, rel=SLACK)
    z = np.array([1.0, 2.0])
    T = result._fit.T[0]
    total = result.sigma * np.sqrt(1.0 + z @ T @ T.T @ z)
    for options in ({"new_levels": "population"}, {"random": False}):
        table = m.predict(rows, interval="prediction", **options)
        assert table["se"].iloc[1] == pytest.approx(total, rel=SLACK)
        width = table["upper"].iloc[1] - table["lower"].iloc[1]
        assert width == pytest.approx(2 * 1.959964 * total, rel=2 * SLACK)
    alone = m.predict(rows, random=False, interval="confidence")
    assert np.all(alone["se"] == 0.0)


def test_levels_of_terms_left_out_are_others_in_each_row(fixed):
    _, m = fixed
    rows = new_rows(["308", "308"], [9.0, 9.0])
    options = {"interval": "prediction", "draws": True}
    draws = m.predict(rows, random=False, **options).to_numpy()
    assert abs(np.corrcoef(draws.T)[0, 1]) < SLACK


def test_weights_divide_the_residual_variance():
    result = MODELS["weighted"]()
    m = constant(result, COUNT)
    row = {"half": ["odd"] * 2, "Days": [1.0] * 2, "Subject": ["308"] * 2}
    row |= {"shift": [0.0, 100.0], "w": [1.0, 4.0]}
    table = m.predict(pd.DataFrame(row), interval="prediction")
    ratio = table["se"].iloc[0] / table["se"].iloc[1]
    assert ratio == pytest.approx(2.0, rel=2 * SLACK)
    apart = table["estimate"].iloc[1] - table["estimate"].iloc[0]
    assert apart == pytest.approx(100.0)


def test_predictions_repeat_and_do_not_depend_on_chunks(fixed, monkeypatch):
    m = scattered(fixed[0])
    first = m.predict(interval="prediction")
    assert first.equals(m.predict(interval="prediction"))
    assert not first.equals(m.predict(interval="prediction", seed=2))
    confidence = m.predict(interval="confidence")
    module = mf.inference.posterior.prediction
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 40 * 7)
    assert np.allclose(confidence, m.predict(interval="confidence"), rtol=1e-12)


def test_data_sets_have_the_covariance_of_the_model():
    result = MODELS["crossed"]()
    m = constant(result)
    draws = m.simulate(4000, seed=1)
    design = result.design
    V = np.eye(len(design.y))
    for block, T in zip(design.blocks, result._fit.T, strict=True):
        Z = block.Z.toarray()
        V += T[0, 0] ** 2 * Z @ Z.T
    variance = result.sigma**2 * V[0, 0]
    sample = np.cov(draws.to_numpy()[[0, 1, 6]])
    wanted = result.sigma**2 * V[np.ix_([0, 1, 6], [0, 1, 6])]
    assert np.abs(sample - wanted).max() < 5.0 * variance * np.sqrt(2.0 / 4000)
    assert draws.columns[0] == "sim_1"


def test_data_sets_keep_the_effects_of_the_draw():
    m = scattered(MODELS["slopes"](), count=4)
    means = m.predict(draws=True).to_numpy()
    kept = m.simulate(400, seed=3, use_u=True).to_numpy()
    apart = kept.mean(axis=1) - means.mean(axis=0)
    sigma = np.sqrt(np.mean(m._posterior.sigma**2))
    assert np.abs(apart).max() < 6.0 * sigma / 20.0
    new = pd.DataFrame({"Subject": ["308", "new"], "Days": [1.0, 1.0]})
    few = m.simulate(2, newdata=new, use_u=True, seed=1)
    assert few.shape == (2, 2)
    assert few.equals(m.simulate(2, newdata=new, use_u=True, seed=1))
    with pytest.raises(mf.InferenceError, match="nsim must be"):
        m.simulate(0)
    with pytest.raises(mf.InferenceError, match="no random term 'plate'"):
        m.simulate(1, use_u="plate")


def test_levels_outside_a_relationship_are_refused():
    m = scattered(MODELS["related"]())
    rows = pd.DataFrame({"x": [1.0], "animal": ["7"]})
    with pytest.raises(mf.InferenceError, match="not in the relationship"):
        m.predict(rows, new_levels="population")
    without_records = rows.assign(animal="1")
    assert np.isfinite(m.predict(without_records, interval="prediction")).all(axis=None)
    with pytest.raises(mf.InferenceError, match="no variance"):
        m.predict(rows, random=False, interval="prediction")


def test_wrong_choices_are_refused(fixed):
    _, m = fixed
    with pytest.raises(mf.InferenceError, match="Unknown interval 'credible'"):
        m.predict(interval="credible")
    with pytest.raises(mf.InferenceError, match="Unknown new_levels 'zero'"):
        m.predict(new_levels="zero")
    with pytest.raises(mf.InferenceError, match="no random term 'Sub'"):
        m.predict(random="Sub")
    with pytest.raises(mf.InferenceError, match="seed is 'a'"):
        m.predict(interval="prediction", seed="a")
