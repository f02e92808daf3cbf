"""New data from the posterior: each data set with the parameters of another draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Matrix
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.new_rows import NewRows
from mixform.inference.posterior.draws import of_effects
from mixform.inference.resampling.simulation import (
    Simulator,
    new_simulator,
    parameters,
    require_count,
    seed_sequence,
    simulator_of,
)


def simulate(
    posterior: Posterior,
    nsim: int = 1,
    *,
    seed: object = None,
    newdata: object = None,
    use_u: bool | str | Sequence[str] = False,
) -> pd.DataFrame:
    """Draw data sets from the posterior predictive distribution.

    Parameters
    ----------
    nsim : number of data sets, each with the parameters of a draw of its own, chosen at
        random; draws repeat if there are fewer
    newdata : a table with the model's columns; None for the rows in the model. Levels
        that the fit has not seen get effects of their own
    use_u : False draws new random effects, True keeps those of the draw, names of
        grouping factors or terms keep those

    Returns
    -------
    frame : ``sim_1, sim_2, ...`` with the index of the rows; NaN where newdata lack a
        needed value

    Raises
    ------
    InferenceError : nsim below 1, unusable seed, unknown random term
    """
    nsim, fit = require_count(nsim), posterior.fit
    if newdata is None:
        base = simulator_of(fit, parameters(fit), use_u=use_u)
        X, index = fit.design.fixed.X, fit.design.row_index
        complete = np.ones(fit.n, dtype=bool)
    else:
        rows = NewRows(fit, newdata, range(len(fit.design.blocks)), errors="variances")
        base = new_simulator(fit, parameters(fit), rows, use_u=use_u)
        X, index, complete = rows.X(), rows.index, rows.complete
    choice, *streams = seed_sequence(seed).spawn(nsim + 1)
    values = np.full((len(index), nsim), np.nan)
    for i, (e, stream) in enumerate(
        zip(_chosen(posterior, nsim, choice), streams, strict=True)
    ):
        values[complete, i] = _at_draw(posterior, base, X, e).draw(stream, 1)[:, 0]
    names = [f"sim_{i}" for i in range(1, nsim + 1)]
    return pd.DataFrame(values, index=index, columns=names)


def _chosen(
    posterior: Posterior, nsim: int, stream: np.random.SeedSequence
) -> AnyArray:
    """Return which of the draws with beta and b each data set has, (nsim,)."""
    rng, n_draws = np.random.default_rng(stream), len(posterior.beta)
    rounds = [rng.permutation(n_draws) for _ in range(-(-nsim // n_draws))]
    return np.concatenate(rounds)[:nsim]


def _at_draw(posterior: Posterior, base: Simulator, X: Matrix, e: int) -> Simulator:
    """Return the simulator of the REML fit with the parameters of a draw."""
    fit = posterior.fit
    sigma = float(of_effects(posterior, posterior.sigma)[e])
    terms = tuple(
        replace(
            term,
            T=sigma * of_effects(posterior, T)[e],
            kept=_kept(term.kept, b[e]),
        )
        for term, T, b in zip(base.terms, posterior.T, posterior.b, strict=True)
    )
    return replace(
        base,
        mean=base.mean + X @ (posterior.beta[e] - fit.beta),
        scale=base.scale * (sigma / fit.sigma),
        terms=terms,
    )


def _kept(kept: Matrix, b: Matrix) -> Matrix:
    """Return the effects (m, k) of the draw where any are kept."""
    out = kept.copy()
    known = ~np.isnan(kept[: len(b)])
    out[: len(b)][known] = b[known]
    return out
