"""Draw the variances of a model from their posterior, beta and u exactly given them.

Goes in: a design, priors and options. Comes out: the `Posterior`.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design
from mixform.estimate.bayes.density import Density
from mixform.estimate.bayes.effects import draw_effects
from mixform.estimate.bayes.nuts import diagnose, libraries, run_chains, warnings_of
from mixform.estimate.bayes.options import Sampling, resolve_sampling
from mixform.estimate.bayes.posterior import Posterior
from mixform.estimate.bayes.propriety import require_proper
from mixform.estimate.bayes.resolved import resolve_priors
from mixform.estimate.bayes.supported import require_supported
from mixform.estimate.fit import Fit
from mixform.estimate.reml import estimate
from mixform.mme.backends import few_threads, require_memory
from mixform.progress import Progress

#: What a standard deviation that was estimated as zero starts from, in residual
#: standard deviations, and what estimated correlations are multiplied by.
LEAST_START = 0.1
SHRUNK = 0.9


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
    progress : show a bar; None after a few seconds, if tqdm is installed

    Raises
    ------
    DesignError : a prior that does not fit the model; an improper posterior; a model
        that only REML supports
    SolverError : the draws of beta and b do not fit into memory
    MixformError : nutpie or arviz is not installed
    """
    options, search = resolve_sampling(control)
    libraries()
    require_supported(design)
    fit = estimate(design, method="REML", control=search)
    problem = fit.evaluation.problem
    priors = resolve_priors(design, prior, problem.y_scale)
    require_proper(design, priors)
    require_memory(
        8.0 * options.n_effects * (problem.p + sum(b.m * b.k for b in design.blocks)),
        f"{options.n_effects} draws of all effects (fewer: control effects=)",
    )
    density = Density(fit, priors)
    seeds = np.random.SeedSequence(options.seed).spawn(2)
    with few_threads(problem.equations):
        with Progress(progress, None, "evaluations") as bar:
            center = _center(density, fit)
            psi, stats = run_chains(density, center, options, seeds[0], bar)
        chosen = np.linspace(0, len(psi) - 1, options.n_effects).round().astype(int)
        rng = np.random.default_rng(seeds[1])
        with Progress(progress, len(chosen), "draws") as bar:
            beta, b = draw_effects(design, density, psi[chosen], rng, bar.advance)
    return _recorded(density, fit, options, psi, stats, (chosen, beta, b))


def _recorded(
    density: Density,
    fit: Fit,
    options: Sampling,
    psi: Matrix,
    stats: dict[str, np.ndarray],
    effects: tuple[np.ndarray, Matrix, tuple[np.ndarray, ...]],
) -> Posterior:
    """Return the record of draws (S, d) of the coordinates and of the effects."""
    described = [density.describe(one) for one in psi]
    points, natural, log_prior, jacobian = zip(*described, strict=True)
    sigma = np.array([point.sigma for point in points])
    factors = np.array([point.factors for point in points])
    parameters = np.array(natural)
    diagnostics = diagnose(parameters, options)
    chosen, beta, b = effects
    return Posterior(
        fit=fit,
        priors=density.priors,
        n_chains=options.chains,
        n_draws=options.draws,
        T=tuple(
            factors[:, j, : term.k, : term.k] / sigma[:, None, None]
            for j, term in enumerate(density.priors.terms)
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
        rhat=diagnostics[0],
        ess_bulk=diagnostics[1],
        ess_tail=diagnostics[2],
        warnings=warnings_of(density.names, options, stats, diagnostics),
    )


def _center(density: Density, fit: Fit) -> Vector:
    """Return coordinates (d,) near the REML estimate, inside the parameter space."""
    out = np.empty(density.size)
    out[-1] = np.log(fit.sigma)
    pairs = zip(density.coordinates, density.slices, strict=True)
    for j, (term, where) in enumerate(pairs):
        Sigma = fit.sigma**2 * fit.T[j] @ fit.T[j].T
        C = density.problem.Z_scales[j]
        least = LEAST_START * density.problem.y_scale / np.sqrt((C.T @ C).diagonal())
        sd = np.sqrt(np.diag(Sigma))
        with np.errstate(all="ignore"):
            R = np.nan_to_num(Sigma / np.outer(sd, sd), nan=0.0)
        R *= SHRUNK
        np.fill_diagonal(R, 1.0)
        sd = np.maximum(sd, least)
        out[where] = term.from_covariance(R * np.outer(sd, sd))
    return out
