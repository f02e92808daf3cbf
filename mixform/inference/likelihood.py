"""Likelihoods and information criteria, counted as lme4 counts them."""

from __future__ import annotations

import numpy as np

from mixform.estimate import Fit
from mixform.estimate.criterion import LOG_2_PI
from mixform.estimate.known import require_likelihood


def criterion(fit: Fit) -> float:
    """Return the criterion that was minimized.

    Raises
    ------
    InferenceError : nothing was minimized; as all here
    """
    require_likelihood(fit, "A criterion")
    return fit.criterion


def deviance(fit: Fit) -> float:
    """Return -2 log likelihood (ML) at the estimates, REML ones included."""
    require_likelihood(fit, "A deviance")
    if fit.method == "ML":
        return fit.criterion
    here = fit.evaluation
    problem = here.problem
    logdets = here.factor.logdet - problem.logdet_P + problem.logdet_R
    n = problem.n
    scale = here.r2 * problem.y_scale**2 / n
    return logdets + n * (1.0 + LOG_2_PI + float(np.log(scale)))


def aic(fit: Fit) -> float:
    """Return criterion + 2 npar."""
    require_likelihood(fit, "AIC")
    return fit.criterion + 2.0 * fit.n_parameters


def bic(fit: Fit) -> float:
    """Return criterion + log(n) npar."""
    require_likelihood(fit, "BIC")
    return fit.criterion + float(np.log(fit.n)) * fit.n_parameters
