"""Draw the variances of a model from their posterior by NUTS, beta and u exactly.

Goes in: a design, priors and options. Comes out: the `Posterior`. The no-U-turn sampler
(Hoffman and Gelman 2014) is nutpie's; R-hat and effective sample sizes are ArviZ's
(Vehtari et al. 2021).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design
from mixform.errors import DesignError, MixformError, suggest
from mixform.estimate.bayes.density import Density
from mixform.estimate.bayes.effects import draw_effects
from mixform.estimate.bayes.posterior import Posterior
from mixform.estimate.bayes.propriety import require_proper
from mixform.estimate.bayes.resolved import Priors, resolve_priors
from mixform.estimate.bayes.supported import require_supported
from mixform.estimate.fit import Fit
from mixform.estimate.reml import Control, estimate, resolve_control
from mixform.mme.backends import few_threads
from mixform.progress import Progress

#: A sampler's limits: Vehtari et al. (2021), R-hat below 1.01 and an effective sample
#: size of 100 for each chain.
LARGEST_RHAT = 1.01
LEAST_ESS = 100.0

#: Standard deviation of the starting points about the estimate, and what a standard
#: deviation that was estimated as zero starts from, in residual standard deviations.
SPREAD = 0.5
LEAST_START = 0.1
LARGEST_CORRELATION = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Options of the sampler.

    Attributes
    ----------
    draws, tune : kept draws of each chain, and those before that tune the sampler
    chains : number of chains
    cores : chains run at a time, on threads that share Python's lock
    seed : whole number for the same draws again; None for others each time
    target_accept : acceptance probability that the step size is tuned to
    effects : how many of the draws get beta and b, evenly spaced; None for all
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    cores: int = 1
    seed: int | None = None
    target_accept: float = 0.9
    effects: int | None = None

    def __post_init__(self) -> None:
        least = {
            "draws": 4,
            "tune": 50,
            "chains": 1,
            "cores": 1,
            "seed": 0,
            "effects": 1,
        }
        for name, limit in least.items():
            value = getattr(self, name)
            if value is None and name in ("seed", "effects"):
                continue
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < limit:
                raise DesignError(
                    f"control: {name} must be a whole number of at least {limit}, got "
                    f"{value!r}."
                )
        target = self.target_accept
        if not isinstance(target, float) or not 0.0 < target < 1.0:
            raise DesignError(
                f"control: target_accept must lie between 0 and 1, got {target!r}."
            )

    @property
    def n_effects(self) -> int:
        """Number of draws with beta and b."""
        total = self.chains * self.draws
        return total if self.effects is None else min(self.effects, total)


def resolve_sampling(control: object) -> tuple[Sampling, Control]:
    """Return the options of the sampler and those of the search for its start.

    Raises
    ------
    DesignError : an unknown option, or a value that makes no sense
    """
    if isinstance(control, Control) or control is None:
        return Sampling(), resolve_control(control)
    if not isinstance(control, Mapping):
        raise DesignError(
            f"control is a {type(control).__name__}, not a mapping.",
            hint='Write control={"draws": 2000, "seed": 1}.',
        )
    given = {str(n): v for n, v in cast("Mapping[object, Any]", control).items()}
    own = [field.name for field in fields(Sampling)]
    search = [field.name for field in fields(Control)]
    for name in given:
        if name not in own + search:
            raise DesignError(
                f"Unknown control option {name!r}.",
                hint=suggest(name, own + search, "Options"),
            )
    ours = {name: value for name, value in given.items() if name in own}
    rest = {name: value for name, value in given.items() if name in search}
    return Sampling(**ours), resolve_control(rest)


def sample(
    design: Design,
    *,
    prior: object = None,
    control: object = None,
    progress: bool | None = None,
) -> Posterior:
    """Draw from the posterior of a model.

    Parameters
    ----------
    design : from `build_design`
    prior : label of a random term, ``"g[x]"`` or "residual" -> prior or list of them
    control : options, as `Sampling` and `Control`
    progress : show a bar while effects are drawn; None after a few seconds

    Raises
    ------
    DesignError : a prior that does not fit the model; an improper posterior; a model
        that only REML supports
    MixformError : nutpie or arviz is not installed
    """
    options, search = resolve_sampling(control)
    require_supported(design)
    fit = estimate(design, method="REML", control=search)
    problem = fit.evaluation.problem
    priors = resolve_priors(design, prior, problem.y_scale)
    require_proper(design, priors)
    density = Density(fit, priors)
    seeds = np.random.SeedSequence(options.seed)
    with few_threads(problem.equations):
        psi, stats = _run(density, _center(density, fit), options, seeds)
        chosen = np.linspace(0, len(psi) - 1, options.n_effects).round().astype(int)
        rng = np.random.default_rng(seeds.spawn(1)[0])
        with Progress(progress, len(chosen), "draws") as bar:
            beta, b = draw_effects(design, density, psi[chosen], rng, bar.advance)
    described = [density.describe(one) for one in psi]
    points, natural, log_prior, jacobian = zip(*described, strict=True)
    sigma = np.array([point.sigma for point in points])
    parameters = np.array(natural)
    diagnostics = _diagnose(parameters, options)
    rhat, bulk, tail = diagnostics
    return Posterior(
        fit=fit,
        priors=priors,
        n_chains=options.chains,
        n_draws=options.draws,
        T=tuple(
            np.array([point.places[j].T for point in points]) / sigma[:, None, None]
            for j in range(len(density.terms))
        ),
        sigma=sigma,
        rho=np.empty((len(psi), 0)),
        effects=chosen,
        beta=beta,
        b=b,
        names=density.names,
        parameters=parameters,
        log_prior=np.array(log_prior),
        log_posterior=stats["logp"].ravel() - np.array(jacobian),
        sample_stats=stats,
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        warnings=_warnings(density.names, options, stats, diagnostics),
    )


def _center(density: Density, fit: Fit) -> Vector:
    """Return coordinates (d,) near the REML estimate, inside the parameter space."""
    out = np.empty(density.size)
    out[-1] = np.log(fit.sigma)
    for j, (term, where) in enumerate(zip(density.terms, density.slices, strict=True)):
        Sigma = fit.sigma**2 * fit.T[j] @ fit.T[j].T
        C = density.problem.Z_scales[j]
        least = LEAST_START * density.problem.y_scale / np.sqrt((C.T @ C).diagonal())
        sd = np.sqrt(np.diag(Sigma))
        with np.errstate(all="ignore"):
            R = np.nan_to_num(Sigma / np.outer(sd, sd), nan=0.0)
        R *= LARGEST_CORRELATION
        np.fill_diagonal(R, 1.0)
        sd = np.maximum(sd, least)
        out[where] = term.from_covariance(R * np.outer(sd, sd))
    return out


def _run(
    density: Density, center: Vector, options: Sampling, seeds: np.random.SeedSequence
) -> tuple[Matrix, dict[str, np.ndarray]]:
    """Return draws (S, d) of the coordinates, and statistics of the sampler."""
    nutpie, _ = _libraries()
    d = density.size

    def start(seed: int) -> Vector:
        rng = np.random.default_rng(seed)
        spread = SPREAD
        for _ in range(20):
            point = center + spread * rng.standard_normal(d)
            if np.isfinite(density(point)[0]):
                return point
            spread /= 2.0
        return center

    model = nutpie.compiled_pyfunc.from_pyfunc(
        d,
        lambda: density,
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


def _diagnose(parameters: Matrix, options: Sampling) -> tuple[Vector, Vector, Vector]:
    """Return R-hat, bulk and tail effective sample size of parameters (S, d)."""
    _, arviz = _libraries()
    by_chain = parameters.reshape(options.chains, options.draws, -1)
    data = arviz.convert_to_dataset({"x": by_chain})
    found = (
        arviz.rhat(data),
        arviz.ess(data, method="bulk"),
        arviz.ess(data, method="tail"),
    )
    rhat, bulk, tail = (np.asarray(one["x"].to_numpy(), np.float64) for one in found)
    return rhat, bulk, tail


def _libraries() -> tuple[Any, Any]:
    """Return nutpie and arviz, which take seconds to import.

    Raises
    ------
    MixformError : they are not installed
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # announcements of arviz and its parts
            import arviz  # noqa: PLC0415 - an extra, for this only
            import nutpie  # noqa: PLC0415 - likewise
            import nutpie.compiled_pyfunc  # noqa: PLC0415
    except ImportError as failure:
        raise MixformError(
            'method="Bayes" needs nutpie and arviz.',
            hint='Install them: pip install "mixform[bayes]".',
        ) from failure
    return nutpie, arviz


def _warnings(
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
            f"The chains disagree: R-hat of {names[worst]} is {rhat[worst]:.3f}, above "
            f"{LARGEST_RHAT}."
        )
    least = np.minimum(bulk, tail)
    worst = int(np.argmin(np.where(np.isnan(least), -np.inf, least)))
    if not least[worst] >= LEAST_ESS * options.chains:
        out.append(
            f"Too few independent draws: the effective sample size of {names[worst]} is "
            f"{least[worst]:.0f}, below {LEAST_ESS:.0f} for each chain."
        )
    divergent = int(stats["diverging"].sum())
    if divergent:
        out.append(
            f"{divergent} transitions diverged: the sampler may have missed a part of "
            "the posterior; raise target_accept."
        )
    return tuple(out)
