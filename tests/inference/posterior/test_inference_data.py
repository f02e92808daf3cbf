"""The posterior as ArviZ InferenceData."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import mixform as mf
from mixform.inference.posterior.inference_data import convergence, load_arviz
from tests.posteriors import MODELS, scattered

pytest.importorskip("arviz")


@pytest.fixture(scope="module")
def arviz():
    return load_arviz()


@pytest.fixture(scope="module")
def m():
    return scattered(MODELS["weighted"](), chains=4)


def test_parameters_are_there_by_name(m):
    p, data = m._posterior, m.posterior
    assert data.posterior.sizes["chain"] == 4
    assert data.posterior.sizes["draw"] == 10
    beta = data.posterior["beta"].sel(coefficient="Days").to_numpy()
    place = list(m.params.index).index("Days")
    assert np.array_equal(beta, p.beta[:, place].reshape(4, 10))
    for name, values in zip(p.names, p.parameters.T, strict=True):
        assert np.array_equal(data.posterior[name].to_numpy().ravel(), values)
    b = data.posterior["b(Subject)"].sel(
        {"Subject level": "309", "Subject term": "Days"}
    )
    place = list(m.design.blocks[0].levels).index("309")
    assert np.array_equal(b.to_numpy().ravel(), p.b[0][:, place, 1])
    assert data.sample_stats["lp"].to_numpy().ravel().tolist() == list(range(40))
    assert data.observed_data["y"].to_numpy().tolist() == m.design.y.tolist()
    assert "half_t" in data.posterior.attrs["prior"]
    assert data.posterior.attrs["formula"] == m.formula
    assert m.posterior is data


def test_log_likelihood_is_that_of_each_observation(m):
    p, design = m._posterior, m.design
    mean = m.predict(draws=True).to_numpy()
    scale = p.sigma[:, None] / np.sqrt(design.weights)
    wanted = norm.logpdf(design.y, mean, scale)
    found = m.posterior.log_likelihood["y"].to_numpy().reshape(40, -1)
    assert np.allclose(found, wanted, rtol=1e-12)
    without = m.inference_data(log_likelihood=False)
    assert "log_likelihood" not in without.groups()


def test_replicated_observations_have_the_spread_of_residuals(m):
    data = m.inference_data(posterior_predictive=True, seed=4)
    found = data.posterior_predictive["y"].to_numpy().reshape(40, -1)
    p = m._posterior
    scale = p.sigma[:, None] / np.sqrt(m.design.weights)
    z = (found - m.predict(draws=True).to_numpy()) / scale
    assert abs(z.mean()) < 5.0 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1.0, abs=5.0 / np.sqrt(2.0 * z.size))


def test_arviz_summarizes_compares_and_keeps_it(m, arviz, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few draws
        table = arviz.summary(m.posterior, round_to="none")
        loo = arviz.loo(m.posterior)
    assert table.loc["sigma", "mean"] == pytest.approx(m.sigma)
    assert table.loc["beta[Days]", "sd"] == pytest.approx(m.bse["Days"])
    assert np.isfinite(loo.elpd_loo)
    path = str(tmp_path / "draws.nc")
    m.posterior.to_netcdf(path)
    again = arviz.from_netcdf(path)
    for group in m.posterior.groups():
        assert again[group].equals(m.posterior[group]), group


def test_convergence_is_that_of_arviz(m, arviz):
    table = convergence(m._posterior)
    values = m._posterior.beta[:, 0].reshape(4, 10)
    row = table.loc["Intercept"]
    assert row["r_hat"] == pytest.approx(float(arviz.rhat(values)))
    assert row["ess_tail"] == pytest.approx(float(arviz.ess(values, method="tail")))
    assert table.index.tolist() == [*m.params.index, *m._posterior.names]
    assert table.loc["sigma"].tolist() == [1.0, 40.0, 40.0]


def test_thinned_draws_are_in_chains_if_they_are_even():
    result = MODELS["slopes"]()
    even = scattered(result, effects=[0, 10, 25, 39]).posterior
    assert dict(even.posterior.sizes)["chain"] == 2
    assert even.posterior["sigma"].shape == (2, 2)
    odd = scattered(result, effects=[0, 10, 39]).posterior
    assert odd.posterior["beta"].shape == (1, 3, 2)
    assert odd.sample_stats["lp"].to_numpy().ravel().tolist() == [0.0, 10.0, 39.0]


def test_names_with_slashes_and_colons_are_kept_by_a_file(arviz, tmp_path):
    data = mf.datasets.load("Pastes")
    data["x"] = np.arange(len(data)) / 10.0
    formula = "strength ~ x + (1|batch/cask) + (0 + I(x/2)|batch)"
    m = scattered(mf.fit(formula, data))
    m.posterior.to_netcdf(str(tmp_path / "draws.nc"))
    again = arviz.from_netcdf(str(tmp_path / "draws.nc"))
    assert "sd(batch.1: I(x | 2))" in again.posterior
    assert again.posterior["b(batch:cask)"].shape == (2, 20, 30, 1)


def test_model_without_fixed_effects_has_no_beta():
    m = scattered(MODELS["random"]())
    assert "beta" not in m.posterior.posterior
    assert convergence(m._posterior).index.tolist() == list(m._posterior.names)
    assert "No fixed effects." in str(m)
    assert m.conf_int().index.tolist() == list(m._posterior.names)


def test_labels_that_a_file_cannot_hold_are_text():
    data = MODELS["slopes"]()._call.data
    frame = data.set_index([np.arange(len(data)), data["Subject"]])
    result = MODELS["slopes"]()
    m = scattered(result.update(data=frame))
    assert m.posterior.observed_data["observation"].to_numpy()[0] == "(0, '308')"
    numbered = scattered(result.update(data=data.set_axis(pd.Index(range(1, 181)))))
    assert numbered.posterior.observed_data["observation"].to_numpy()[0] == 1
