"""The posterior as ArviZ InferenceData, and convergence of what is not sampled itself.

ArviZ (extra ``bayes``) takes a second to import, so that happens when it is needed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Matrix, Vector
from mixform._version import __version__
from mixform.errors import MixformError
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.new_residuals import own_errors
from mixform.inference.posterior.draws import of_effects
from mixform.inference.posterior.prediction import linear_draws
from mixform.inference.resampling.simulation import seed_sequence
from mixform.inference.variance_components import block_labels

#: Numbers in the pointwise log-likelihood that are kept without being asked for (160
#: MB).
LARGEST = 20_000_000


def load_arviz() -> Any:
    """Return ArviZ.

    Raises
    ------
    MixformError : it is not installed
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # announcements of its next version
            import arviz  # noqa: PLC0415
    except ImportError as failure:
        raise MixformError(
            "The posterior as InferenceData needs arviz.",
            hint='Install it: pip install "mixform[bayes]".',
        ) from failure
    return arviz


def convergence(posterior: Posterior) -> pd.DataFrame:
    """Return ``r_hat, ess_bulk, ess_tail`` of fixed effects and parameters, by name.

    Those of the parameters are known from the sampling; NaN for fixed effects that all
    draws agree on, or of fewer than four draws in a chain.
    """
    fit = posterior.fit
    names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    own = np.full((3, len(names)), np.nan)
    values = _in_chains(posterior, posterior.beta)
    if values.shape[1] >= 4:
        for j in np.flatnonzero(np.ptp(posterior.beta, axis=0) > 0.0):
            own[:, j] = _diagnosed(values[:, :, j])
    sampled = np.array([posterior.rhat, posterior.ess_bulk, posterior.ess_tail])
    return pd.DataFrame(
        np.hstack([own, sampled]).T,
        index=[*names, *posterior.names],
        columns=["r_hat", "ess_bulk", "ess_tail"],
    )


def _diagnosed(values: Matrix) -> tuple[float, float, float]:
    """Return R-hat, bulk and tail effective sample size of draws (chains, draws)."""
    arviz = load_arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            float(arviz.rhat(values)) if len(values) > 1 else np.nan,
            float(arviz.ess(values, method="bulk")),
            float(arviz.ess(values, method="tail")),
        )


def inference_data(
    posterior: Posterior,
    formula: str,
    *,
    log_likelihood: bool | None = None,
    posterior_predictive: bool = False,
    seed: object = 0,
) -> Any:
    """Return ArviZ InferenceData.

    Parameters
    ----------
    log_likelihood : of each observation given beta and b, as `arviz.loo` needs; None
        for where it has fewer than 2e7 numbers
    posterior_predictive : new observations in the rows of the fit, with their random
        effects
    seed : of those

    Returns
    -------
    groups ``posterior`` (``beta``, each parameter by name, ``b(term)``),
    ``sample_stats``, ``observed_data``, and those asked for. If fewer draws have beta
    and b than were sampled, those draws are there.

    Raises
    ------
    MixformError : ArviZ is not installed
    """
    arviz, fit = load_arviz(), posterior.fit
    variables, dims, coords = _variables(posterior)
    groups: dict[str, dict[str, AnyArray]] = {
        "posterior": variables,
        "sample_stats": _statistics(posterior),
        "observed_data": {"y": fit.design.y},
    }
    if log_likelihood is None:
        log_likelihood = len(posterior.beta) * fit.n <= LARGEST
    if log_likelihood:
        values = _in_chains(posterior, pointwise(posterior))
        groups["log_likelihood"] = {"y": values}
    if posterior_predictive:
        values = _in_chains(posterior, replicated(posterior, seed))
        groups["posterior_predictive"] = {"y": values}
    coords["observation"] = _labels(fit.design.row_index)
    dims["y"] = ["observation"]
    attributes = {
        "formula": formula,
        "prior": str(posterior.priors),
        "inference_library": "mixform",
        "inference_library_version": __version__,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ about itself
        found = arviz.from_dict(**groups, dims=dims, coords=coords)
    for group in found.groups():
        found[group].attrs.update(attributes)
    return found


def pointwise(posterior: Posterior) -> Matrix:
    """Return log p(y_i | beta, b, sigma) at each draw, (E, n)."""
    fit = posterior.fit
    sigma = of_effects(posterior, posterior.sigma)[:, None]
    scale = sigma / np.sqrt(own_errors(fit).weights)
    z = (fit.design.y - linear_draws(posterior, slice(None))) / scale
    return -0.5 * (z**2 + np.log(2.0 * np.pi)) - np.log(scale)


def replicated(posterior: Posterior, seed: object) -> Matrix:
    """Return new observations in the rows of the fit, given beta and b, (E, n)."""
    fit = posterior.fit
    rng = np.random.default_rng(seed_sequence(seed))
    sigma = of_effects(posterior, posterior.sigma)[:, None]
    scale = sigma / np.sqrt(own_errors(fit).weights)
    mean = linear_draws(posterior, slice(None))
    return mean + scale * rng.standard_normal(mean.shape)


def _variables(
    posterior: Posterior,
) -> tuple[dict[str, AnyArray], dict[str, list[str]], dict[str, list[Any]]]:
    """Return arrays (chains, draws, ...), names of their axes, and labels of those."""
    fit, chains = posterior.fit, lambda values: _in_chains(posterior, values)
    out: dict[str, AnyArray] = {}
    dims: dict[str, list[str]] = {}
    coords: dict[str, list[Any]] = {}
    if fit.design.fixed.kept:
        out["beta"], dims["beta"] = chains(posterior.beta), ["coefficient"]
        names = fit.design.fixed.names
        coords["coefficient"] = [names[j] for j in fit.design.fixed.kept]
    parameters = of_effects(posterior, posterior.parameters)
    for name, values in zip(posterior.names, parameters.T, strict=True):
        out[name.replace("/", "|")] = chains(values)  # netCDF takes no slash
    for label, block, b in zip(
        block_labels(fit), fit.design.blocks, posterior.b, strict=True
    ):
        name = f"b({label})"
        out[name], dims[name] = chains(b), [f"{label} level", f"{label} term"]
        coords[f"{label} level"] = _labels(block.levels)
        coords[f"{label} term"] = list(block.columns)
    return out, dims, coords


def _statistics(posterior: Posterior) -> dict[str, AnyArray]:
    """Return what the sampler says of each draw, and the log densities."""
    known = {
        name: _in_chains(posterior, of_effects(posterior, np.concatenate(values)))
        for name, values in posterior.sample_stats.items()
    }
    own: dict[str, Vector] = {
        "lp": posterior.log_posterior,
        "log_prior": posterior.log_prior,
    }
    for name, values in own.items():
        known[name] = _in_chains(posterior, of_effects(posterior, values))
    return known


def _in_chains(posterior: Posterior, values: AnyArray) -> AnyArray:
    """Return values (E, ...) as (chains, draws, ...); in one chain if uneven."""
    counts = np.bincount(
        posterior.effects // posterior.n_draws, minlength=posterior.n_chains
    )
    chains = posterior.n_chains if np.all(counts == counts[0]) else 1
    return values.reshape(chains, len(values) // chains, *values.shape[1:])


def _labels(index: pd.Index) -> list[Any]:
    """Return labels that a netCDF file can hold: numbers, or text."""
    if isinstance(index, pd.MultiIndex) or not pd.api.types.is_numeric_dtype(index):
        return [str(label) for label in index]
    return index.tolist()
