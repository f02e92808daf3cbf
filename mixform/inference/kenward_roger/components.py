"""Sums over rows for residual structures, from dense blocks of connected rows.

V is block-diagonal over components: rows that a chain of levels, relationships and
subjects connects. In rows whitened by R^-1/2, V = I + sum gamma_i D_i. Without random
terms the components are the subjects, and those of one pattern share their traces.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import AnyArray, Codes, Matrix, Stack
from mixform.estimate.criterion import Evaluation, require_rows
from mixform.estimate.problem import Problem
from mixform.inference.kenward_roger.patterns import (
    Pattern,
    derivative_blocks,
    natural_places,
    patterns_of,
    spread,
)
from mixform.inference.kenward_roger.terms import Moments, Term, level_products
from mixform.mme import ZBlock
from mixform.mme.backends import require_memory

#: Entries of the blocks of V's derivatives that are worked on at a time.
CHUNK = 1 << 22

#: A batch of subjects, the parameters of its residuals, and the derivatives by them.
Derivatives = tuple[Pattern, Codes, Stack]


def component_moments(here: Evaluation, terms: list[Term]) -> Moments:
    """Return the sums for the parameters of the terms, then of the residuals.

    Raises
    ------
    SolverError : the work would not fit into memory
    """
    problem = here.problem
    rows = require_rows(problem)
    model = rows.residual.model
    places = natural_places(model)
    t = sum(len(term.D) for term in terms)
    s, n, p = t + places.size, problem.n, problem.p
    require_memory(8.0 * 3 * s * n * p, f"Kenward-Roger's {s} derivatives of V")
    blocks = [
        (pattern, *derivative_blocks(model, places, pattern))
        for pattern in patterns_of(rows.residual)
    ]
    # D_i V^-1X, and V^-1 of it.
    F = here.RootVinvX
    DF = np.zeros((s, n, p))
    levels = level_products(terms, here.ZtVinvX, problem)
    for i in range(t):
        DF[i] = rows.Z_dot(levels[i])
    for pattern, which, E in blocks:
        batch = pattern.batch
        for a, E_a in zip(which, E, strict=True):
            DF[t + a][batch.rows] = spread(E_a, batch.which, F, batch.rows)
    VDF = np.array([_times_V_inverse(here, one) for one in DF]) if terms else DF
    return Moments(
        A=F.T @ DF,
        traces=_traces(here, terms, blocks, s) if terms else _own_traces(blocks, s),
        fixed_traces=lambda half: (
            (DF @ half).reshape(s, -1) @ (VDF @ half).reshape(s, -1).T
        ),
        weighed=lambda W: (
            DF.reshape(s * n, p).T @ np.tensordot(W, VDF, axes=1).reshape(s * n, p)
        ),
    )


def _times_V_inverse(here: Evaluation, B: Matrix) -> Matrix:
    """Return V^-1 B for B (n, c), in whitened rows."""
    problem = here.problem
    rows, equations = require_rows(problem), problem.equations
    inner = equations.Lambda_dot(here.T, rows.Zt_dot(equations, B), transpose=True)
    solved = here.factor.solve(inner)
    return B - rows.Z_dot(equations.Lambda_dot(here.T, solved))


def _own_traces(blocks: list[Derivatives], s: int) -> Matrix:
    """Return the traces (s, s) of E_a E_b over all subjects."""
    out = np.zeros((s, s))
    for pattern, which, E in blocks:
        counts = np.bincount(pattern.batch.which, minlength=E.shape[1])
        flat = E.reshape(len(E), -1)
        weighted = (E * counts[:, None, None]).reshape(len(E), -1)
        out[np.ix_(which, which)] += flat @ weighted.T
    return out


def _traces(
    here: Evaluation, terms: list[Term], blocks: list[Derivatives], s: int
) -> Matrix:
    """Return the traces (s, s) of V^-1 D_i V^-1 D_j."""
    problem = here.problem
    gamma = np.concatenate([term.gamma for term in terms])
    t, out = len(gamma), np.zeros((s, s))
    known = [_known_covariance(problem, j) for j in range(len(terms))]
    for rows in _equal_components(problem, blocks, s):
        N, v = rows.shape
        inside = _inside(rows, problem.n, blocks)
        DVinv = np.zeros((s, N, v, v))
        i = 0
        for term, block, A in zip(terms, problem.blocks, known, strict=True):
            for D in term.D:
                DVinv[i] = _whitened(_shared(block, D, A, rows), blocks, inside)
                i += 1
        inverse = np.linalg.inv(np.eye(v) + np.tensordot(gamma, DVinv[:t], axes=1))
        DVinv[:t] = DVinv[:t] @ inverse
        flat, columns = DVinv.reshape(s, N * v, v), inverse.reshape(N * v, v)
        for (_, which, E), (own, at) in zip(blocks, inside, strict=True):
            for a, E_a in zip(which, E, strict=True):
                flat[t + a][at] = spread(E_a, own, columns, at)
        transposed = DVinv.transpose(0, 1, 3, 2).reshape(s, -1)
        out += DVinv.reshape(s, -1) @ transposed.T
    return (out + out.T) / 2.0


def _inside(
    rows: Codes, n: int, blocks: list[Derivatives]
) -> list[tuple[Codes, Codes]]:
    """Return for each batch the patterns and rows, within some, of its subjects there.

    Parameters
    ----------
    rows : (N, v) of components
    """
    place = np.full(n, -1)
    place[rows.ravel()] = np.arange(rows.size)
    out: list[tuple[Codes, Codes]] = []
    for p, _, _ in blocks:
        chosen = place[p.batch.rows[:, 0]] >= 0
        out.append((p.batch.which[chosen], place[p.batch.rows[chosen]]))
    return out


def _shared(block: ZBlock, D: Matrix, A: Matrix | None, rows: Codes) -> Stack:
    """Return Z (A (x) D) Z' (N, v, v) of components, in rows that are not whitened."""
    design, codes = block.design[rows], block.codes[rows]
    one, two = codes[:, :, None], codes[:, None, :]
    shared = design @ D @ design.transpose(0, 2, 1)
    return np.where(one == two, shared, 0.0) if A is None else shared * A[one, two]


def _whitened(
    G: Stack, blocks: list[Derivatives], inside: list[tuple[Codes, Codes]]
) -> Stack:
    """Return R^-1/2 G R^-1/2' for symmetric G (N, v, v)."""
    N, v, _ = G.shape
    for _ in range(2):
        flat, out = G.reshape(N * v, v), np.empty((N * v, v))
        for (p, _, _), (own, at) in zip(blocks, inside, strict=True):
            scaled = p.L_inverse / p.D[:, None, :]
            out[at] = spread(scaled, own, flat, at)
        G = out.reshape(N, v, v).transpose(0, 2, 1)
    return G


def _known_covariance(problem: Problem, j: int) -> Matrix | None:
    """Return A (m, m) of the levels of a block that have rows, zero elsewhere."""
    relation = problem.relations[j] if problem.relations else None
    if relation is None:
        return None
    block = problem.blocks[j]
    used = np.unique(block.codes)
    require_memory(8.0 * 2 * block.m * len(used), f"{len(used)} related levels")
    units = np.zeros((block.m, len(used)))
    units[used, np.arange(len(used))] = 1.0
    out = np.zeros((block.m, block.m))
    out[:, used] = relation.times(units)
    return out


def _equal_components(
    problem: Problem, blocks: list[Derivatives], s: int
) -> Iterator[Codes]:
    """Yield the rows (N, v) of components of equally many rows, some at a time."""
    label = _components(problem, [p.batch.rows for p, _, _ in blocks])
    order = np.argsort(label, kind="stable")
    sizes = np.bincount(label)
    firsts = np.cumsum(sizes) - sizes
    largest = int(sizes.max())
    require_memory(
        8.0 * (2 * s + 3) * float(largest) ** 2,
        f"Kenward-Roger's derivatives of V over {largest} correlated rows",
    )
    for v in np.unique(sizes):
        chosen = firsts[sizes == v]
        width = max(1, CHUNK // (s * int(v) ** 2))
        for start in range(0, len(chosen), width):
            yield order[chosen[start : start + width, None] + np.arange(v)]


def _components(problem: Problem, subjects: list[Codes]) -> Codes:
    """Return the component of each row, (n,)."""
    subject = np.empty(problem.n, dtype=np.int64)
    end = 0
    for rows in subjects:
        subject[rows] = end + np.arange(len(rows))[:, None]
        end += len(rows)
    edges: list[tuple[AnyArray, AnyArray]] = []
    for block in problem.blocks:
        edges.append((subject, end + block.codes))
        if block.precision is not None:
            related = coo_array(block.precision)
            edges.append((end + related.row, end + related.col))
        end += block.m
    one, two = (np.concatenate(sides) for sides in zip(*edges, strict=True))
    ones = np.ones(len(one), dtype=np.int8)
    graph = coo_array((ones, (one, two)), shape=(end, end))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels[subject], return_inverse=True)[1]
