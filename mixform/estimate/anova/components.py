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
from mixform.estimate.anova.columns import Columns, columns_of
from mixform.estimate.anova.options import Sums
from mixform.estimate.anova.pieces import rank, rest_after, span
from mixform.estimate.anova.quadratics import (
    Quadratic,
    coefficients,
    quadratic,
    sum_of_squares,
    trace,
)
from mixform.estimate.certificate import Certificate
from mixform.estimate.criterion import evaluate
from mixform.estimate.fit import Convergence, Fit
from mixform.estimate.held import Given
from mixform.estimate.mean_squares import MeanSquares
from mixform.estimate.problem import build_problem
from mixform.estimate.reml import Control, record, scaled_start
from mixform.estimate.responses import checked_response
from mixform.mme import few_threads

#: Relative size of a coefficient that is nothing but rounding.
ROUNDING = 1e-11


def estimate_anova(design: Design, options: Sums | None = None) -> Fit:
    """Estimate the variances by analysis of variance, the effects given them.

    Where an estimate is negative the effects and their covariance take zero.

    Raises
    ------
    DesignError : a term with several coefficients, a structure or a relationship; a
        residual structure; a term without degrees of freedom of its own
    """
    options = options or Sums()
    require_components(design)
    found = mean_squares(design, options.sums)
    sigma2 = float(found.components[-1])
    given = Given(
        names=("residual",),
        Sigma=(None,) * len(design.blocks),
        ratio=(None,) * len(design.blocks),
        sigma2=sigma2,
    )
    control = Control(backend=options.backend)
    problem = build_problem(design, reml=True, backend=control.backend, given=given)
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
    """Return mean squares, their expectations, and the components.

    Raises
    ------
    DesignError : a term, or the residual, has no degrees of freedom
    SolverError : the dense matrices would not fit into memory
    """
    columns = columns_of(design)
    forms = [_form(design, columns, i, sums) for i in range(len(design.blocks))]
    response = checked_response(design)
    y, scale = response.rest[:, 0], float(response.y_scale[0])
    residual_df, rss = _residual(columns, forms, y)
    num_df = np.array([*(form.rank for form in forms), residual_df], dtype=float)
    r = len(forms)
    E = np.zeros((r + 1, r + 1))
    for i, form in enumerate(forms):
        E[i, :r] = coefficients(form, r)
    E[:, r] = num_df
    expectation = E / num_df[:, None]
    expectation[np.abs(expectation) < ROUNDING * expectation.max()] = 0.0
    _require_determined(design, expectation)
    mean_sq = np.array([*(sum_of_squares(columns, f, y) for f in forms), rss]) / num_df
    components = np.linalg.solve(expectation, mean_sq)
    inverse = np.linalg.inv(expectation) / num_df
    V = _covariance(columns, forms, components, num_df)
    V_tests = V
    if np.any(components < 0.0):
        V_tests = _covariance(columns, forms, np.maximum(components, 0.0), num_df)
    return MeanSquares(
        sums=sums,
        num_df=num_df,
        mean_sq=scale**2 * mean_sq,
        expectation=expectation,
        components=scale**2 * components,
        V=scale**4 * inverse @ V @ inverse.T,
        V_tests=scale**4 * inverse @ V_tests @ inverse.T,
    )


def _form(design: Design, columns: Columns, i: int, sums: str) -> Quadratic:
    """Return the quadratic form of random term i.

    After the fixed part and all random terms that do not contain it; or, of type 1,
    those before it.

    Raises
    ------
    DesignError : it has no degrees of freedom
    """
    block, blocks = design.blocks[i], design.blocks
    others = [
        j
        for j in range(len(blocks))
        if (j < i if sums == "type1" else i not in columns.within[j])
    ]
    form = quadratic(columns, i, others)
    if form.rank == 0:
        before = ", ".join(["the fixed part", *(blocks[j].term.source for j in others)])
        hint = 'Write terms in front of those that contain them, or use method="REML".'
        raise DesignError(
            f"{block.term.source} has no degrees of freedom of its own after {before}.",
            formula=design.formula.source,
            span=block.term.span,
            hint=hint if sums == "type1" else "Leave the term out.",
        )
    return form


def _residual(columns: Columns, forms: list[Quadratic], y: Vector) -> tuple[int, float]:
    """Return degrees of freedom and sum of squares of the residual.

    Raises
    ------
    DesignError : nothing is left
    """
    every = set(range(len(forms)))
    spaces = (f.space for f in forms if f.touched == frozenset([f.term]))
    pieces = next(spaces, None) or span(columns, every)
    residual_df = len(y) - rank(pieces)
    if residual_df < 1:
        raise DesignError(
            "The terms leave no residual degrees of freedom: analysis of variance has "
            "no mean square for the residual variance.",
            hint="Leave out the random term whose levels have one row each.",
        )
    rss = float(np.sum(rest_after(columns, pieces, y[:, None]) ** 2))
    if not rss > 1e-12 * float(y @ y):
        raise DesignError(
            "The terms fit the response to the last digit; no residual variance is "
            "left.",
            hint="Drop a random term, or check the response for copies.",
        )
    return residual_df, rss


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


def _covariance(
    columns: Columns, forms: list[Quadratic], components: Vector, num_df: Vector
) -> Matrix:
    """Return Cov(q_i, q_k) = 2 tr(A_i V A_k V), (r + 1, r + 1), residual last."""
    r, sigma2 = len(forms), float(components[-1])
    variances = dict(enumerate(components[:-1].tolist())) | {-1: sigma2}
    out = np.zeros((r + 1, r + 1))
    out[r, r] = 2.0 * sigma2**2 * num_df[r]
    for i, one in enumerate(forms):
        for k, two in enumerate(forms[: i + 1]):
            out[i, k] = out[k, i] = 2.0 * trace(columns, one, two, variances)
    return out
