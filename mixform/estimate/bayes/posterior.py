"""The passive record of draws from the posterior of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.estimate.bayes.resolved import Priors
from mixform.estimate.fit import Fit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """Draws of all parameters; S = chains * draws, chain after chain, user's units.

    Attributes
    ----------
    fit : the model by REML
    priors : of the standard deviations and correlations
    n_chains, n_draws : chains, and draws of each
    T : for each random term (S, k, k), Var(b of a level) = sigma^2 T T'
    sigma : (S,) residual standard deviation
    rho : (S, r) parameters of the residual structure, unconstrained
    effects : (E,) which of the S draws have beta and b: all, unless fewer were asked
        for; in order
    beta : (E, p) fixed effects, aliased ones left out
    b : for each random term (E, m, k)
    names : (d,) ``sd(g: x)``, ``cor(g: x, z)`` by random term, ``sigma``
    parameters : (S, d) their values
    log_prior : (S,) log density of the priors at standard deviations and correlations
        as the priors state them
    log_posterior : (S,) that plus the log restricted likelihood
    sample_stats : by name arrays (chains, draws); "diverging" among them
    rhat, ess_bulk, ess_tail : (d,) of the parameters (Vehtari et al. 2021)
    warnings : what a reader must know before the numbers; empty if all is well
    """

    fit: Fit
    priors: Priors
    n_chains: int
    n_draws: int
    T: tuple[Stack, ...]
    sigma: Vector
    rho: Matrix
    effects: np.ndarray
    beta: Matrix
    b: tuple[Stack, ...]
    names: tuple[str, ...]
    parameters: Matrix
    log_prior: Vector
    log_posterior: Vector
    sample_stats: dict[str, np.ndarray]
    rhat: Vector
    ess_bulk: Vector
    ess_tail: Vector
    warnings: tuple[str, ...] = ()

    @property
    def n_divergent(self) -> int:
        """Number of divergent transitions after tuning."""
        return int(self.sample_stats["diverging"].sum())

    def by_chain(self, values: np.ndarray) -> np.ndarray:
        """Return (chains, draws, ...) of an array (S, ...)."""
        return values.reshape(self.n_chains, self.n_draws, *values.shape[1:])
