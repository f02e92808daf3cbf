"""How draws are summarized: posterior mean, standard deviation, credible limits.

Goes in: arrays whose first axis is the draw. Every quantity of a model that is a
function of its parameters is that function at each draw.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Matrix, Stack
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.intervals import require_level

LIMITS = ("eti", "hdi")


def credible_limits(values: AnyArray, level: float, method: str = "eti") -> AnyArray:
    """Return lower and upper limits, (2, ...), of draws (S, ...).

    Parameters
    ----------
    method : "eti", equal tails; "hdi", the shortest interval that holds the share
        ``level`` of the draws (Chen and Shao 1999, J. Comput. Graph. Stat. 8, 69)

    Raises
    ------
    InferenceError : unknown method, or level outside (0, 1)

    Examples
    --------
    >>> draws = np.array([0.0, 1.0, 2.0, 3.0, 40.0])
    >>> (
    ...     credible_limits(draws, 0.5).tolist(),
    ...     credible_limits(draws, 0.7, "hdi").tolist(),
    ... )
    ([1.0, 3.0], [0.0, 3.0])
    """
    require_level(level)
    if method not in LIMITS:
        raise InferenceError(
            f"Unknown method {method!r} of credible limits.",
            hint=suggest(str(method), LIMITS, "Methods"),
        )
    if method == "eti":
        tail = 0.5 * (1.0 - level)
        return np.quantile(values, [tail, 1.0 - tail], axis=0)
    ordered = np.sort(values, axis=0)
    inside = min(int(level * len(values)), len(values) - 1)
    first = np.argmin(ordered[inside:] - ordered[: len(values) - inside], axis=0)
    ends = [np.take_along_axis(ordered, first[None] + k, axis=0) for k in (0, inside)]
    return np.concatenate(ends)


def summarized(
    values: Matrix, index: object, level: float, method: str = "eti"
) -> pd.DataFrame:
    """Return ``estimate, se, lower, upper`` of draws (S, c): mean, SD, limits.

    Parameters
    ----------
    index : (c,) labels
    """
    lower, upper = credible_limits(values, level, method)
    columns = {"estimate": values.mean(axis=0), "se": deviations(values)}
    return pd.DataFrame(
        columns | {"lower": lower, "upper": upper},
        index=index,  # pyright: ignore[reportArgumentType]
    )


def deviations(values: AnyArray) -> AnyArray:
    """Return the standard deviation of draws (S, ...); zero of equal ones, exactly.

    NaN of a single draw.
    """
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.std(values - values[0], axis=0, ddof=1)


def covariance_draws(posterior: Posterior) -> tuple[Stack, ...]:
    """Return Var(b of a level) of each random term at each draw, (S, k, k)."""
    variance = posterior.sigma[:, None, None] ** 2
    return tuple(variance * T @ T.transpose(0, 2, 1) for T in posterior.T)


def covariance_of(values: Matrix) -> Matrix:
    """Return the covariance (c, c) of draws (S, c); NaN of a single one."""
    if len(values) < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    apart = values - values[0]
    apart = apart - apart.mean(axis=0)
    return apart.T @ apart / (len(values) - 1)


def at_means(posterior: Posterior) -> Fit:
    """Return the fit with beta and b at their posterior means.

    For what is linear in them: that is then the posterior mean. Its variances are those
    of REML still, and not to be read.
    """
    return replace(
        posterior.fit,
        beta=posterior.beta.mean(axis=0),
        b=tuple(b.mean(axis=0) for b in posterior.b),
    )


def of_effects(posterior: Posterior, values: AnyArray) -> AnyArray:
    """Return those (E, ...) of the draws (S, ...) that have beta and b."""
    return values[posterior.effects]
