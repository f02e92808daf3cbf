"""Kenward and Roger's covariance of the fixed effects and their degrees of freedom.

Kenward and Roger (1997, Biometrics 53, 983) correct (X'V^-1X)^-1 for the variances
being estimated, and match a scaled Wald statistic to an F distribution. V is linear in
its parameters, V = sum gamma_r G_r: the variances and covariances of each random term,
and the residual variance; their covariance is the inverse of the expected information.

Nothing here is n x n. With K = Z'V^-1Z and G_r = Z (I (x) E_r) Z', all that is needed
is X'V^-1Z, products of K with p columns, and tr(K (I (x) E_r) K (I (x) E_s)); what the
residual contributes follows from R = V - sum gamma_r G_r. K has entries only between
random effects that are connected through rows, so unit vectors of unconnected levels
share a column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation
from mixform.estimate.problem import Problem, split_blocks
from mixform.inference.related import require_unrelated
from mixform.mme import few_threads
from mixform.mme.backends import require_memory

#: Entries of Z'V^-1Z that are worked on at a time.
CHUNK = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KenwardRoger:
    """Kenward and Roger's approximation for the fixed effects of one fit.

    Attributes
    ----------
    V_beta : (p, p) adjusted covariance of the estimates
    V_unadjusted : (p, p) (X'V^-1X)^-1, too small because V is estimated
    A : (r, p, p) X'V^-1 G_i V^-1X, for each parameter
    W : (r, r) covariance of the parameters, by the expected information
    """

    V_beta: Matrix
    V_unadjusted: Matrix
    A: Stack
    W: Matrix

    @property
    def title(self) -> str:
        """Name of the method, as printed."""
        return "Kenward-Roger"

    @property
    def note(self) -> None:
        """There always are degrees of freedom."""
        return

    def t_ddf(self, L: Matrix) -> Vector:
        """Return the df of each row of L (r, p); NaN for a row of zeros."""
        return np.array(
            [self.f_ddf(ell[None])[0] if np.any(ell) else np.nan for ell in L]
        )

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df m and the factor lambda of the Wald F of L (q, p).

        Kenward and Roger (1997), section 3: from A1, A2 and B, the moments of the
        statistic, by the formulas that are exact where it has an exact F distribution.
        """
        q = len(L)
        Phi = self.V_unadjusted
        # With M = L'(L Phi L')^-1 L, M Phi A_i Phi has the nonzero eigenvalues of
        # H_i = S^-1 L Phi A_i Phi L' S^-1', S S' = L Phi L'.
        S = np.linalg.cholesky(L @ Phi @ L.T)
        half = np.linalg.solve(S, L @ Phi)
        H = half @ self.A @ half.T
        traces = np.einsum("iaa->i", H)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.einsum("ij,iab,jba->", self.W, H, H, optimize=True))
        return matched_f(A1, A2, q)


def matched_f(A1: float, A2: float, q: int) -> tuple[float, float]:
    """Return m and lambda, lambda F ~ F(q, m), from the moments of F.

    Examples
    --------
    A variance estimated with 5 df: A1 = A2 = 2/5 for one contrast.

    >>> m, factor = matched_f(0.4, 0.4, 1)
    >>> round(m, 9), round(factor, 9)
    (5.0, 1.0)
    """
    if A2 == 0.0:
        return np.inf, 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    common = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / common, (q - g) / common, (q + 2.0 - g) / common
    # rho = V* / (2 E*^2) with E* = 1 / (1 - A2/q), V* = (2/q) (1 + c1 B) / ...
    shrink = 1.0 - A2 / q
    numerator, first, second = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    # Where A2 nears q both go to zero together, and their ratio to one.
    ratio = 1.0 if abs(shrink) < 1e-10 and abs(first) < 1e-10 else shrink / first
    rho = ratio**2 * numerator / (q * second)
    m = 4.0 + (q + 2.0) / (q * rho - 1.0)
    if q == 1 or abs(m - 2.0) < 1e-2:
        return m, 1.0
    return m, m * shrink / (m - 2.0)


def kenward_roger(fit: Fit) -> KenwardRoger:
    """Return Kenward and Roger's approximation.

    Parameters are counted as pbkrtest does: each distinct entry of each random term's
    covariance, zero or not, and the residual variance.

    Raises
    ------
    InferenceError : the fit is by ML; or the expected information is singular
    SolverError : the work would not fit into memory
    """
    if fit.method != "REML":
        raise InferenceError(
            "Kenward-Roger's approximation is derived for REML; this fit is by ML.",
            hint='Fit with method="REML", or use ddf="satterthwaite".',
        )
    require_unrelated(fit, "Kenward-Roger's approximation", 'Use ddf="satterthwaite".')
    here = fit.evaluation
    problem = here.problem
    with few_threads(problem.equations):
        A, Q, traces = _moments(here)
    # In units in which the residual variance is one; X orthonormal.
    Phi = here.R_inverse @ here.R_inverse.T
    APhiA = np.einsum("iab,bc,jcd->ijad", A, Phi, A, optimize=True)
    information = traces - np.einsum("ab,ijba->ij", Phi, 2.0 * Q - APhiA)
    W = 2.0 * _inverse(information)
    change = np.einsum("ij,ijab->ab", W, Q - APhiA)
    change = Phi @ (change + change.T) @ Phi
    to_user = np.linalg.inv(fit.design.fixed.R) * fit.sigma
    from_user = fit.design.fixed.R / fit.sigma
    return KenwardRoger(
        V_beta=to_user @ (Phi + change) @ to_user.T,
        V_unadjusted=fit.V_beta,
        A=from_user.T @ A @ from_user,
        W=W,
    )


def _inverse(information: Matrix) -> Matrix:
    scale = np.sqrt(np.diag(information))
    try:
        if not np.all(scale > 0.0):
            raise LinAlgError
        factor = cho_factor(information / np.outer(scale, scale))
    except LinAlgError:
        raise InferenceError(
            "The expected information of the variance parameters is singular: the data "
            "do not tell them apart.",
            hint='Drop a random term, or use ddf="satterthwaite".',
        ) from None
    inverse = cho_solve(factor, np.eye(len(scale))) / np.outer(scale, scale)
    return (inverse + inverse.T) / 2.0


def _moments(here: Evaluation) -> tuple[Stack, np.ndarray, Matrix]:
    """Return A (r, p, p), Q (r, r, p, p) and the traces (r, r); residual last.

    Q_ij = X'V^-1 G_i V^-1 G_j V^-1X and the traces are of V^-1 G_i V^-1 G_j, all with V
    in units of the residual variance.
    """
    problem = here.problem
    p = problem.p
    bases = [
        structure.spanning(block.k)
        for structure, block in zip(problem.structures, problem.blocks, strict=True)
    ]
    gamma = np.concatenate(
        [
            np.linalg.lstsq(
                basis.reshape(len(basis), -1).T, (T @ T.T).ravel(), rcond=None
            )[0]
            for basis, T in zip(bases, here.T, strict=True)
        ]
        or [np.empty(0)]
    )
    r = len(gamma)
    K_X = split_blocks(here.ZtVinvX, problem.blocks)
    sides = _level_products(bases, K_X, problem)
    flat = sides.transpose(1, 0, 2).reshape(len(here.ZtVinvX), r * p)
    K_sides = _times_K(here, flat)
    A = np.empty((r + 1, p, p))
    Q = np.empty((r + 1, r + 1, p, p))
    A[:r] = np.einsum("qa,iqb->iab", here.ZtVinvX, sides, optimize=True)
    Q[:r, :r] = (flat.T @ K_sides).reshape(r, p, r, p).transpose(0, 2, 1, 3)
    traces = np.empty((r + 1, r + 1))
    traces[:r, :r], single = _traces(here, bases)
    # The residual's share: R = V - sum gamma_i G_i.
    R_XX = np.linalg.inv(here.R_inverse)
    A[r] = R_XX.T @ R_XX - np.tensordot(gamma, A[:r], axes=1)
    Q[r, :r] = A[:r] - np.tensordot(gamma, Q[:r, :r], axes=1)
    Q[:r, r] = Q[r, :r].transpose(0, 2, 1)
    Q[r, r] = A[r] - np.tensordot(gamma, Q[:r, r], axes=1)
    traces[r, :r] = traces[:r, r] = single - gamma @ traces[:r, :r]
    traces[r, r] = problem.n - gamma @ single - gamma @ traces[:r, r]
    return A, Q, traces


def _level_products(bases: list[Stack], parts: list[Matrix], problem: Problem) -> Stack:
    """Return (r, q, p): (I (x) E_i) Z'V^-1X, zero outside the block of E_i."""
    q, p = problem.equations.q, problem.p
    out = np.zeros((sum(map(len, bases)), q, p))
    i = start = 0
    for basis, part in zip(bases, parts, strict=True):
        size = part.shape[0] * part.shape[1]
        for E in basis:
            out[i, start : start + size] = (E @ part).reshape(size, p)
            i += 1
        start += size
    return out


def _times_K(here: Evaluation, B: Matrix) -> Matrix:
    """Return Z'V^-1Z B for B (q, c)."""
    equations = here.problem.equations
    ZtZ_B = equations.ZtZ_dot(B)
    inner = equations.Lambda_dot(here.T, ZtZ_B, transpose=True)
    return ZtZ_B - equations.ZtZ_dot(
        equations.Lambda_dot(here.T, here.factor.solve(inner))
    )


def _traces(here: Evaluation, bases: list[Stack]) -> tuple[Matrix, Vector]:
    """Return the traces (r, r) of V^-1 G_i V^-1 G_j, and (r,) of V^-1 G_i."""
    problem = here.problem
    starts = np.cumsum([0, *(len(basis) for basis in bases)]).tolist()
    out, single = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    for j, chunk, slots in _unit_columns(problem):
        K = _times_K(here, chunk)
        k = problem.blocks[j].k
        here_j = slice(starts[j], starts[j + 1])
        for i, part in enumerate(split_blocks(K, problem.blocks)):
            k_i = problem.blocks[i].k
            # (m, k_i, slots, k) -> products summed over pairs of levels
            pairs = part.reshape(-1, k_i, len(slots), k).transpose(0, 2, 1, 3)
            rows = pairs.reshape(-1, k_i * k)
            G = (rows.T @ rows).reshape(k_i, k, k_i, k)
            here_i = slice(starts[i], starts[i + 1])
            out[here_i, here_j] += np.einsum(
                "iab,jcd,adbc->ij", bases[i], bases[j], G, optimize=True
            )
            if i == j:
                own = np.concatenate(
                    [part[levels, :, s * k : (s + 1) * k] for s, levels in slots]
                )
                single[here_j] += np.einsum("jab,lba->j", bases[j], own)
    return out, single


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
    for j, (block, component) in enumerate(
        zip(problem.blocks, _components(problem), strict=True)
    ):
        order = np.argsort(component, kind="stable")
        sizes = np.bincount(component)
        firsts = np.cumsum(sizes) - sizes
        rank = np.empty(block.m, dtype=np.int64)
        rank[order] = np.arange(block.m) - firsts[component[order]]
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
    rows = np.concatenate([e[0] for e in edges]) if edges else np.empty(0, int)
    columns = np.concatenate([e[1] for e in edges]) if edges else np.empty(0, int)
    graph = coo_array(
        (np.ones(len(rows), dtype=np.int8), (rows, columns)),
        shape=(int(starts[-1]), int(starts[-1])),
    )
    _, labels = connected_components(graph, directed=False)
    return [labels[a:b] for a, b in pairwise(starts)]
