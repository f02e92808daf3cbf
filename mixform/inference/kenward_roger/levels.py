"""Sums over rows for independent residuals, from products over random effects only.

With K = Z'V^-1Z and dV = Z (A (x) D_r) Z', A the relationship of the levels or the
identity, all that is needed is X'V^-1Z, products of K with p columns, and tr(K (A (x)
D_r) K (A (x) D_s)); what the residual contributes follows from R = V - sum gamma_r
dV_r. K has entries only between random effects that are connected through rows or
related, so unit vectors of unconnected levels share a column.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import Codes, Matrix, Stack, Vector
from mixform.estimate.criterion import Evaluation
from mixform.estimate.problem import Problem, split_blocks
from mixform.inference.kenward_roger.terms import Moments, Term, level_products
from mixform.mme.backends import require_memory

#: Entries of Z'V^-1Z that are worked on at a time.
CHUNK = 1 << 24


def level_moments(here: Evaluation, terms: list[Term]) -> Moments:
    """Return the sums for the parameters of the terms, the residual variance last.

    Raises
    ------
    SolverError : the work would not fit into memory
    """
    problem = here.problem
    p = problem.p
    gamma = np.concatenate([np.empty(0), *(term.gamma for term in terms)])
    r = len(gamma)
    sides = level_products(terms, here.ZtVinvX, problem)
    flat = sides.transpose(1, 0, 2).reshape(len(here.ZtVinvX), r * p)
    K_sides = _times_K(here, flat)
    A = np.empty((r + 1, p, p))
    Q = np.empty((r + 1, r + 1, p, p))
    A[:r] = np.einsum("qa,iqb->iab", here.ZtVinvX, sides, optimize=True)
    Q[:r, :r] = (flat.T @ K_sides).reshape(r, p, r, p).transpose(0, 2, 1, 3)
    traces = np.empty((r + 1, r + 1))
    traces[:r, :r], single = _traces(here, [term.D for term in terms])
    # The residual's share: R = V - sum gamma_i dV_i.
    R_XX = np.linalg.inv(here.R_inverse)
    A[r] = R_XX.T @ R_XX - np.tensordot(gamma, A[:r], axes=1)
    Q[r, :r] = A[:r] - np.tensordot(gamma, Q[:r, :r], axes=1)
    Q[:r, r] = Q[r, :r].transpose(0, 2, 1)
    Q[r, r] = A[r] - np.tensordot(gamma, Q[:r, r], axes=1)
    traces[r, :r] = traces[:r, r] = single - gamma @ traces[:r, :r]
    traces[r, r] = problem.n - gamma @ single - gamma @ traces[:r, r]
    return Moments(
        A=A,
        traces=traces,
        fixed_traces=lambda half: np.einsum("ab,ijba->ij", half @ half.T, Q),
        weighed=lambda W: np.einsum("ij,ijab->ab", W, Q),
    )


def _times_K(here: Evaluation, B: Matrix) -> Matrix:
    """Return Z'V^-1Z B for B (q, c)."""
    equations = here.problem.equations
    ZtZ_B = equations.ZtZ_dot(B)
    inner = equations.Lambda_dot(here.T, ZtZ_B, transpose=True)
    return ZtZ_B - equations.ZtZ_dot(
        equations.Lambda_dot(here.T, here.factor.solve(inner))
    )


def _traces(here: Evaluation, bases: list[Stack]) -> tuple[Matrix, Vector]:
    """Return the traces (r, r) of V^-1 dV_i V^-1 dV_j, and (r,) of V^-1 dV_i."""
    problem = here.problem
    starts = np.cumsum([0, *(len(basis) for basis in bases)]).tolist()
    out, single = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    for j, chunk, slots in _unit_columns(problem):
        # K_ij A_j and A_i K_ij, the same where levels are independent.
        KA = _times_K(here, problem.times_A(chunk))
        AK = problem.times_A(_times_K(here, chunk)) if problem.relations else KA
        k = problem.blocks[j].k
        here_j = slice(starts[j], starts[j + 1])
        for i, (left, right) in enumerate(
            zip(
                split_blocks(AK, problem.blocks),
                split_blocks(KA, problem.blocks),
                strict=True,
            )
        ):
            k_i = problem.blocks[i].k
            G = _pairs(right, k).T @ _pairs(left, k)
            here_i = slice(starts[i], starts[i + 1])
            out[here_i, here_j] += np.einsum(
                "iab,jcd,adbc->ij",
                bases[i],
                bases[j],
                G.reshape(k_i, k, k_i, k),
                optimize=True,
            )
            if i == j:
                own = np.concatenate(
                    [left[levels, :, s * k : (s + 1) * k] for s, levels in slots]
                )
                single[here_j] += np.einsum("jab,lba->j", bases[j], own)
    return (out + out.T) / 2.0, single


def _pairs(part: Matrix, k: int) -> Matrix:
    """Return (pairs of levels, k_i * k) of a part (m, k_i, slots * k)."""
    m, k_i, width = part.shape
    pairs = part.reshape(m, k_i, width // k, k).transpose(0, 2, 1, 3)
    return pairs.reshape(-1, k_i * k)


def _used_levels(problem: Problem) -> list[Codes]:
    """Return for each block the levels that have rows: Z is zero for others."""
    return [np.unique(block.codes) for block in problem.blocks]


def _unit_columns(
    problem: Problem,
) -> Iterator[tuple[int, Matrix, list[tuple[int, np.ndarray]]]]:
    """Yield, for each block, unit vectors of its levels, unconnected ones together.

    Yields
    ------
    block, columns (q, s * k), and for each of the s slots the levels in it
    """
    if not problem.blocks:
        return
    q = problem.equations.q
    widest = max(block.k for block in problem.blocks)
    at_a_time = max(1, CHUNK // (q * widest))
    require_memory(
        8.0 * 5 * q * widest * at_a_time,
        f"Kenward-Roger's products of {q} random effects",
    )
    start = 0
    for j, (block, component, used) in enumerate(
        zip(problem.blocks, _components(problem), _used_levels(problem), strict=True)
    ):
        component = component[used]
        order = np.argsort(component, kind="stable")
        sizes = np.bincount(component)
        firsts = np.cumsum(sizes) - sizes
        rank = np.full(block.m, -1)
        rank[used[order]] = np.arange(len(used)) - firsts[component[order]]
        for first in range(0, int(sizes.max()), at_a_time):
            width = min(at_a_time, int(sizes.max()) - first)
            slots = [(s, np.flatnonzero(rank == first + s)) for s in range(width)]
            columns = np.zeros((q, width * block.k))
            for s, levels in slots:
                for c in range(block.k):
                    columns[start + levels * block.k + c, s * block.k + c] = 1.0
            yield j, columns, slots
        start += block.q


def _components(problem: Problem) -> list[np.ndarray]:
    """Return for each block the connected component of each level, (m,)."""
    sizes = [block.m for block in problem.blocks]
    starts = np.cumsum([0, *sizes])
    edges = [
        (starts[j] + one.codes, starts[j + 1] + other.codes)
        for j, (one, other) in enumerate(
            zip(problem.blocks[:-1], problem.blocks[1:], strict=True)
        )
    ]
    for start, block in zip(starts, problem.blocks, strict=False):
        if block.precision is not None:
            related = coo_array(block.precision)
            edges.append((start + related.row, start + related.col))
    rows = np.concatenate([e[0] for e in edges]) if edges else np.empty(0, int)
    columns = np.concatenate([e[1] for e in edges]) if edges else np.empty(0, int)
    graph = coo_array(
        (np.ones(len(rows), dtype=np.int8), (rows, columns)),
        shape=(int(starts[-1]), int(starts[-1])),
    )
    _, labels = connected_components(graph, directed=False)
    return [labels[a:b] for a, b in pairwise(starts)]
