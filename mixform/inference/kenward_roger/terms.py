"""How V depends on the parameters of the random terms, and the sums that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import InferenceError
from mixform.estimate.criterion import Evaluation
from mixform.estimate.problem import Problem, split_blocks


@runtime_checkable
class Nonlinear(Protocol):
    """A structure whose covariance T T' is not linear in its natural parameters.

    Those are the parameters that SAS reports, such as variances and correlations. A
    multiple of T T' is in the family, whatever its parameters.
    """

    def natural_derivatives(self, theta: Vector, k: int) -> tuple[Stack, Stack]:
        """Return derivatives of T T' by them, (t, k, k), and second, (t, t, k, k)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """The covariance of one random term, relative to the residual variance.

    Attributes
    ----------
    D : (t, k, k) its derivatives by natural parameters
    gamma : (t,) with T T' = sum gamma_i D_i
    second : (t, t, k, k) second derivatives; None if they are zero
    """

    D: Stack
    gamma: Vector
    second: Stack | None


def terms_of(here: Evaluation, theta: Vector) -> list[Term]:
    """Return how the covariance of each random term depends on its parameters.

    A parameter that the covariance does not depend on, such as a correlation where the
    variance is zero, is left out.

    Raises
    ------
    InferenceError : the derivatives of a structure are not known
    """
    problem = here.problem
    out: list[Term] = []
    for structure, where, block, T in zip(
        problem.structures, problem.theta_slices, problem.blocks, here.T, strict=True
    ):
        second = None
        if structure.linear:
            D = structure.spanning(block.k)
        elif isinstance(structure, Nonlinear):
            D, second = structure.natural_derivatives(theta[where], block.k)
            moves = np.any(D != 0.0, axis=(1, 2))
            D, second = D[moves], second[np.ix_(moves, moves)]
        else:
            raise InferenceError(
                f"Kenward-Roger's approximation of {structure.name!r} is not known.",
                hint='Use ddf="satterthwaite".',
            )
        flat, Sigma = D.reshape(len(D), -1).T, (T @ T.T).ravel()
        gamma = np.linalg.lstsq(flat, Sigma, rcond=None)[0]
        out.append(Term(D=D, gamma=gamma, second=second))
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over rows, V in units of the residual variance, for s parameters.

    Attributes
    ----------
    A : (s, p, p) X'V^-1 D_i V^-1X
    traces : (s, s) of V^-1 D_i V^-1 D_j
    fixed_traces : from half (p, p), half half' = Phi, to tr(Phi Q_ij), (s, s)
    weighed : from W (s, s) to sum W_ij Q_ij, (p, p)
    """

    A: Stack
    traces: Matrix
    fixed_traces: Callable[[Matrix], Matrix]
    weighed: Callable[[Matrix], Matrix]


def level_products(terms: list[Term], array: Matrix, problem: Problem) -> Stack:
    """Return (r, q, p): (A (x) D_i) times an array (q, p), zero outside the block."""
    p = array.shape[1]
    out = np.zeros((sum(len(term.D) for term in terms), *array.shape))
    parts = split_blocks(problem.times_A(array), problem.blocks)
    i = start = 0
    for term, part in zip(terms, parts, strict=True):
        size = part.shape[0] * part.shape[1]
        for D in term.D:
            out[i, start : start + size] = (D @ part).reshape(size, p)
            i += 1
        start += size
    return out
