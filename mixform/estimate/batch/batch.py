"""Fit one model to many responses: the bootstrap, power, likelihood-ratio tests.

Small models are searched as a stack. Replicates that do not end there, or end beside a
singular covariance of several coefficients, go through the certified search for one,
from where they are; so do all replicates of a large model, where the time is spent
inside one factorisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixform._typing import AnyArray, Mask, Matrix, Stack, Vector
from mixform.errors import MixformError
from mixform.estimate.batch.boundary import near_boundary, settle_zeros
from mixform.estimate.batch.layout import Layout, build_layout
from mixform.estimate.batch.search import BatchSearch, minimize_batch
from mixform.estimate.fit import Fit
from mixform.estimate.known import require_estimated, require_likelihood
from mixform.estimate.problem import Problem, at_response
from mixform.estimate.refit import restart, search_from
from mixform.estimate.reml import (
    SMALL,
    Control,
    Found,
    has_local_minima,
    record,
    search,
)
from mixform.estimate.responses import Responses, require_response, scale_responses
from mixform.mme import few_threads

#: Work of one evaluation (`batch_layout.work_of`) up to which replicates are stacked.
STACK_LIMIT = 3e5
#: Numbers in one array of the stack: what keeps it in the cache.
STACK_SIZE = 1e5
#: Where a zero column of T starts from: on the face, the gradient is zero.
OFF_THE_FACE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refits:
    """Estimates from r responses, in the user's units; NaN where a fit failed.

    Attributes
    ----------
    beta : (r, p) fixed effects; V_beta : (r, p, p) their covariances
    sigma : (r,) residual standard deviations
    theta : (r, t) covariance parameters, as `Fit.theta`
    T : (r, k, k) of each random term
    rho : (r, .) parameters of the residual structure, as `Fit.rho`
    criterion : (r,) -2 log (restricted) likelihood
    converged : (r,) whether the optimum is certified
    singular : (r,) whether the covariance of a term is singular
    one_by_one : (r,) which went through the search for one
    failures : replicate -> why there is no fit
    """

    beta: Matrix
    V_beta: Stack
    sigma: Vector
    theta: Matrix
    T: tuple[Stack, ...]
    rho: Matrix
    criterion: Vector
    converged: Mask
    singular: Mask
    one_by_one: Mask
    failures: dict[int, str] = field(default_factory=dict[int, str])


class Refitter:
    """What refits of one model have in common, prepared once.

    Parameters
    ----------
    fit : the model; refits start from its theta
    control : options of the searches
    start : T (k, k) of each random term to start from, in the user's units; None for
        those of the fit
    rho : residual parameters to start from, None for those of the fit
    """

    def __init__(
        self,
        fit: Fit,
        control: Control | None = None,
        *,
        start: Sequence[Matrix] | None = None,
        rho: Vector | None = None,
    ) -> None:
        require_likelihood(fit, "The bootstrap")
        require_estimated(fit, "A refit")
        self.fit = fit
        self.control = control or Control()
        self.problem = fit.evaluation.problem
        theta = _off_the_face(self.problem, fit.T if start is None else start)
        if rho is None:
            rho = restart(fit, self.problem)[self.problem.n_theta :]
        self.start = np.append(theta, rho)
        self.layout = _stackable(self.problem)

    @property
    def stack_size(self) -> int:
        """How many responses are searched at a time."""
        if self.layout is None:
            return 1
        d, s, w = self.layout.shape
        numbers = d * s * (s + w * self.problem.n_theta)
        return int(np.clip(STACK_SIZE / numbers, 16, 1024))

    def __call__(
        self, Y: Matrix, visit: Callable[[int, Fit], None] | None = None
    ) -> Refits:
        """Fit each column of Y (n, r), rows of the model, offset not subtracted.

        Parameters
        ----------
        visit : called with the number and the full record of each fit, in order
        """
        out = _empty(self.fit, Y.shape[1])
        for begin in range(0, Y.shape[1], self.stack_size):
            chunk = slice(begin, min(begin + self.stack_size, Y.shape[1]))
            self._fit_chunk(Y[:, chunk], begin, out, visit)
        return out

    def _fit_chunk(
        self,
        Y: Matrix,
        begin: int,
        out: Refits,
        visit: Callable[[int, Fit], None] | None,
    ) -> None:
        problem, r = self.problem, Y.shape[1]
        responses = scale_responses(self.fit.design, Y)
        ZtY = problem.equations.Zt_dot(responses.rest)
        theta, done = np.repeat(self.start[None], r, axis=0), np.zeros(r, dtype=bool)
        if self.layout is not None:
            stacked = np.flatnonzero(responses.determined)
            yty = np.einsum("ij,ij->j", responses.rest, responses.rest)[stacked]
            found, here = self._search_stack(
                self.layout, self.layout.place(ZtY[:, stacked]), yty
            )
            done[stacked[here]], theta[stacked] = True, found.theta
            own = stacked[here]
            _store_stack(
                self.fit, responses.take(own), found.take(here), out, begin + own
            )
        for j in range(r):
            if done[j] and visit is None:
                continue
            own = replace(self.fit.design, y=np.ascontiguousarray(Y[:, j]))
            try:
                require_response(own, responses, j)
                one = at_response(problem, responses, ZtY, j)
                best = self._search_one(one, theta[j])
            except MixformError as failure:
                out.failures[begin + j] = failure.one_line
                continue
            refitted = record(own, self.fit.method, best, self.control)
            if not done[j]:
                _store_one(refitted, begin + j, out)
            if visit is not None:
                visit(begin + j, refitted)

    def _search_stack(
        self, layout: Layout, Zty: AnyArray, yty: Vector
    ) -> tuple[BatchSearch, Mask]:
        """Return where the searches ended, and which of them are done."""
        problem, tolerance = self.problem, self.control.tolerance
        found = minimize_batch(
            problem, layout, self.start, (Zty, yty), tolerance=tolerance
        )
        done = found.ended & ~near_boundary(problem, found.theta)
        left = np.flatnonzero(~done)
        if not len(left):
            return found, done
        rest = Zty[left], yty[left]
        if has_local_minima(problem):
            small = SMALL * problem.start()
            again = minimize_batch(problem, layout, small, rest, tolerance=tolerance)
            lower = again.criterion < found.criterion[left] - 1e-9
            found.replace(left[lower], again, lower)
        near = found.take(left)
        settled = settle_zeros(problem, layout, near, rest, tolerance=tolerance)
        found.replace(left[settled], near, settled)
        done[left[settled]] = True
        return found, done

    def _search_one(self, problem: Problem, theta: Vector) -> Found:
        with few_threads(problem.equations):
            if self.layout is None:
                return search_from(problem, theta, self.control)
            return search(problem, theta, self.control, (), by_em=False)


def refit_many(fit: Fit, Y: Matrix, *, control: Control | None = None) -> Refits:
    """Fit the model to each column of Y (n, r)."""
    return Refitter(fit, control)(Y)


def _stackable(problem: Problem) -> Layout | None:
    """Return the layout of a model whose replicates are worth stacking."""
    related = any(
        block.precision is not None or block.loading is not None
        for block in problem.blocks
    )
    linear = all(
        not structure.curved and structure.rank(block.k) == block.k
        for structure, block in zip(problem.structures, problem.blocks, strict=True)
    )
    plain = problem.rows is None and problem.held is None
    if not problem.blocks or related or not linear or not plain:
        return None
    return build_layout(problem, STACK_LIMIT)


def _off_the_face(problem: Problem, T: Sequence[Matrix]) -> Vector:
    """Return theta (t,) of T in the user's units, zero columns moved inside."""
    theta = np.empty(problem.n_theta)
    for structure, where, C, T_user in zip(
        problem.structures, problem.theta_slices, problem.Z_scales, T, strict=True
    ):
        zero = ~np.any(T_user, axis=0)
        inside = C @ T_user + OFF_THE_FACE * np.diag(zero.astype(float))
        theta[where] = structure.from_factor(inside)
    return theta


def _empty(fit: Fit, r: int) -> Refits:
    problem = fit.evaluation.problem
    p = problem.p
    return Refits(
        beta=np.full((r, p), np.nan),
        V_beta=np.full((r, p, p), np.nan),
        sigma=np.full(r, np.nan),
        theta=np.full((r, len(fit.theta)), np.nan),
        T=tuple(np.full((r, block.k, block.k), np.nan) for block in problem.blocks),
        rho=np.full((r, problem.n_rho), np.nan),
        criterion=np.full(r, np.nan),
        converged=np.zeros(r, dtype=bool),
        singular=np.zeros(r, dtype=bool),
        one_by_one=np.ones(r, dtype=bool),
    )


def _store_one(fit: Fit, j: int, out: Refits) -> None:
    out.beta[j], out.V_beta[j] = fit.beta, fit.V_beta
    out.sigma[j], out.theta[j], out.criterion[j] = fit.sigma, fit.theta, fit.criterion
    out.rho[j] = fit.rho
    for stack, T in zip(out.T, fit.T, strict=True):
        stack[j] = T
    out.converged[j] = fit.convergence.converged
    out.singular[j] = bool(fit.singular_terms)


def _store_stack(
    fit: Fit, responses: Responses, found: BatchSearch, out: Refits, here: AnyArray
) -> None:
    """Put solutions back into the user's units, as `record` does, at ``here``."""
    design, problem = fit.design, fit.evaluation.problem
    scale = responses.y_scale
    R_inverse = np.linalg.inv(design.fixed.R)
    sigma = np.sqrt(found.r2 / problem.residual_df) * scale
    rotated = responses.projection.T + scale[:, None] * found.beta
    out.beta[here] = rotated @ R_inverse.T
    V_beta = R_inverse @ found.V_XX @ R_inverse.T
    out.V_beta[here] = sigma[:, None, None] ** 2 * V_beta
    out.sigma[here] = sigma
    criterion = found.criterion + 2.0 * problem.residual_df * np.log(scale)
    if problem.reml:
        criterion += 2.0 * np.log(np.abs(design.fixed.R.diagonal())).sum()
    out.criterion[here] = criterion
    for j, (T, C) in enumerate(
        zip(problem.factors(found.theta), problem.Z_scales, strict=True)
    ):
        signs = np.where(np.diagonal(T, axis1=1, axis2=2) < 0.0, -1.0, 1.0)
        T_user = np.linalg.inv(C) @ (T * signs[:, None, :])
        out.T[j][here] = T_user
        where = problem.theta_slices[j]
        out.theta[here, where] = problem.structures[j].from_factor(T_user)
        zero_columns = ~np.any(T, axis=1)
        out.singular[here] |= zero_columns.any(axis=1)
    out.converged[here] = True
    out.one_by_one[here] = False
