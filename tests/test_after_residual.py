"""Everything after the fit, with residual structures; nlme's values."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform import cli, datasets
from mixform.errors import InferenceError, MixformError
from tests.residual_models import MODELS, dense, dense_G, fit_of, longitudinal, name_of

REFERENCES = Path(__file__).parent / "references"


def read_reference(name):
    """Values by name: ``# model what``, then the numbers."""
    out = {}
    for block in (REFERENCES / name).read_text().split("# ")[1:]:
        head, _, numbers = block.partition("\n")
        out[head.strip()] = np.array([float(x) for x in numbers.split()])
    return out


NLME = read_reference("after_residual.txt")

#: Formula, residual and dispersion of the models of after_residual.R.
AS_NLME = {
    "us": ("", "us(age | Subject)", None),
    "ar1": ("", "ar1(visit | Subject)", None),
    "car1": ("", "car1(age | Subject)", "~ Sex"),
    "exp": ("", "exp(age | Subject)", None),
    "cs": ("", "cs(visit | Subject)", None),
    "mixed": (" + (1 | Subject)", "ar1(visit | Subject)", "~ Sex"),
}


def orthodont():
    data = datasets.load("Orthodont")
    return data.assign(visit=(data.age - 6) // 2)


def as_nlme(name):
    random, residual, dispersion = AS_NLME[name]
    return mf.fit(
        f"distance ~ age * Sex{random}",
        orthodont(),
        residual=residual,
        dispersion=dispersion,
    )


@pytest.mark.parametrize("name", AS_NLME)
class TestNlme:
    def test_likelihood_is_no_lower(self, name):
        m = as_nlme(name)
        expected = NLME[f"{name} logLik"][0]
        # nlme's treatment coding of Sex is the same, so its constant is.
        assert m.llf >= expected - 1e-6
        assert m.llf == pytest.approx(expected, abs=1e-4)

    def test_residuals(self, name):
        m = as_nlme(name)
        slack = 5e-3 if name == "mixed" else 2e-4
        np.testing.assert_allclose(m.fittedvalues, NLME[f"{name} fitted"], atol=slack)
        scaled = m.residuals("pearson")
        np.testing.assert_allclose(scaled, NLME[f"{name} pearson"], atol=slack)
        found, expected = m.residuals("normalized"), NLME[f"{name} normalized"]
        if name == "cs":  # nlme takes another root of R here
            subjects = orthodont().Subject
            found, expected = (
                (z**2).groupby(subjects, observed=True).sum()
                for z in (found, pd.Series(expected))
            )
        np.testing.assert_allclose(found, expected, atol=slack)


def test_predictions_are_nlmes():
    new = pd.DataFrame({"age": [9, 15], "Sex": ["Female", "Male"]})
    new = new.assign(Subject=["F03", "M07"], visit=[2, 5])
    for name, slack in (("ar1", 1e-5), ("mixed", 5e-3)):
        found = as_nlme(name).predict(new)
        np.testing.assert_allclose(found, NLME[f"{name} predict"], atol=slack)


def test_wald_limits_are_nlmes():
    found = as_nlme("ar1").residual_parameters(level=0.95)
    for name, mine in (("rho", "rho"), ("sigma", "sd")):
        np.testing.assert_allclose(
            found.loc[mine, ["lower", "estimate", "upper"]],
            NLME[f"ar1 {name}"],
            rtol=2e-3,
        )


def test_wald_limits_hold_the_fixed_effects_and_the_residuals():
    m = as_nlme("ar1")
    found = m.conf_int(method="wald")
    assert list(found.index) == [*m.params.index, "sd", "rho"]
    np.testing.assert_allclose(
        found.loc["rho"], m.residual_parameters(0.95).loc["rho", ["lower", "upper"]]
    )
    assert list(m.conf_int().index) == list(m.params.index)


def test_likelihood_ratios_are_nlmes():
    iid = mf.fit("distance ~ age * Sex", orthodont())
    table = mf.compare(iid, as_nlme("ar1"), as_nlme("us"))
    np.testing.assert_array_equal(table.npar, NLME["anova df"])
    np.testing.assert_allclose(table.aic, NLME["anova AIC"], atol=2e-4)
    np.testing.assert_allclose(table.chisq[1:], NLME["anova ratio"], atol=2e-4)
    np.testing.assert_allclose(table.p_value[1:], NLME["anova p"], rtol=1e-3)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
class TestEveryModel:
    def test_file_gives_the_same_model(self, model, tmp_path):
        m = fit_of(model)
        m.save(tmp_path / "m.mixform")
        again = mf.load(tmp_path / "m.mixform")
        assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
        assert str(again) == str(m)
        np.testing.assert_array_equal(again._fit.rho, m._fit.rho)
        copy = pickle.loads(pickle.dumps(m))
        assert str(copy) == str(m)

    def test_refit_to_its_own_response_changes_nothing(self, model):
        m = fit_of(model)
        assert m.refit(m.design.y).criterion == pytest.approx(m.criterion, abs=1e-8)

    def test_update_keeps_and_changes_the_structure(self, model):
        m = fit_of(model)
        more = m.update(". ~ . + lat")
        assert more.design.residual.term == m.design.residual.term
        assert more.npar == m.npar + 1
        plain = m.update(residual=None, dispersion=None)
        assert plain.design.residual is None

    def test_frames_have_the_residuals(self, model):
        m = fit_of(model)
        pars = m.tidy("ran_pars", conf_int=True)
        own = pars[pars.group == "Residual"]
        table = m.residual_parameters(0.95)
        assert list(own.term) == list(table.index)
        np.testing.assert_array_equal(own["std.error"], table.se)
        np.testing.assert_array_equal(own["conf.low"], table.lower)
        inside = table[table.se.notna()]
        assert (
            (inside.lower < inside.estimate) & (inside.estimate < inside.upper)
        ).all()
        augmented = m.augment(longitudinal())
        assert set(m.design.residual.columns) <= set(augmented.columns)
        np.testing.assert_array_equal(augmented[".hat"], m.leverage())
        assert m.glance()["logLik"].iloc[0] == m.llf

    def test_summary_scales_residuals_by_their_own_deviation(self, model):
        m = fit_of(model)
        R = dense(m)[0]
        z = m.resid / m.sigma / np.sqrt(np.diag(R))
        line = str(m).split("Scaled residuals:\n")[1].split("\n")[1].split()
        expected = np.quantile(z, [0.0, 0.25, 0.5, 0.75, 1.0])
        np.testing.assert_allclose([float(x) for x in line], expected, atol=6e-5)

    def test_variance_shares_count_the_mean_residual_variance(self, model):
        m = fit_of(model)
        R, V, _, X = dense(m)
        fixed = np.var(X @ m.params, ddof=1)
        residual, total = (m.sigma**2 * np.mean(np.diag(A)) for A in (R, V))
        found = m.r2()
        assert found.marginal == pytest.approx(fixed / (fixed + total))
        share = (fixed + total - residual) / (fixed + total)
        assert found.conditional == pytest.approx(share)
        if m.design.blocks:
            assert m.icc().adjusted == pytest.approx(1.0 - residual / total)

    def test_random_effects_and_their_errors(self, model):
        m = fit_of(model)
        if not m.design.blocks:
            assert len(m.ranef()) == 0
            return
        _, V, P, _ = dense(m)
        Z, G = m.design.Z.toarray(), dense_G(m)
        b = G @ Z.T @ P @ m.design.y
        known = m.sigma**2 * np.diag(G - G @ Z.T @ np.linalg.solve(V, Z @ G))
        pev = m.sigma**2 * np.diag(G - G @ Z.T @ P @ Z @ G)
        parts, start = [], 0
        for block in m.design.blocks:
            end = start + block.m * block.k
            parts += [
                values[start:end].reshape(block.m, block.k).T.ravel()
                for values in (b, known, pev)
            ]
            start = end
        found = m.ranef(pev=True)
        for column, k in (("estimate", 0), ("se", 1), ("pev", 2)):
            expected = np.concatenate(parts[k::3])
            values = found[column] ** 2 if column == "se" else found[column]
            np.testing.assert_allclose(values, expected, atol=1e-9)


def test_deviance_of_a_restricted_fit_is_that_of_the_likelihood():
    m = fit_of(("y ~ x + (1 | site)", "csh(visit | id)", "~ arm", "w"))
    _, V, P, _ = dense(m)
    y, n = m.design.y, m.nobs
    expected = np.linalg.slogdet(V)[1] + n * (1 + np.log(2 * np.pi * (y @ P @ y) / n))
    assert m.deviance == pytest.approx(expected)


def test_lme4_has_no_such_model():
    with pytest.raises(InferenceError, match="independent residuals"):
        mf.compare_lme4(fit_of(MODELS[0]), program_only=True)


def test_figures_of_correlated_residuals():
    pytest.importorskip("matplotlib").use("Agg")
    m = fit_of(("y ~ x", "ar1(visit | id)", None, None))
    drawn = np.sort(m.plot.qq("normalized").collections[0].get_offsets()[:, 1])
    np.testing.assert_allclose(drawn, np.sort(m.residuals("normalized")))
    for kind in ("zeta", "density", "pairs"):
        m.plot.profile(["sd", "rho"], kind)
    from matplotlib import pyplot

    pyplot.close("all")


def test_command_line(tmp_path, capsys):
    data = longitudinal()
    data.to_csv(tmp_path / "d.csv", index=False)
    arguments = ["y ~ x", str(tmp_path / "d.csv"), "--residual", "ar1(visit | id)"]
    assert cli.main([*arguments, "--dispersion", "~ arm"]) == 0
    out = capsys.readouterr().out
    assert "Residual structure: ar1(visit | id), dispersion ~ arm[T.b]" in out
    assert re.search(r"\n rho +0\.", out)
    assert cli.main([*arguments[:2], "--residual", "ar2(visit | id)"]) == 2


def test_columns_of_the_structure_are_those_of_the_file(tmp_path):
    """A file keeps columns that only the structure uses; changed ones are refused."""
    data = longitudinal()
    m = mf.fit("y ~ 1", data, residual="ar1(visit | id)", dispersion="~ x")
    m.save(tmp_path / "m.mixform")
    again = mf.load(tmp_path / "m.mixform")
    found = again.update(residual="cs(visit | id)")
    expected = m.update(residual="cs(visit | id)")
    assert found.criterion == pytest.approx(expected.criterion, abs=1e-8)


def test_newer_format_is_only_written_where_it_is_needed(tmp_path):
    for m, number in ((mf.fit("y ~ x", longitudinal()), 1), (fit_of(MODELS[0]), 2)):
        m.save(tmp_path / "m.mixform")
        with zipfile.ZipFile(tmp_path / "m.mixform") as archive:
            assert json.loads(archive.read("header.json"))["format"] == number


@pytest.mark.parametrize(("unit", "origin"), [(1e6, 1e7), (1e-3, 0.0), (1.0, 1e4)])
def test_dispersion_does_not_depend_on_the_units_of_its_columns(unit, origin):
    """A covariate such as a year, far from zero, gives the fit of a centred one."""
    data = longitudinal()
    near = mf.fit("y ~ arm", data, dispersion="~ x")
    far = mf.fit("y ~ arm", data.assign(x=unit * data["x"] + origin), dispersion="~ x")
    assert far.converged
    assert far.criterion == pytest.approx(near.criterion, abs=1e-6)
    expected, found = (m.residual_parameters().loc["log sd: x"] for m in (near, far))
    np.testing.assert_allclose(unit * found, expected, rtol=1e-5)
    np.testing.assert_allclose(far.ddf, near.ddf, rtol=1e-4)


def test_sd_of_a_dispersion_far_from_zero_is_at_its_mean():
    data = longitudinal().assign(year=lambda d: 2010.0 + d["x"])
    m = mf.fit("y ~ arm", data, dispersion="~ year")
    near = mf.fit("y ~ arm", data, dispersion="~ x").residual_parameters()["estimate"]
    at_mean = near["sd"] * np.exp(near["log sd: x"] * data["x"].mean())
    assert m.sigma == pytest.approx(at_mean, rel=1e-6)
    assert m.residual_parameters().loc["sd", "estimate"] == m.sigma
    assert f"(sd at year {data['year'].mean():g})" in str(m.summary())
    assert np.allclose(
        m.simulate(2, seed=1),
        mf.fit("y ~ arm", data, dispersion="~ x").simulate(2, seed=1),
        atol=1e-5,
    )


def test_no_parameters_of_independent_residuals():
    m = mf.fit("y ~ x", longitudinal())
    with pytest.raises(MixformError, match="independent with equal variance"):
        m.residual_parameters(0.95)
