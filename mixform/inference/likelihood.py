"""Likelihoods and information criteria, counted as lme4 counts them."""

from __future__ import annotations

import numpy as np

from mixform.estimate import Fit
from mixform.estimate.criterion import LOG_2_PI


def deviance(fit: Fit) -> float:
    """Return -2 log likelihood (ML) at the estimates, REML ones included."""
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
    return fit.criterion + 2.0 * fit.n_parameters


def bic(fit: Fit) -> float:
    """Return criterion + log(n) npar."""
    return fit.criterion + float(np.log(fit.n)) * fit.n_parameters
