"""The no-U-turn sampler (Hoffman and Gelman 2014) of nutpie, and ArviZ's measures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import MixformError
from mixform.estimate.bayes.density import Density
from mixform.estimate.bayes.options import Sampling
from mixform.progress import Progress

#: Vehtari et al. (2021, Bayesian Anal. 16): R-hat at most 1.01, and an effective sample
#: size of at least 100 for each chain.
LARGEST_RHAT = 1.01
LEAST_ESS = 100.0

#: Standard deviation of the starting points about the center, and halvings of it.
SPREAD = 0.5
HALVINGS = 20


def run_chains(
    density: Density,
    center: Vector,
    options: Sampling,
    seeds: np.random.SeedSequence,
    bar: Progress,
) -> tuple[Matrix, dict[str, np.ndarray]]:
    """Return draws (S, d) of the coordinates, and statistics of the sampler.

    Parameters
    ----------
    center : (d,) what chains start about
    seeds : of the sampler
    bar : counts evaluations
    """
    nutpie, compiled_pyfunc, _ = libraries()
    d = density.size

    def logp(psi: Vector) -> tuple[float, Vector]:
        bar.advance()
        return density(psi)

    def start(seed: int) -> Vector:
        rng = np.random.default_rng(seed)
        spread = SPREAD
        for _ in range(HALVINGS):
            point = center + spread * rng.standard_normal(d)
            if np.isfinite(density(point)[0]):
                return point
            spread /= 2.0
        return center

    model = compiled_pyfunc.from_pyfunc(
        d,
        lambda: logp,
        lambda seed1, seed2, chain: lambda psi: {"psi": psi},
        [np.dtype(np.float64)],
        [(d,)],
        ["psi"],
        make_initial_point_fn=start,
    )
    trace = nutpie.sample(
        model,
        draws=options.draws,
        tune=options.tune,
        chains=options.chains,
        cores=options.cores,
        seed=int(seeds.generate_state(1)[0] >> 1),
        target_accept=options.target_accept,
        progress_bar=False,
        save_warmup=False,
    )
    psi = np.asarray(trace.posterior["psi"].to_numpy(), dtype=np.float64)
    stats = {
        str(name): np.asarray(values.to_numpy())
        for name, values in trace.sample_stats.data_vars.items()
    }
    return psi.reshape(-1, d), stats


def diagnose(parameters: Matrix, options: Sampling) -> tuple[Vector, Vector, Vector]:
    """Return R-hat, bulk and tail effective sample size of parameters (S, d)."""
    _, _, arviz = libraries()
    by_chain = parameters.reshape(options.chains, options.draws, -1)
    data = arviz.convert_to_dataset({"x": by_chain})
    found = [arviz.ess(data, method="bulk"), arviz.ess(data, method="tail")]
    if options.chains > 1:  # one chain has none to disagree with
        found.append(arviz.rhat(data))
    values = [np.asarray(one["x"].to_numpy(), np.float64) for one in found]
    rhat = values[2] if options.chains > 1 else np.full_like(values[0], np.nan)
    return rhat, values[0], values[1]


def libraries() -> tuple[Any, Any, Any]:
    """Return nutpie, its part for Python functions, and arviz: seconds to import.

    Raises
    ------
    MixformError : they are not installed
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # announcements of arviz and its parts
            import arviz  # noqa: PLC0415 - an extra, for this only
            import nutpie  # noqa: PLC0415 - likewise
            from nutpie import compiled_pyfunc  # noqa: PLC0415 - likewise
    except ImportError as failure:
        raise MixformError(
            'method="Bayes" needs nutpie and arviz.',
            hint='Install them: pip install "mixform[bayes]".',
        ) from failure
    return nutpie, compiled_pyfunc, arviz


def warnings_of(
    names: tuple[str, ...],
    options: Sampling,
    stats: Mapping[str, np.ndarray],
    diagnostics: tuple[Vector, Vector, Vector],
) -> tuple[str, ...]:
    """Say in words where the chains cannot be trusted."""
    out: list[str] = []
    rhat, bulk, tail = diagnostics
    worst = int(np.argmax(np.where(np.isnan(rhat), np.inf, rhat)))
    if options.chains > 1 and not rhat[worst] <= LARGEST_RHAT:
        out.append(
            f"The chains disagree: R-hat of {names[worst]} is {rhat[worst]:.4f}, above "
            f"{LARGEST_RHAT}."
        )
    least = np.minimum(bulk, tail)
    worst = int(np.argmin(np.where(np.isnan(least), -np.inf, least)))
    if not least[worst] >= LEAST_ESS * options.chains:
        out.append(
            f"Too few independent draws: the effective size of {names[worst]} is "
            f"{least[worst]:.0f}, below {LEAST_ESS:.0f} for each chain."
        )
    divergent = int(stats["diverging"].sum())
    if divergent:
        out.append(
            f"{divergent} transitions diverged: the sampler may have missed a part of "
            "the posterior; raise target_accept."
        )
    return tuple(out)
