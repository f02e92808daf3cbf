"""Profile likelihood of every parameter, of the criterion that was fitted.

A parameter is fixed at a value, the criterion minimized over all others, and zeta =
sign(value - estimate) sqrt(rise of the criterion) compared with normal quantiles.
Under ML the criterion is the deviance. Under REML, variance parameters are profiled by
the REML criterion, and fixed effects by the adjusted likelihood of Welham and Thompson
(1997, J. R. Stat. Soc. B 59, 701), which equals it at its minimum; nothing is refitted
by ML, as lme4 does, so a limit belongs to the estimate that it is a limit of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import chdtri

from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.known import require_free
from mixform.inference.intervals import require_level
from mixform.inference.profile.parameters import (
    Parameter,
    Profiler,
    choose,
    list_parameters,
)
from mixform.inference.profile.path import Knot, find_limit, walk
from mixform.inference.profile.record import (
    Curve,
    LimitsRow,
    Profile,
    limits_frame,
    limits_row,
    normal_quantile,
)
from mixform.mme import few_threads
from mixform.progress import Progress


def profile(
    fit: Fit,
    *,
    parameters: str | Sequence[str] | None = None,
    level: float = 0.99,
    progress: bool | None = None,
) -> Profile:
    """Profile the criterion that was fitted.

    Parameters
    ----------
    parameters : names, also lme4's (``.sig01``); None profiles all
    level : of the joint region that the profiles reach over, of all parameters
        together: |zeta| up to the root of the chi-square quantile, as lme4's
    progress : True from the start, False never, None after a few seconds

    Raises
    ------
    InferenceError : unknown parameter; level not between 0 and 1; the fit is not at
        a certified minimum
    """
    require_free(fit, "A profile")
    require_level(level)
    every = list_parameters(fit)
    chosen = choose(every, parameters)
    _require_minimum(fit)
    cutoff = float(np.sqrt(chdtri(fit.n_parameters, 1.0 - level)))
    names = tuple(p.name for p in every if not np.isnan(p.estimate) or p.kind == "cor")
    profiler = Profiler(fit)
    curves: dict[str, Curve] = {}
    with (
        few_threads(fit.evaluation.problem.equations),
        Progress(progress, len(chosen), "profiles") as bar,
    ):
        for parameter in chosen:
            if parameter.obstacle is None:
                curves[parameter.name] = _curve(profiler, parameter, cutoff)
            bar.advance()
    return Profile(
        method=fit.method,
        formula=fit.design.formula.source,
        names=names,
        curves=curves,
        missing={p.name: p.obstacle for p in chosen if p.obstacle is not None},
        cutoff=cutoff,
    )


def profile_interval(
    fit: Fit,
    parameters: str | Sequence[str] | None = None,
    level: float = 0.95,
    *,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Find the limits alone: where |zeta| is the normal quantile.

    Parameters
    ----------
    parameters : names, also lme4's (``.sig01``); None takes all
    level : confidence level

    Returns
    -------
    frame : ``estimate, lower, upper, reason`` by parameter; reason says why a limit
        is one-sided or NaN, and is empty otherwise

    Raises
    ------
    InferenceError : as `profile`
    """
    require_free(fit, "A profile")
    quantile = normal_quantile(level)
    chosen = choose(list_parameters(fit), parameters)
    _require_minimum(fit)
    profiler = Profiler(fit)
    rows: dict[str, LimitsRow] = {}
    with (
        few_threads(fit.evaluation.problem.equations),
        Progress(progress, len(chosen), "intervals") as bar,
    ):
        for parameter in chosen:
            lower = upper = (np.nan, parameter.obstacle or "")
            if parameter.obstacle is None:
                path = profiler.path(parameter)
                lower = find_limit(path, -1.0, quantile)
                upper = find_limit(path, 1.0, quantile)
            rows[parameter.name] = limits_row(parameter.estimate, lower, upper)
            bar.advance()
    return limits_frame(rows)


def _require_minimum(fit: Fit) -> None:
    if not fit.convergence.converged:
        raise InferenceError(
            "A profile starts from the minimum; this fit is "
            f"{fit.convergence.message}.",
            hint="Simplify the random part, or raise max_evaluations of control=.",
        )


def _curve(profiler: Profiler, parameter: Parameter, cutoff: float) -> Curve:
    """Return the profile of one parameter."""
    fit = profiler.fit
    path = profiler.path(parameter)
    reasons: list[str | None] = []
    sides: list[list[Knot]] = []
    for direction in (-1.0, 1.0):
        knots, reason = walk(path, direction, cutoff=cutoff, step=cutoff / 8.0)
        sides.append(knots)
        reasons.append(reason)
    knots = [*sides[0][::-1], path.first(), *sides[1]]
    constant = fit.criterion - fit.evaluation.criterion
    criterion = [
        path.origin.criterion if k.minimum is None else k.minimum.value.criterion
        for k in knots
    ]
    return Curve(
        parameter=parameter,
        coordinates=path.coordinates,
        kappa=np.array([knot.kappa for knot in knots]),
        zeta=np.array([knot.zeta for knot in knots]),
        slope=np.array([knot.slope for knot in knots]),
        criterion=constant + np.array(criterion),
        others=profiler.describe(knots),
        lower_reason=reasons[0],
        upper_reason=reasons[1],
    )
