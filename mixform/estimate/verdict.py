"""The verdict on the end of a search, in words."""

from __future__ import annotations

from mixform._typing import Vector
from mixform.estimate.certificate import EIGENVALUE_TOLERANCE, Certificate
from mixform.estimate.criterion import Evaluation
from mixform.estimate.fit import Convergence
from mixform.estimate.problem import Problem
from mixform.mme.iterative import IterativeSolver

#: Share of the variation about X beta that must be left to the residual: below it the
#: residual variance is known to fewer than six digits.
LEAST_RESIDUAL = 1e-9

#: 1 / sigma, sigma in SDs of y, beyond which a search that does not end is one after a
#: residual variance of zero: the optimum, given variances that are held.
LARGEST_S = 100.0

CERTIFIED = "certified optimum"
GIVEN = "variances given, not estimated"

#: What a search found: theta, the solution there, its certificate, evaluations made.
Found = tuple[Vector, Evaluation, Certificate, int]


def vanishes(problem: Problem, theta: Vector) -> bool:
    """Whether the residual variance goes to zero, given those that are held."""
    held = problem.held
    tied = held is not None and held.tied is not None
    return tied and held is not None and abs(float(theta[held.slot])) > LARGEST_S


def verdict(found: Found, n_interior: int, certified: float) -> Convergence:
    """Return how the search went.

    Parameters
    ----------
    n_interior : variance parameters that are not on the boundary
    certified : predicted decrease up to which the optimum is certified
    """
    _, here, certificate, count = found
    message = _given(here)
    if message is None:
        message = _doubt(found, n_interior, certified) or CERTIFIED
    return Convergence(
        converged=not message.startswith("not certified"),
        n_evaluations=count,
        predicted_decrease=certificate.predicted_decrease,
        smallest_eigenvalue=certificate.smallest_eigenvalue,
        backend=here.problem.equations.name,
        message=message,
    )


def _given(here: Evaluation) -> str | None:
    """Return what there is to say where nothing was searched for, None elsewhere."""
    problem, factor = here.problem, here.factor
    if isinstance(factor, IterativeSolver):
        what = GIVEN if problem.n_variances == 0 else "relative variances given"
        return (
            f"{what}; solved by conjugate gradients to a relative residual of "
            f"{factor.residual:.2g} in {factor.iterations} iterations"
        )
    return GIVEN if problem.n_variances == 0 else None


def _doubt(found: Found, n_interior: int, certified: float) -> str | None:
    """Return why the optimum is not certified, None if it is."""
    theta, here, certificate, count = found
    problem = here.problem
    left_over = here.r2 / problem.yty if problem.yty > 0.0 else 1.0
    n_variances = n_interior + problem.profiled
    left = certificate.predicted_decrease
    lowest = certificate.smallest_eigenvalue
    doubt = None
    if left > certified and vanishes(problem, theta):
        doubt = "given the variances that are held, the residual variance goes to zero"
    elif problem.residual_df < n_variances and n_interior > 0:
        doubt = (
            f"{problem.residual_df} residual degrees of freedom cannot "
            f"determine {n_variances} variance parameters"
        )
    elif left_over < LEAST_RESIDUAL:
        doubt = (
            f"the random effects explain all but {left_over:.1g} of the "
            "variation, too little to keep its digits"
        )
    elif certificate.undetermined:
        doubt = f"the data do not determine {', '.join(certificate.undetermined)}"
        if len(certificate.undetermined) > 1:
            doubt += ", or not from each other"
    elif left > certified:
        doubt = f"the criterion may still fall by {left:.2g} after {count} evaluations"
    elif lowest < -EIGENVALUE_TOLERANCE:
        doubt = (
            f"a variance of zero is no optimum (relative one-sided "
            f"derivative {lowest:.2g})"
        )
    return None if doubt is None else f"not certified: {doubt}"
