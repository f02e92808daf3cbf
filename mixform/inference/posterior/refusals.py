"""What a model by REML has and a posterior has not, and what it has instead."""

from __future__ import annotations

from typing import NoReturn

from mixform.errors import InferenceError, suggest

_TESTS = (
    "It has probabilities, test(L) and emmeans(...).pairs(), and limits, conf_int().",
)
_LIKELIHOOD = (
    "Compare posteriors by their predictions: arviz.loo(m.posterior), "
    'arviz.compare({"a": m1.posterior, "b": m2.posterior}).',
)
_SPREAD = ("Its draws say how uncertain it is: conf_int(), vcfun(...).draws.",)
_PLOT = ("Draw with ArviZ: arviz.plot_trace(m.posterior), arviz.plot_ppc(...).",)
_ESTIMATE: tuple[str, ...] = ()

#: Name of a Result's attribute -> what a posterior has in its place, if anything.
INSTEAD = {
    **dict.fromkeys(("pvalues", "tvalues", "ddf", "anova", "joint_tests"), _TESTS),
    **dict.fromkeys(("drop1", "robust", "ranova", "step", "power"), _TESTS),
    **dict.fromkeys(("llf", "criterion", "deviance", "aic", "bic"), _LIKELIHOOD),
    **dict.fromkeys(("npar", "df_resid", "glance"), _LIKELIHOOD),
    **dict.fromkeys(("profile", "bootstrap", "cov_varcorr", "condvar"), _SPREAD),
    **dict.fromkeys(("theta", "rho", "convergence", "singular", "refit"), _ESTIMATE),
    **dict.fromkeys(("leverage", "influence", "cooks_distance"), _ESTIMATE),
    **dict.fromkeys(("ranef_without", "residuals", "equations", "pca"), _ESTIMATE),
    **dict.fromkeys(("random_parameters", "residual_parameters"), _ESTIMATE),
    **dict.fromkeys(("residual_covariance", "tidy", "augment", "model"), _ESTIMATE),
    **dict.fromkeys(("rss", "overall_test", "matrices", "mean_squares"), _ESTIMATE),
    "plot": _PLOT,
}


class PosteriorAttributeError(InferenceError, AttributeError):
    """A posterior has no such thing; an AttributeError, so that hasattr says so."""


def refuse_attribute(name: str, known: list[str]) -> NoReturn:
    """Refuse an attribute that a posterior does not have.

    Parameters
    ----------
    known : those it has

    Raises
    ------
    PosteriorAttributeError : says what there is instead
    """
    if name in INSTEAD:
        by_reml = f'fit(method="REML") has it: m.reml.{name}.'
        if name == "mean_squares":
            by_reml = 'fit(method="ANOVA") has them.'
        raise PosteriorAttributeError(
            f"A posterior has no {name}.", hint=" ".join([*INSTEAD[name], by_reml])
        )
    raise PosteriorAttributeError(
        f"A posterior has no attribute {name!r}.", hint=suggest(name, known, "It has")
    )


def refuse_model(what: str) -> NoReturn:
    """Refuse a posterior where a function needs a maximized likelihood.

    Raises
    ------
    InferenceError : says what there is instead
    """
    raise InferenceError(
        f"A posterior has no {what}.",
        hint=" ".join([*_LIKELIHOOD, 'fit(method="REML"): m.reml is the same model.']),
    )
