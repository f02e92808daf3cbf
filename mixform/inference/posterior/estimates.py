"""Fixed effects, variance parameters and random effects as frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.intervals import chosen_rows, require_level
from mixform.inference.posterior.draws import (
    covariance_draws,
    covariance_of,
    credible_limits,
    deviations,
    summarized,
)
from mixform.inference.prediction import chosen_blocks
from mixform.inference.variance_components import block_labels


def coefficients(
    posterior: Posterior, level: float = 0.95, method: str = "eti"
) -> pd.DataFrame:
    """Return ``estimate, se, lower, upper`` of the fixed effects; NaN if aliased."""
    fixed = posterior.fit.design.fixed
    names = [fixed.names[j] for j in fixed.kept]
    table = summarized(posterior.beta, names, level, method)
    return table.reindex(pd.Index(fixed.names)) if fixed.aliased else table


def coefficient_covariance(posterior: Posterior) -> pd.DataFrame:
    """Return the posterior covariance of the fixed effects, (c, c); NaN if aliased."""
    fixed = posterior.fit.design.fixed
    full = np.full((len(fixed.names), len(fixed.names)), np.nan)
    full[np.ix_(fixed.kept, fixed.kept)] = covariance_of(posterior.beta)
    return pd.DataFrame(full, index=fixed.names, columns=fixed.names)


def variance_parameters(
    posterior: Posterior, level: float = 0.95, method: str = "eti"
) -> pd.DataFrame:
    """Return ``estimate, se, lower, upper`` of SDs and correlations, by name."""
    return summarized(posterior.parameters, list(posterior.names), level, method)


def conf_int(
    posterior: Posterior,
    level: float = 0.95,
    method: str = "eti",
    parameters: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return credible limits ``lower, upper`` of fixed effects, SDs, correlations.

    Raises
    ------
    InferenceError : unknown method or parameter, level outside (0, 1)
    """
    tables = [
        coefficients(posterior, level, method),
        variance_parameters(posterior, level, method),
    ]
    table = pd.concat(tables)[["lower", "upper"]]
    return chosen_rows(table, parameters)


def varcorr(posterior: Posterior) -> pd.DataFrame:
    """Return the variance components, the columns of lme4's table.

    Returns
    -------
    frame : ``grp, var1, var2, vcov, sdcor``. vcov is the posterior mean of the variance
        or covariance, sdcor that of the standard deviation or correlation: it is not
        the root of vcov.
    """
    rows: list[tuple[str, str | None, str | None, float, float]] = []
    fit = posterior.fit
    for label, block, Sigma in zip(
        block_labels(fit), fit.design.blocks, covariance_draws(posterior), strict=True
    ):
        sd = np.sqrt(np.diagonal(Sigma, axis1=1, axis2=2))
        names = block.columns
        for c, name in enumerate(names):
            means = float(Sigma[:, c, c].mean()), float(sd[:, c].mean())
            rows.append((label, name, None, *means))
        for c in range(0 if block.term.structure == "diag" else block.k):
            for r in range(c + 1, block.k):
                scale = sd[:, r] * sd[:, c]
                correlations = Sigma[:, r, c] / np.where(scale > 0.0, scale, np.nan)
                means = float(Sigma[:, r, c].mean()), float(correlations.mean())
                rows.append((label, names[c], names[r], *means))
    sigma = posterior.sigma
    rows.append(
        ("Residual", None, None, float(np.mean(sigma**2)), float(np.mean(sigma)))
    )
    return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])


def ranef(
    posterior: Posterior, level: float = 0.95, method: str = "eti"
) -> pd.DataFrame:
    """Return the random effects, term by term, coefficient by coefficient.

    Returns
    -------
    frame : ``grp, term, level, estimate, se, lower, upper``
    """
    fit = posterior.fit
    require_level(level)
    frames: list[pd.DataFrame] = []
    for label, block, b in zip(
        block_labels(fit), fit.design.blocks, posterior.b, strict=True
    ):
        lower, upper = credible_limits(b, level, method)
        mean, sd = b.mean(axis=0), deviations(b)
        for c, name in enumerate(block.columns):
            columns = {"grp": label, "term": name, "level": block.levels}
            columns |= {"estimate": mean[:, c], "se": sd[:, c]}
            columns |= {"lower": lower[:, c], "upper": upper[:, c]}
            frames.append(pd.DataFrame(columns))
    if not frames:
        names = ["grp", "term", "level", "estimate", "se", "lower", "upper"]
        return pd.DataFrame(columns=names)
    return pd.concat(frames, ignore_index=True)


def caterpillar(
    posterior: Posterior, term: str | Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Return the random effects in order, with credible limits.

    Parameters
    ----------
    term : grouping factors or random terms by name; None for all

    Returns
    -------
    frame : as of `ranef`, and ``rank, quantile`` within each coefficient; quantile is
        the normal quantile at (rank - 1/2) / m
    """
    chosen = chosen_blocks(posterior.fit, True if term is None else term)
    labels = block_labels(posterior.fit)
    table = ranef(posterior, level)
    table = table[table["grp"].isin([labels[j] for j in chosen])]
    frames: list[pd.DataFrame] = []
    for _, part in table.groupby(["grp", "term"], sort=False):
        rank = np.arange(1, len(part) + 1)
        quantile = ndtri((rank - 0.5) / len(part))
        ordered = part.sort_values("estimate", kind="stable")
        frames.append(ordered.assign(rank=rank, quantile=quantile))
    if not frames:
        return table.assign(rank=0, quantile=0.0)
    return pd.concat(frames, ignore_index=True)
