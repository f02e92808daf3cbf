"""Variance components from mean squares and their expectations.

With quadratic forms q_i = y'A_i y, A_i X = 0, from reductions in sums of squares and
the residual::

    E q_i = sum_j tr(Z_j'A_i Z_j) sigma_j^2 + tr(A_i) sigma^2
    Cov(q_i, q_k) = 2 tr(A_i V A_k V)

(Henderson 1953, Biometrics 9, 226, method III; Searle, Casella and McCulloch 1992,
Variance Components, chapters 4 and 5). The components that give each mean square its
expectation are unbiased, and may be negative.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design, RandomBlock
from mixform.design.random import block_labels
from mixform.errors import DesignError
from mixform.estimate.anova.sources import (
    contains,
    coordinates,
    reduction,
)
from mixform.estimate.certificate import Certificate
from mixform.estimate.criterion import evaluate
from mixform.estimate.fit import Convergence, Fit
from mixform.estimate.held import Given
from mixform.estimate.mean_squares import Coordinates, MeanSquares
from mixform.estimate.problem import build_problem
from mixform.estimate.reml import Control, record, scaled_start
from mixform.mme import few_threads

#: Relative size of a coefficient that is nothing but rounding.
ROUNDING = 1e-11


def estimate_anova(design: Design, control: Control) -> Fit:
    """Estimate the variances by analysis of variance, the effects given them.

    Where an estimate is negative the effects and their covariance take zero.

    Raises
    ------
    DesignError : a term with several coefficients, a structure or a relationship; a
        residual structure; a term without degrees of freedom of its own
    """
    require_components(design)
    found = mean_squares(design, control.sums)
    sigma2 = float(found.components[-1])
    given = Given(
        names=("residual",),
        Sigma=(None,) * len(design.blocks),
        ratio=(None,) * len(design.blocks),
        sigma2=sigma2,
    )
    backend = control.backend
    problem = build_problem(design, reml=True, backend=backend, given=given)
    ratios = np.sqrt(np.maximum(found.components[:-1], 0.0) / sigma2)
    theta = scaled_start(problem, ratios)
    with few_threads(problem.equations):
        here = evaluate(problem, theta)
    certificate = Certificate(
        predicted_decrease=0.0, smallest_eigenvalue=np.inf, direction=None
    )
    fit = record(design, "ANOVA", (theta, here, certificate, 1), control)
    convergence = Convergence(
        converged=True,
        n_evaluations=1,
        predicted_decrease=0.0,
        smallest_eigenvalue=np.inf,
        backend=problem.equations.name,
        message="solved from mean squares",
    )
    return replace(fit, convergence=convergence, anova=found)


def require_components(design: Design) -> None:
    """Refuse what has no variance component of its own.

    Raises
    ------
    DesignError : the term is named
    """
    for block in design.blocks:
        why = _no_component(block)
        if why:
            raise DesignError(
                f"Analysis of variance cannot estimate {block.term.source}: {why}.",
                formula=design.formula.source,
                span=block.term.span,
                hint='Use method="REML".',
            )
    if design.residual is not None:
        raise DesignError(
            "Analysis of variance cannot estimate a residual structure: it is about "
            "variances of independent effects.",
            hint='Use method="REML".',
        )


def _no_component(block: RandomBlock) -> str:
    """Return why a term has no variance component, "" if it has one."""
    if block.relation is not None:
        return "its levels are related"
    if block.k > 1 and block.term.structure == "us":
        return "its coefficients have a covariance matrix"
    if block.k > 1:
        return f"it has {block.k} coefficients"
    if block.term.structure not in ("us", "diag", "iid"):
        return f"it has the covariance structure {block.term.structure!r}"
    return ""


def mean_squares(design: Design, sums: str) -> MeanSquares:
    """Return mean squares, their expectations, and the components."""
    where = coordinates(design)
    blocks = design.blocks
    r = len(blocks)
    bases = [_basis(design, where, i, sums) for i in range(r)]
    num_df = np.array([*(U.shape[1] for U in bases), where.residual_df], dtype=float)
    squares = [float(np.sum((U.T @ where.y) ** 2)) for U in bases]
    coefficients = np.zeros((r + 1, r + 1))
    for i, U in enumerate(bases):
        coefficients[i, :r] = [float(np.sum((U.T @ Z) ** 2)) for Z in where.Z]
    coefficients[:, r] = num_df
    expectation = coefficients / num_df[:, None]
    expectation[np.abs(expectation) < ROUNDING * expectation.max()] = 0.0
    _require_determined(design, expectation)
    mean_sq = np.array([*squares, where.rss]) / num_df
    components = np.linalg.solve(expectation, mean_sq)
    inverse = np.linalg.inv(expectation) / num_df
    V_squares = _covariance_of_squares(where, bases, components)
    return MeanSquares(
        sums=sums,
        num_df=num_df,
        mean_sq=mean_sq,
        expectation=expectation,
        components=components,
        V=inverse @ V_squares @ inverse.T,
        where=where,
    )


def _basis(design: Design, where: Coordinates, i: int, sums: str) -> Matrix:
    """Return the basis of the reduction of random term i.

    After the fixed part and all random terms that do not contain it; or, of type 1,
    those before it.

    Raises
    ------
    DesignError : it has no degrees of freedom
    """
    block, blocks = design.blocks[i], design.blocks
    others = [
        j
        for j, other in enumerate(blocks)
        if (j < i if sums == "type1" else j != i and not contains(other, block))
    ]
    U = reduction([where.X, *(where.Z[j] for j in others)], where.Z[i])
    if U.shape[1] == 0:
        before = ", ".join(["the fixed part", *(blocks[j].term.source for j in others)])
        hint = 'Write terms in front of those that contain them, or use method="REML".'
        raise DesignError(
            f"{block.term.source} has no degrees of freedom of its own after {before}.",
            formula=design.formula.source,
            span=block.term.span,
            hint=hint if sums == "type1" else "Leave the term out.",
        )
    return U


def _require_determined(design: Design, expectation: Matrix) -> None:
    """Refuse terms that the mean squares cannot tell apart."""
    scaled = expectation / np.abs(expectation).max(axis=0)
    if np.linalg.matrix_rank(scaled, tol=1e-9) == len(scaled):
        return
    names = ", ".join(block_labels(design.blocks))
    raise DesignError(
        f"The mean squares of {names} do not determine their variances.",
        formula=design.formula.source,
        hint="Two of the terms have the same levels: leave one out.",
    )


def _covariance_of_squares(
    where: Coordinates, bases: list[Matrix], components: Vector
) -> Matrix:
    """Return Cov(q_i, q_k) = 2 tr(A_i V A_k V), (r + 1, r + 1), residual last."""
    r, sigma2 = len(bases), float(components[-1])
    out = np.zeros((r + 1, r + 1))
    out[r, r] = 2.0 * sigma2**2 * where.residual_df
    half = [[U.T @ Z for Z in where.Z] for U in bases]
    for i in range(r):
        for k in range(i + 1):
            block = sigma2 * (bases[i].T @ bases[k])
            for value, one, two in zip(components, half[i], half[k], strict=False):
                block += value * one @ two.T
            out[i, k] = out[k, i] = 2.0 * float(np.sum(block**2))
    return out
