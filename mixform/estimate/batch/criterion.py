"""The criterion, its gradient and average information for a stack of thetas at once.

As in `criterion`, the same formulas: replicate r has its own theta and response, all
share the design. Leading axes are r (replicates) and d (slots of the layout); matrices
are s x s, small, so that each line is one pass over the whole stack.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.estimate.batch.layout import Layout, Piece
from mixform.estimate.criterion import LOG_2_PI
from mixform.estimate.problem import Problem
from mixform.estimate.trust_region import SHORTFALL

#: Up to this size, matrices are inverted by sweeps over the whole stack; LAPACK's call
#: for each costs more.
SWEEP_LIMIT = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solutions:
    """The solution of the mixed model equations for r thetas and responses.

    Attributes
    ----------
    theta : (r, t), or (1, t) for all; T, V_XX, LambdaMinv and K likewise
    T : (r, k, k) of each random term
    criterion : (r,); inf where nothing is left of the response
    noise : (r,) rounding error of the criterion
    r2 : (r,) penalized residual sum of squares
    beta : (r, p) fixed effects
    V_XX : (r, p, p) inverse of X'V^-1X
    rest : (r, d, s, w) Z'(y - X beta)
    LambdaMinv : (r, d, s, s) Lambda M^-1
    K : (r, d, s, s) Lambda M^-1 Lambda'
    """

    theta: Matrix
    T: tuple[Stack, ...]
    criterion: Vector
    noise: Vector
    r2: Vector
    beta: Matrix
    V_XX: Stack
    rest: AnyArray
    LambdaMinv: AnyArray
    K: AnyArray

    def take(self, rows: AnyArray) -> Solutions:
        """Return those of some replicates."""
        if rows.all():
            return self
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "T"}
        chosen = {name: part[rows] for name, part in parts.items()}
        return Solutions(T=tuple(T[rows] for T in self.T), **chosen)


def solve_batch(
    problem: Problem, layout: Layout, theta: Matrix, Zty: AnyArray, yty: Vector
) -> Solutions:
    """Solve the mixed model equations for responses Zty (r, d, s, w) at theta.

    Theta is (r, t), or (1, t) for all: then M is factored once.
    """
    r, p = len(yty), problem.p
    T = problem.factors(theta)
    Lambda = _block_diagonal(layout, T)[:, None]
    M = Lambda.swapaxes(-1, -2) @ (layout.C @ Lambda)
    diagonal = np.arange(M.shape[-1])
    M[..., diagonal, diagonal] += 1.0
    Minv, logdets = inverse_and_logdet(M)
    LambdaMinv = Lambda @ Minv
    K = LambdaMinv @ Lambda.swapaxes(-1, -2)
    KZty = K @ Zty
    # [X, y]'V^-1[X, y]; X is orthonormal and orthogonal to y before Z enters.
    XVX = np.eye(p) - (K.reshape(len(K), -1) @ layout.XX).reshape(len(K), p, p)
    XVy = -(KZty.reshape(r, -1) @ layout.ZtX)
    yVy = yty - np.einsum("ri,ri->r", Zty.reshape(r, -1), KZty.reshape(r, -1))
    V_XX, logdet_X = inverse_and_logdet(XVX)
    beta = np.einsum("rij,rj->ri", V_XX, XVy)
    r2 = yVy - np.einsum("ri,ri->r", beta, XVy)
    fitted = (beta @ layout.ZtX.T).reshape(Zty.shape)
    criterion = logdets @ layout.counts - problem.logdet_P + problem.logdet_R
    if problem.reml:
        criterion = criterion + logdet_X
    ddf = problem.residual_df
    with np.errstate(invalid="ignore", divide="ignore"):
        criterion = criterion + ddf * (1.0 + LOG_2_PI + np.log(r2 / ddf))
        noise = 1e-13 * (problem.n + np.abs(criterion)) + 1e-15 * ddf * yty / r2
    return Solutions(
        theta=theta,
        T=T,
        criterion=np.where(np.isfinite(criterion), criterion, np.inf),
        noise=noise,
        r2=r2,
        beta=beta,
        V_XX=V_XX,
        rest=Zty - fitted,
        LambdaMinv=LambdaMinv,
        K=K,
    )


def derivatives_batch(
    problem: Problem, layout: Layout, at: Solutions
) -> tuple[Matrix, Stack, Matrix]:
    """Return the gradient (r, t) and the average information (r, t, t).

    The information is raised where it is far below the expected one, as in the search
    for one response. The third is the part (r, t) of the gradient that comes from the
    log determinants, which is what the other part is in expectation.
    """
    sigma2 = at.r2 / problem.residual_df
    E = -(layout.C @ at.K)  # Z'V^-1 = E Z'
    diagonal = np.arange(E.shape[-1])
    E[..., diagonal, diagonal] += 1.0
    G = E @ at.rest  # Z'R^-1 e^
    u = at.LambdaMinv.swapaxes(-1, -2) @ at.rest
    # Z'R^-1Z Lambda M^-1, under REML less the correction for X.
    sums = layout.counts[:, None, None] * (layout.C @ at.LambdaMinv)
    if problem.reml and problem.p:
        XVX = at.V_XX.reshape(len(E), -1) @ layout.XX.T
        sums = sums - E @ (XVX.reshape(E.shape) @ at.LambdaMinv)
    sums = sums.sum(axis=1)
    r, d, s, w = G.shape
    t = problem.n_theta
    gradient, traces, bound = np.empty((3, r, t))
    H = np.zeros((r, d, s, t, w))
    for j, piece in enumerate(layout.pieces):
        structure, where = problem.structures[j], problem.theta_slices[j]
        dT = structure.derivatives(at.theta[:, where], piece.k)
        g = _by_level(G, piece)
        determinants = 2.0 * _level_sum(sums, piece)
        products = np.einsum("rdlaw,rdlcw->rac", g, _by_level(u, piece))
        by_T = determinants - 2.0 * products / sigma2[:, None, None]
        gradient[:, where] = np.einsum("...tac,...ac->...t", dT, by_T)
        traces[:, where] = np.einsum("...tac,...ac->...t", dT, determinants)
        coupled = structure.couples and piece.k > 1
        bound[:, where] = traces[:, where] ** 2 / (
            problem.blocks[j].m * (2 if coupled else 1)
        )
        half = dT @ at.T[j].swapaxes(-1, -2)[:, None]
        dSigma = half + half.swapaxes(-1, -2)
        moved = np.einsum("rtac,rdlcw->rdlatw", dSigma, g)
        H[:, :, piece.rows, where] = moved.reshape(r, d, -1, len(dSigma[0]), w)
    A = _average_information(layout, at, E, G, H) / sigma2[:, None, None]
    i = np.arange(A.shape[-1])
    A[:, i, i] += np.maximum(bound / SHORTFALL - A[:, i, i], 0.0)
    return gradient, A, traces


def _average_information(
    layout: Layout, at: Solutions, E: AnyArray, G: AnyArray, H: AnyArray
) -> Stack:
    """Return sigma^2 times the average information, (r, t, t).

    Parameters
    ----------
    E : (r, d, s, s), Z'V^-1 = E Z'; G : (r, d, s, w) Z'P~y
    H : (r, d, s, t, w) columns (I (x) dSigma_k) Z'P~y
    """
    r, d, s, t, w = H.shape
    p = at.beta.shape[1]
    flat = H.reshape(r, d, s, t * w)
    rows = _parameters_first(H)
    inside = _parameters_first((E @ (layout.C @ flat)).reshape(H.shape))
    quadratic = rows @ inside.swapaxes(1, 2)
    if p:
        Et_H = _parameters_first((E.swapaxes(-1, -2) @ flat).reshape(H.shape))
        F = (Et_H.reshape(r * t, -1) @ layout.ZtX).reshape(r, t, p)
        quadratic -= F @ at.V_XX @ F.swapaxes(1, 2)
    linear = (rows @ G.reshape(r, -1, 1))[..., 0]
    A = quadratic - linear[:, :, None] * linear[:, None, :] / at.r2[:, None, None]
    return (A + A.swapaxes(1, 2)) / 2.0


def _parameters_first(H: AnyArray) -> AnyArray:
    """Return (r, t, d * s * w) from (r, d, s, t, w)."""
    return H.transpose(0, 3, 1, 2, 4).reshape(len(H), H.shape[3], -1)


def _block_diagonal(layout: Layout, T: tuple[Stack, ...]) -> Stack:
    """Return Lambda of a component, (r, s, s)."""
    s = layout.C.shape[-1]
    out = np.zeros((len(T[0]), s, s))
    for piece, factor in zip(layout.pieces, T, strict=True):
        for level in range(piece.levels):
            at = slice(
                piece.start + level * piece.k, piece.start + (level + 1) * piece.k
            )
            out[:, at, at] = factor
    return out


def _by_level(array: AnyArray, piece: Piece) -> AnyArray:
    """Return the levels of one term, (r, d, levels, k, w), of an (r, d, s, w)."""
    part = array[:, :, piece.rows]
    return part.reshape(*part.shape[:2], piece.levels, piece.k, part.shape[-1])


def _level_sum(array: Stack, piece: Piece) -> Stack:
    """Return the sum of the levels' diagonal blocks, (r, k, k), of an (r, s, s)."""
    part = array[:, piece.rows, piece.rows]
    part = part.reshape(-1, piece.levels, piece.k, piece.levels, piece.k)
    return np.einsum("rlalc->rac", part)


def inverse_and_logdet(A: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return inverses (..., s, s) and log determinants (...) of positive definite A.

    Raises
    ------
    LinAlgError : one is not positive definite (sizes above SWEEP_LIMIT)
    """
    s = A.shape[-1]
    if s > SWEEP_LIMIT:
        L = np.linalg.cholesky(A)
        logdet = 2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(axis=-1)
        return np.linalg.inv(A), logdet
    out = A.copy()
    logdet = np.zeros(A.shape[:-2])
    for k in range(s):
        # Goodnight's (1979) sweep: after all of them the negative inverse is left.
        pivot = out[..., k, k].copy()
        logdet += np.log(pivot)
        row = out[..., k, :] / pivot[..., None]
        column = out[..., :, k].copy()
        out -= column[..., :, None] * row[..., None, :]
        out[..., k, :] = row
        out[..., :, k] = row
        out[..., k, k] = -1.0 / pivot
    return -out, logdet
