"""What the second derivatives of V add: sum_ij W_ij X'V^-1 D_ij V^-1X.

For residuals R = D C D (see `patterns`), with W by (tau, r, delta), w_i the dispersion
columns of row i and o the product of entries, the sum over all pairs of parameters of
W times second derivatives is D K D with::

    K_ij = C_ij w_ij' W_dd w_ij + w_ij' [ C_ij (W_d,tau(i) + W_d,tau(j))
           + 2 sum_k W_dk dC_k ]                                     w_ij = w_i + w_j
         - C_ij (W_tau(i),tau(i) + W_tau(j),tau(j) - 2 W_tau(i),tau(j)) / 4
         + sum_k (W_tau(i),k + W_tau(j),k) dC_k + sum_kl W_kl d2C_kl

The last two lines are left out where D C D is linear in variances and covariances.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Matrix, Stack
from mixform.estimate.criterion import Evaluation
from mixform.estimate.problem import split_blocks
from mixform.inference.kenward_roger.patterns import (
    Natural,
    Pattern,
    at_places,
    by_correlations,
    natural_places,
    patterns_of,
    spread,
)
from mixform.inference.kenward_roger.terms import Term
from mixform.residual.model import ResidualModel


def curvature(here: Evaluation, terms: list[Term], W: Matrix) -> Matrix:
    """Return the sum (p, p); parameters of the terms first, then of the residuals."""
    problem = here.problem
    out = np.zeros((problem.p, problem.p))
    K = split_blocks(here.ZtVinvX, problem.blocks)
    A_K = split_blocks(problem.times_A(here.ZtVinvX), problem.blocks)
    start = 0
    for term, K_j, A_K_j in zip(terms, K, A_K, strict=True):
        end = start + len(term.D)
        if term.second is not None:
            bend = np.einsum("ij,ijab->ab", W[start:end, start:end], term.second)
            out += np.einsum("map,ab,mbq->pq", K_j, bend, A_K_j, optimize=True)
        start = end
    if problem.rows is None:
        return out
    residual = problem.rows.residual
    model, F = residual.model, here.RootVinvX
    places = natural_places(model)
    for p in patterns_of(residual):
        rows = p.batch.rows
        bend = _bend(model, places, p, W[start:, start:])
        bend = p.L_inverse @ bend @ p.L_inverse.transpose(0, 2, 1)
        bent = spread(bend, p.batch.which, F, rows)
        out += F[rows].reshape(-1, problem.p).T @ bent.reshape(-1, problem.p)
    return out


def _bend(model: ResidualModel, places: Natural, p: Pattern, W: Matrix) -> Stack:
    """Return K (U, v, v)."""
    s = p.batch.stratum
    tau, r, delta = places.tau[s], places.r[s], places.delta
    C = p.L @ p.L.transpose(0, 2, 1)
    out = np.zeros(C.shape)
    curved = not model.structure.family.linear
    dispersed = delta.stop > delta.start
    if not (curved or dispersed):
        return out
    dC = by_correlations(model, p)
    if dispersed:
        own = p.batch.W
        w = own[:, :, None, :] + own[:, None, :, :]
        by_tau = W[delta, tau].T[p.places]
        out += C * np.einsum("uijb,bc,uijc->uij", w, W[delta, delta], w, optimize=True)
        out += C * np.einsum("uijb,uijb->uij", w, _sums(by_tau))
        out += 2.0 * np.einsum("uijb,bk,kuij->uij", w, W[delta, r], dC, optimize=True)
    if curved:
        by_pair = W[tau, tau][p.places[:, :, None], p.places[:, None, :]]
        own = np.diagonal(by_pair, axis1=1, axis2=2)[..., None]
        out -= C * (_sums(own)[..., 0] - 2.0 * by_pair) / 4.0
        out += np.einsum("uijk,kuij->uij", _sums(W[tau, r][p.places]), dC)
        out += _by_correlations_twice(model, p, W[r, r])
    return out


def _sums(values: Stack) -> Stack:
    """Return (U, v, v, c) sums over pairs of rows of values (U, v, c)."""
    return values[:, :, None, :] + values[:, None, :, :]


def _by_correlations_twice(model: ResidualModel, p: Pattern, W: Matrix) -> Stack:
    """Return sum_kl W_kl d2C/dr_k dr_l, (U, v, v)."""
    family, batch = model.structure.family, p.batch
    if batch.D is not None:
        return np.tensordot(W, family.second_derivatives(p.r, batch.D), axes=2)
    D = model.layout.grids[batch.stratum].D
    return at_places(np.tensordot(W, family.second_derivatives(p.r, D), axes=2), p)
