"""Each quantity is that function of the parameters at each draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mixform as mf
from mixform.inference.diagnostics import fit_measures
from mixform.inference.posterior.draws import credible_limits, deviations
from tests.posteriors import MODELS, scattered


@pytest.fixture(scope="module", params=["slopes", "independent", "related", "weighted"])
def model(request):
    return scattered(MODELS[request.param]())


@pytest.fixture(scope="module")
def slopes():
    return scattered(MODELS["slopes"]())


def at_draws(m):
    """Yield the fit with the parameters of each draw."""
    p = m._posterior
    for s in range(len(p.sigma)):
        yield replace(
            p.fit,
            beta=p.beta[s],
            b=tuple(b[s] for b in p.b),
            T=tuple(T[s] for T in p.T),
            sigma=p.sigma[s],
        )


def test_linear_predictor_is_that_of_each_draw(model):
    p, design = model._posterior, model.design
    wanted = p.beta @ design.fixed.X.T + (
        0.0 if design.offset is None else design.offset
    )
    for block, b in zip(design.blocks, p.b, strict=True):
        wanted += (block.Z @ b.reshape(len(b), -1).T).T
    found = model.predict(draws=True)
    assert np.allclose(found, wanted, rtol=1e-10)
    assert found.columns.equals(design.row_index)
    table = model.predict(interval="confidence", level=0.8)
    assert np.allclose(table["estimate"], wanted.mean(axis=0), rtol=1e-10)
    assert np.allclose(table["se"], wanted.std(axis=0, ddof=1), rtol=1e-8)
    assert np.allclose(table["lower"], np.quantile(wanted, 0.1, axis=0), rtol=1e-8)
    assert np.allclose(model.fittedvalues, wanted.mean(axis=0), rtol=1e-10)


def test_fixed_effects_are_summarized_by_their_draws(model):
    beta = model._posterior.beta
    assert np.allclose(model.params, beta.mean(axis=0))
    assert np.allclose(model.bse, beta.std(axis=0, ddof=1))
    assert np.allclose(model.cov_params(), np.cov(beta.T))
    limits = model.conf_int(0.9).iloc[: beta.shape[1]]
    assert np.allclose(limits.T, np.quantile(beta, [0.05, 0.95], axis=0))


def test_variances_are_means_over_the_draws(model):
    tables = [mf.result.Result(fit).varcorr for fit in at_draws(model)]
    wanted = np.mean([t[["vcov", "sdcor"]].to_numpy(float) for t in tables], axis=0)
    assert np.allclose(model.varcorr[["vcov", "sdcor"]], wanted, rtol=1e-10)
    assert model.varcorr.iloc[:, :3].equals(tables[0].iloc[:, :3])
    sds = model.variance_parameters()["estimate"]
    assert sds["sigma"] == pytest.approx(model.sigma)
    assert sds.index.tolist() == list(model._posterior.names)


def test_explained_shares_are_those_of_each_draw(model):
    fits = list(at_draws(model))
    wanted = [fit_measures.r2(fit) for fit in fits]
    found = model.r2()
    for name in ("marginal", "conditional"):
        values = [getattr(one, name) for one in wanted]
        assert found.loc[name, "estimate"] == pytest.approx(np.mean(values), rel=1e-9)
        assert found.loc[name, "se"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    values = [fit_measures.icc(fit).adjusted for fit in fits]
    found = model.icc().loc["adjusted"]
    assert found["estimate"] == pytest.approx(np.mean(values), rel=1e-9)
    assert found["upper"] == pytest.approx(np.quantile(values, 0.975), rel=1e-9)


def test_icc_of_several_factors_adds_up():
    table = scattered(MODELS["crossed"]()).icc()["estimate"]
    for kind in ("adjusted", "unadjusted"):
        parts = table[[f"{kind}: plate", f"{kind}: sample"]]
        assert table[kind] == pytest.approx(parts.sum(), rel=1e-12)


def test_random_effects_are_summarized_by_their_draws(slopes):
    b = slopes._posterior.b[0]
    table = slopes.ranef(level=0.5, method="hdi")
    assert table["estimate"].tolist() == pytest.approx(
        b.mean(axis=0).T.ravel().tolist()
    )
    assert table["se"].tolist() == pytest.approx(deviations(b).T.ravel().tolist())
    limits = credible_limits(b, 0.5, "hdi")
    assert table["lower"].tolist() == limits[0].T.ravel().tolist()


def test_variance_function_is_evaluated_at_each_draw(slopes):
    p = slopes._posterior
    Sigma = p.sigma[:, None, None] ** 2 * p.T[0] @ p.T[0].transpose(0, 2, 1)
    z = np.array([1.0, 4.0])
    own = np.einsum("i,sij,j->s", z, Sigma, z)
    found = slopes.vcfun("var(Subject, Days=4) / total(Days=4)", level=0.9)
    wanted = own / (own + p.sigma**2)
    assert np.allclose(found.draws, wanted, rtol=1e-12)
    assert found.lower == pytest.approx(np.quantile(wanted, 0.05))
    assert str(found).startswith("var(Subject, Days=4) / total(Days=4) = 0.")
    table = slopes.vcfun({"r": "cor(Subject, Days=(0, 1))", "s": "sqrt(residual)"})
    assert table.loc["s", "estimate"] == pytest.approx(p.sigma.mean())
    assert table.columns.tolist() == ["estimate", "se", "lower", "upper"]


def test_variance_function_without_a_value_names_the_draw(slopes):
    p = slopes._posterior
    bound = float(p.sigma[0] ** 2 + 1e-6)
    with pytest.raises(mf.InferenceError, match=r"no value at draw \d+ of 40"):
        slopes.vcfun(f"sqrt({bound} - residual)")
    with pytest.raises(mf.InferenceError, match="no variance component 'Subjekt'"):
        slopes.vcfun("Subjekt / residual")


def test_means_are_L_beta_at_each_draw(slopes):
    means = slopes.emmeans("Days", at={"Days": [0, 4, 9]}, level=0.9)
    L = np.array([[1.0, 0.0], [1.0, 4.0], [1.0, 9.0]])
    wanted = slopes._posterior.beta @ L.T
    assert np.allclose(means.L, L)
    assert np.allclose(means.draws, wanted, rtol=1e-12)
    assert means.draws.columns.tolist() == [0, 4, 9]
    table = means.table
    assert np.allclose(table["se"], wanted.std(axis=0, ddof=1), rtol=1e-10)
    assert np.allclose(table["upper"], np.quantile(wanted, 0.95, axis=0))
    hdi = means.conf_int(0.5, "hdi")
    assert np.allclose(hdi["lower"], credible_limits(wanted, 0.5, "hdi")[0])


def test_contrasts_have_the_probability_of_their_direction(slopes):
    means = slopes.emmeans("Days", at={"Days": [0, 4]})
    slope = slopes._posterior.beta[:, 1]
    pair = means.pairs(reverse=True)
    null = float(np.quantile(slope, 0.3))
    share = np.mean(4.0 * slope > 4.0 * null)
    assert pair.test(null=4.0 * null)["pd"].tolist() == pytest.approx([share])
    assert pair.table["pd"].tolist() == [1.0]
    assert pair.to_frame().columns.tolist() == [
        "contrast", "estimate", "se", "lower", "upper", "pd",
    ]  # fmt: skip
    control = means.contrast("trt.vs.ctrl", ref=4)
    assert np.allclose(control.draws.to_numpy()[:, 0], -4.0 * slope)
    assert "Credible limits of level 0.9 " in "\n".join(means.with_level(0.9).notes)
    with pytest.raises(mf.InferenceError, match="null value is nan"):
        pair.test(null=np.nan)


def test_slopes_are_coefficients(slopes):
    assert np.allclose(
        slopes.slopes("Days").draws.to_numpy()[:, 0], slopes._posterior.beta[:, 1]
    )


def test_means_on_the_scale_of_the_response_are_means_of_transformed_draws():
    m = scattered(MODELS["log"]())
    values = np.exp(m.emmeans("half").draws.to_numpy())
    means = m.emmeans("half", type="response")
    assert np.allclose(means.draws, values, rtol=1e-12)
    assert np.allclose(means.table["response"], values.mean(axis=0), rtol=1e-12)
    ratio = means.pairs()
    assert np.allclose(ratio.draws.to_numpy()[:, 0], values[:, 0] / values[:, 1])
    assert ratio.table["ratio"].iloc[0] > 0.0


def test_contrast_matrix_is_tested_at_each_draw(slopes):
    beta = slopes._posterior.beta
    limit = float(np.median(beta[:, 1]))
    table = slopes.test(np.eye(2), [0.0, limit], level=0.5)
    assert table["prob_above"].tolist() == [1.0, 0.5]
    assert np.allclose(table["lower"], np.quantile(beta, 0.25, axis=0))
    with pytest.raises(mf.InferenceError, match="no coefficient 'Day'"):
        slopes.test({"Day": 1})


def test_shortest_interval_is_that_of_arviz():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    draws = np.random.default_rng(3).gamma(2.0, size=501)
    for level in (0.5, 0.9, 0.95):
        found = credible_limits(draws, level, "hdi")
        assert np.allclose(found, arviz.hdi(draws, hdi_prob=level))


def test_limits_of_a_wrong_kind_are_refused(slopes):
    with pytest.raises(mf.InferenceError, match=r"Unknown method 'hpd'") as failure:
        slopes.conf_int(method="hpd")
    assert "Did you mean 'hdi'?" in str(failure.value)
    with pytest.raises(mf.InferenceError, match=r"Write level=0.95"):
        slopes.conf_int(0.05)
    with pytest.raises(mf.InferenceError, match="no parameter 'sd'"):
        slopes.conf_int(parameters="sd")
    assert len(slopes.conf_int(parameters=["sigma", "Days"])) == 2


def test_draws_without_effects_count_for_the_variances_only():
    result = MODELS["slopes"]()
    few = scattered(result, effects=[0, 13, 26, 39])
    every = scattered(result)
    assert few.sigma == every.sigma
    keep = every._posterior.beta[[0, 13, 26, 39]]
    assert np.allclose(few.params, keep.mean(axis=0))
    values = every.predict(draws=True).to_numpy()[[0, 13, 26, 39]]
    assert np.allclose(few.predict(draws=True), values, rtol=1e-12)
    assert few.simulate(6, seed=1).shape == (180, 6)
    assert len(few.vcfun("residual").draws) == 40
    assert any("drawn for 4 of the 40 draws" in note for note in few.notes)
    one = scattered(result, effects=[3])
    assert np.isnan(one.bse).all()
    assert np.isnan(one.predict(se=True)["se"]).all()
