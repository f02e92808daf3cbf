"""The passive record of a fitted model; inference is functions of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design
from mixform.estimate.certificate import Certificate
from mixform.estimate.criterion import Evaluation
from mixform.estimate.held import Given
from mixform.estimate.mean_squares import MeanSquares


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How the search went, and the certificate of its end.

    Attributes
    ----------
    converged : the optimum is certified: no decrease left, no false zero
    n_evaluations : of the criterion
    predicted_decrease : of the criterion that is left, deviance units
    smallest_eigenvalue : of the one-sided derivative at the boundary, relative to
        its expectation; +inf in the interior
    backend : which solver of the mixed model equations was used
    message : the verdict in words
    """

    converged: bool
    n_evaluations: int
    predicted_decrease: float
    smallest_eigenvalue: float
    backend: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A fitted model, in the user's units unless said otherwise.

    Attributes
    ----------
    design : the data in the model
    method : "REML", "ML" or "ANOVA"
    evaluation : the solution on the scaled problem
    scaled_theta : (t + r,) parameters of the scaled problem, rho last
    T : relative covariance factor of each block, Var(b) = sigma^2 T T'
    theta : (t,) their parameters in the user's units
    interior : (t + r,) which of those of the scaled problem are not on the boundary
    beta : (p,) estimated fixed effects, aliased ones left out
    V_beta : (p, p) their covariance
    b : (m, k) random effects of each block
    sigma : residual standard deviation
    criterion : -2 log (restricted) likelihood, constants included
    certificate, convergence : of the optimum
    singular_terms : positions of the blocks with singular covariance
    rho : (r,) parameters of the residual structure, unconstrained
    anova : the mean squares that the variances are from, if they are; those that
        `evaluation` is at have zero for negative estimates
    """

    design: Design
    method: str
    evaluation: Evaluation
    scaled_theta: Vector
    T: tuple[Matrix, ...]
    theta: Vector
    interior: np.ndarray
    beta: Vector
    V_beta: Matrix
    b: tuple[Matrix, ...]
    sigma: float
    criterion: float
    certificate: Certificate
    convergence: Convergence
    singular_terms: tuple[int, ...]
    rho: Vector = field(default_factory=lambda: np.empty(0))
    anova: MeanSquares | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.design.y)

    @property
    def n_parameters(self) -> int:
        """Estimated parameters counted as lme4 does: beta, theta and sigma.

        What is held does not count.
        """
        if self.anova is not None:
            return len(self.beta) + len(self.anova.components)
        return len(self.beta) + self.evaluation.problem.n_variances

    @property
    def given(self) -> Given | None:
        """The variances that were given; None if all are estimated."""
        held = self.evaluation.problem.held if self.anova is None else None
        return None if held is None else held.given

    @property
    def known(self) -> bool:
        """Whether all variances were given."""
        return self.anova is None and self.evaluation.problem.n_variances == 0

    @property
    def held(self) -> tuple[str, ...]:
        """Labels of the variances that were given, "residual" for the residual's."""
        return () if self.given is None else self.given.names

    @property
    def loglik(self) -> float:
        """The (restricted) log-likelihood."""
        return -0.5 * self.criterion
