"""What users hold after fit(method="Bayes"), and what they are told it has not."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import mixform as mf
from mixform.inference.posterior.refusals import INSTEAD
from mixform.result import BayesResult, Result
from tests.posteriors import MODELS, constant, posterior_of, scattered, sleep

pytest.importorskip("nutpie")
pytest.importorskip("arviz")

CONTROL = {"draws": 200, "tune": 200, "chains": 2, "cores": 1, "seed": 1}


def sampled(formula, data, **arguments):
    """Fit; that there are few draws for some quantiles is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.ConvergenceWarning)
        return mf.fit(formula, data, method="Bayes", control=CONTROL, **arguments)


@pytest.fixture(scope="module")
def m():
    return sampled("Reaction ~ Days + (Days|Subject)", sleep())


@pytest.fixture(scope="module")
def made():
    return scattered(MODELS["slopes"]())


def test_balanced_data_have_the_mean_that_reml_estimates(m):
    """With balanced data the estimate of beta does not depend on the variances."""
    reml = m.reml
    error = m.bse / np.sqrt(400.0)
    assert (np.abs(m.params - reml.params) < 4.0 * error).all()
    own, other = (x.emmeans("Days", at={"Days": [0, 9]}) for x in (m, reml))
    table, wanted = own.table, other.table
    apart = np.abs(table["emmean"] - wanted["emmean"])
    assert (apart < 4.0 * table["se"] / 20.0).all()
    assert np.allclose(table["se"], wanted["se"], rtol=0.3)
    effects = np.abs(m.ranef()["estimate"] - reml.ranef()["estimate"])
    assert (effects < 0.35 * m.ranef()["se"]).all()


def test_print_shows_priors_parameters_and_convergence(m):
    text = str(m)
    assert text.startswith("Linear mixed model by Bayes. 2 chains of 200 draws\n")
    for part in (
        "Formula: Reaction ~ Days + (Days|Subject)",
        "sd(Subject: Days)      half_t(3, ",
        "cor(Subject)           lkj(1)",
        "fixed effects          flat",
        "Estimate Est.Error",
        "R-hat Bulk ESS Tail ESS",
        "Number of obs: 180, groups: Subject, 18",
        "Fixed effects:",
        "limits: 95 % credible",
    ):
        assert part in text, part
    assert "limits: 90 % credible" in str(m.summary(level=0.9))
    assert "<table" in m._repr_html_()
    assert r"\begin{tabular}" in m.summary().as_latex()


def test_covariate_far_from_zero_is_noted(m):
    """Days 0 to 9, from 200: mean over standard deviation 204.5 / sqrt(8.25)."""
    late = sleep().assign(Days=sleep()["Days"] + 200.0)
    far = sampled("Reaction ~ Days + (Days | Subject)", late)
    assert far.notes[0] == (
        "Days of Subject is 71 standard deviations from zero. Priors of intercepts, "
        "which are at zero, shrink the variance of slopes: center Days."
    )
    apart = sampled("Reaction ~ Days + (Days || Subject)", late)
    for other in (m, apart):
        assert not any("from zero" in one for one in other.notes)


def test_one_chain_is_called_so():
    control = {**CONTROL, "chains": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.ConvergenceWarning)
        one = mf.fit("Reaction ~ Days", sleep(), method="Bayes", control=control)
    assert "1 chain of 200 draws" in str(one)


def test_same_seed_gives_the_same_draws(m):
    again = m.update(progress=False) if m.converged else None
    if again is None:
        with pytest.warns(mf.ConvergenceWarning):
            again = m.update()
    assert np.array_equal(again._posterior.beta, m._posterior.beta)
    assert np.array_equal(again.log_posterior, m.log_posterior)


def test_prior_is_used_and_shown(m):
    tight = sampled(
        "Reaction ~ Days + (1|Subject)",
        sleep(),
        prior={"Subject": mf.priors.half_t(3, 0.5)},
    )
    assert "half_t(3, 0.5)" in str(tight.priors)
    known = tight.variance_parameters()["estimate"]
    assert known["sd(Subject: Intercept)"] < tight.reml.varcorr["sdcor"].iloc[0]


def test_update_keeps_method_and_prior(m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.ConvergenceWarning)
        other = m.update(". ~ . - Days")
    assert isinstance(other, BayesResult)
    assert other.params.index.tolist() == ["Intercept"]
    by_ml = m.update(method="ML")
    assert isinstance(by_ml, Result)
    assert by_ml.method == "ML"
    with pytest.raises(mf.MixformError, match="does not know the data"):
        BayesResult(m._posterior).update()


def test_update_of_a_fit_draws_from_its_posterior(m):
    formula = "Reaction ~ Days + (Days|Subject)"
    fit = mf.fit(formula, sleep(), control={"max_evaluations": 300}, start=[1, 0, 0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.ConvergenceWarning)
        drawn = fit.update(method="Bayes", control=CONTROL, progress=False)
        known = sampled(formula, sleep())
    assert isinstance(drawn, BayesResult)
    assert np.array_equal(drawn._posterior.beta, known._posterior.beta)
    with pytest.raises(mf.DesignError, match="varcomp"):
        fit.update(method="Bayes", varcomp={"residual": 600.0})


def test_reml_is_the_same_model(m):
    known = mf.fit("Reaction ~ Days + (Days|Subject)", sleep())
    assert m.reml.criterion == pytest.approx(known.criterion, abs=1e-6)
    assert m.reml.update(". - Days").method == "REML"


def test_pickle_gives_the_same_posterior(m):
    assert m.posterior is not None
    again = pickle.loads(pickle.dumps(m))
    assert again.params.equals(m.params)
    assert str(again) == str(m)


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_what_a_posterior_has_not_is_named(made, name):
    assert not hasattr(made, name)
    assert hasattr(Result, name), "nothing that nobody has"
    with pytest.raises(mf.InferenceError, match=f"A posterior has no {name}.") as told:
        getattr(made, name)
    where = f'fit(method="REML") has it: m.reml.{name}.'
    if name == "mean_squares":
        where = 'fit(method="ANOVA") has them.'
    assert where in str(told.value)


def test_everything_of_a_result_is_there_or_refused_with_a_reason():
    public = {name for name in dir(Result) if not name.startswith("_")}
    assert public <= {*dir(BayesResult), *INSTEAD}


def test_misspelled_attribute_has_a_suggestion(made):
    with pytest.raises(AttributeError, match="no attribute 'parms'") as told:
        _ = made.parms
    assert "Did you mean 'params'?" in str(told.value)


@pytest.mark.parametrize("function", ["compare", "bootstrap_lrt", "scan"])
def test_functions_of_a_likelihood_refuse_a_posterior(made, function):
    with pytest.raises(
        mf.InferenceError, match="no likelihood that was maximized"
    ) as x:
        getattr(mf, function)(made, made)
    assert "arviz.loo(m.posterior)" in str(x.value)


def test_posterior_is_not_saved_as_a_model(made, tmp_path):
    with pytest.raises(mf.InferenceError, match="not saved as a model") as told:
        made.save("draws.nc")
    assert "posterior.to_netcdf('draws.nc')" in str(told.value)


def test_arguments_of_other_methods_are_refused():
    data = sleep()
    formula = "Reaction ~ Days + (1|Subject)"
    with pytest.raises(mf.DesignError, match="prior= has no use in method='REML'"):
        mf.fit(formula, data, prior={"Subject": mf.priors.half_t()})
    for arguments in ({"varcomp": {"Subject": 1.0}}, {"start": [1.0]}):
        name = next(iter(arguments))
        with pytest.raises(mf.DesignError, match=f"{name}= has no use") as told:
            mf.fit(formula, data, method="bayes", **arguments)
        assert "is a prior" in str(told.value)
    with pytest.raises(mf.DesignError, match="Unknown method 'BAYS'") as told:
        mf.fit(formula, data, method="Bays")
    assert "Did you mean 'BAYES'?" in str(told.value)


def test_doubtful_chains_are_warned_of(monkeypatch):
    fit = MODELS["slopes"]()._fit
    doubt = ("The chains disagree: R-hat of sigma is 1.300, above 1.01.",)
    posterior = posterior_of(
        fit, [(fit.T, fit.sigma, fit.beta, fit.b)] * 8, warnings=doubt
    )
    monkeypatch.setattr("mixform.result.fitted.draw", lambda call, progress: posterior)
    with pytest.warns(mf.ConvergenceWarning, match="chains disagree") as caught:
        m = mf.fit("Reaction ~ Days + (Days|Subject)", sleep(), method="Bayes")
    assert caught[0].filename == __file__
    assert not m.converged
    assert "Note: The chains disagree" in str(m)
    assert constant(MODELS["slopes"]()).converged


def test_model_without_random_effects():
    m = sampled("Reaction ~ Days", sleep())
    assert str(m).startswith("Linear model by Bayes")
    assert "Residual standard deviation:" in str(m)
    assert m.ranef().empty
    assert m.caterpillar().empty
    assert m.coef() == {}
    assert m.varcorr["grp"].tolist() == ["Residual"]
    # p(sigma^2) flat on sigma: (n - 3) s^2 / sigma^2 is nearly chi-square
    assert m.sigma == pytest.approx(m.reml.sigma, rel=0.05)
    assert 0.0 < m.r2().loc["marginal", "estimate"] < 1.0


def test_importing_mixform_does_not_import_the_samplers():
    program = (
        "import sys, mixform as mf; mf.fit('Yield ~ 1 + (1|Batch)', "
        "mf.datasets.load('Dyestuff'));"
        "print([m for m in ('nutpie', 'arviz', 'xarray') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_infinite_posterior_mean_is_noted():
    few = sleep().query("Subject in ['308', '309', '310']")
    drawn = sampled(
        "Reaction ~ Days + (1 | Subject)",
        few,
        prior={"Subject": mf.priors.flat("sd")},
    )
    assert drawn.notes[0] == (
        "the posterior mean of sd(Subject: Intercept) is infinite: the prior is flat, "
        "and the data have 2 contrasts that bear on it. Read the limits, or give "
        "half_t()."
    )
