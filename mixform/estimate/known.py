"""BLUE and BLUP at variances that are given: one solution, nothing estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.covariance import STRUCTURES, Structure, semidefinite_cholesky
from mixform.design import Design, RandomBlock
from mixform.design.random import block_labels
from mixform.errors import DesignError, InferenceError, suggest
from mixform.estimate.certificate import Certificate
from mixform.estimate.criterion import evaluate
from mixform.estimate.fit import Convergence, Fit
from mixform.estimate.problem import build_problem
from mixform.estimate.reml import Control, record
from mixform.mme import few_threads

RESIDUAL = "residual"
MESSAGE = "variances given, not estimated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownVariances:
    """Variances of all terms.

    Attributes
    ----------
    Sigma : (k, k) covariance of each random term
    residual : residual variance
    """

    Sigma: tuple[Matrix, ...]
    residual: float


def require_estimated(fit: Fit, what: str) -> None:
    """Refuse what is about estimated variances.

    Raises
    ------
    InferenceError : the variances of the fit were given
    """
    if fit.known:
        raise InferenceError(
            f"{what} is about estimated variances; those of this fit were given.",
            hint="Fit the model without varcomp=.",
        )


def solve_known(
    design: Design, varcomp: Mapping[str, object], *, method: str, control: Control
) -> Fit:
    """Solve the mixed model equations at given variances.

    sigma^2 is the given one: standard errors are those of C^-1 with known variances,
    and the criterion is -2 log (restricted) likelihood there.

    Parameters
    ----------
    varcomp : variance, or covariance (k, k), by label of the random term, and
        "residual"

    Raises
    ------
    DesignError : a term is missing or unknown; a value is no (co)variance
    """
    given = read_variances(design.blocks, varcomp)
    problem = build_problem(
        design, reml=method == "REML", backend=control.backend, known=True
    )
    sigma = float(np.sqrt(given.residual))
    theta = np.empty(problem.n_theta)
    for j, (C, Sigma) in enumerate(zip(problem.Z_scales, given.Sigma, strict=True)):
        scaled = C @ Sigma @ C.T / given.residual
        label = block_labels(design.blocks)[j]
        theta[problem.theta_slices[j]] = _parameters(
            problem.structures[j], scaled, label
        )
    with few_threads(problem.equations):
        here = evaluate(problem, theta)
    certificate = Certificate(
        predicted_decrease=0.0, smallest_eigenvalue=np.inf, direction=None
    )
    fit = record(design, method, (theta, here, certificate, 1), control)
    # In place of sigma^2 = r^2 / df, which minimizes df log sigma^2 + r^2 / sigma^2.
    ratio = sigma / fit.sigma
    df = problem.residual_df
    change = df * (2.0 * float(np.log(ratio)) + 1.0 / ratio**2 - 1.0)
    return replace(
        fit,
        sigma=sigma,
        V_beta=fit.V_beta * ratio**2,
        criterion=fit.criterion + change,
        convergence=Convergence(
            converged=True,
            n_evaluations=1,
            predicted_decrease=0.0,
            smallest_eigenvalue=np.inf,
            backend=problem.equations.name,
            message=MESSAGE,
        ),
        known=True,
    )


def _parameters(structure: Structure, Sigma: Matrix, label: str) -> Vector:
    """Return the parameters (t,) of a covariance (k, k), which must be of the kind."""
    size = float(np.abs(Sigma).max())
    theta = structure.from_factor(semidefinite_cholesky(Sigma, 1e-14 * size))
    T = structure.factor(theta, len(Sigma))
    if np.abs(T @ T.T - Sigma).max() > 1e-7 * size:
        raise DesignError(
            f"The covariance given for {label!r} does not have the structure "
            f"{structure.name!r}.",
            hint="Give one that has, or write us(... | g).",
        )
    return theta


def read_variances(
    blocks: Sequence[RandomBlock], varcomp: Mapping[str, object]
) -> KnownVariances:
    """Return the variances of all terms; see `solve_known`."""
    if not isinstance(varcomp, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DesignError(
            f"varcomp is a {type(varcomp).__name__}, not a mapping.",
            hint='Write varcomp={"animal": 20.0, "residual": 40.0}.',
        )
    labels = (*block_labels(blocks), RESIDUAL)
    values = {RESIDUAL if n == "Residual" else n: v for n, v in varcomp.items()}
    for name in values:
        if name not in labels:
            raise DesignError(
                f"varcomp names {name!r}, which is no random term.",
                hint=suggest(str(name), labels, "Terms"),
            )
    absent = [name for name in labels if name not in values]
    if absent:
        raise DesignError(
            f"varcomp gives no variance of {', '.join(absent)}.",
            hint="Give all variances, or none: some cannot be held while others are "
            "estimated.",
        )
    Sigma = tuple(
        _covariance(name, values[name], block)
        for name, block in zip(labels, blocks, strict=False)
    )
    residual = _numbers(RESIDUAL, values[RESIDUAL])
    if residual.shape != (1, 1) or not residual[0, 0] > 0.0:
        raise DesignError("The residual variance in varcomp is not a positive number.")
    return KnownVariances(Sigma=Sigma, residual=float(residual[0, 0]))


def _numbers(name: str, value: object) -> Matrix:
    try:
        numbers = np.atleast_2d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise DesignError(f"The variance of {name!r} is not numeric.") from None
    if not np.all(np.isfinite(numbers)):
        raise DesignError(f"The variance of {name!r} is not finite.")
    return cast("Matrix", numbers)


def _covariance(name: str, value: object, block: RandomBlock) -> Matrix:
    Sigma = _numbers(name, value)
    k = block.k
    if Sigma.shape != (k, k):
        raise DesignError(
            f"The variance of {name!r} has shape {Sigma.shape}, but the term has {k} "
            f"coefficient{'s' if k > 1 else ''}.",
            hint=f"Give a covariance matrix of {', '.join(block.columns)}."
            if k > 1
            else "Give one number.",
        )
    if not np.allclose(Sigma, Sigma.T, rtol=1e-10, atol=0.0):
        raise DesignError(f"The covariance of {name!r} is not symmetric.")
    smallest = float(np.linalg.eigvalsh(Sigma)[0])
    if smallest < -1e-12 * float(np.abs(Sigma).max()):
        raise DesignError(
            f"The covariance of {name!r} is indefinite: its smallest eigenvalue is "
            f"{smallest:.4g}."
        )
    structure = STRUCTURES[block.term.structure]
    if not structure.couples and np.any(Sigma != np.diag(Sigma.diagonal())):
        raise DesignError(
            f"{block.term.source} has independent coefficients, but the covariance of "
            f"{name!r} is not diagonal."
        )
    return Sigma
