"""The model on the scale it is solved on: y of unit SD, X orthonormal, Z of unit RMS.

The criterion and the certificate do not depend on the user's units because nothing
after this module ever sees them. y is projected off X first, which neither criterion
notices and which saves the digits that a large mean would cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.covariance import Structure, is_curved, structure_of
from mixform.design import Design, Relation
from mixform.errors import DesignError
from mixform.estimate.held import (
    Given,
    Held,
    hold,
    is_held,
    require_given,
    rescaled,
    slices_of,
)
from mixform.estimate.identification import (
    require_identified,
    require_not_residual,
    require_outside_X,
)
from mixform.estimate.related import by_precision, logdet_P, relations_of, z_block
from mixform.estimate.responses import Responses, checked_response
from mixform.estimate.whitening import Rows, build_rows, require_dense
from mixform.mme import Equations, ZBlock, build_equations
from mixform.residual.model import build_residual_model

#: What the other columns leave of a coefficient's column (of unit RMS), below which the
#: search works on orthogonal columns: x far from its origin, such as a year.
COLLINEAR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """The scaled problem; everything a row contributed is in the cross-products.

    Attributes
    ----------
    n, p : rows, estimated fixed effects
    reml : which criterion
    blocks : the blocks of Z, scaled
    structures : the covariance structure of each block
    theta_slices : where each block's parameters stand in theta; tied blocks share one
    equations : the backend
    ZtW : (q, p + 1) Z'R^-1 [X, y]
    WtW : (p + 1, p + 1) [X, y]'R^-1 [X, y]
    logdet_R, logdet_P : log determinants in the criterion
    logdet_weights : what the weights add to log|R|
    y_scale : standard deviation that y was divided by
    Z_scales : for each block C (k, k), lower triangular, with (user's design row) =
        C' (scaled row): T of the user's coefficients is C^-1 T
    projection : (p,) Q'y, what was taken out of y
    relations : for each block the relation of Z's columns, None if independent, as the
        factors of a loading are; empty if all are
    rows : whitened at the residual parameters, which everything above is at; None
        where residuals are independent
    held : the variances that are not estimated
    """

    n: int
    p: int
    reml: bool
    blocks: tuple[ZBlock, ...]
    structures: tuple[Structure, ...]
    theta_slices: tuple[slice, ...]
    equations: Equations
    ZtW: Matrix
    WtW: Matrix
    logdet_R: float
    logdet_P: float
    logdet_weights: float
    y_scale: float
    Z_scales: tuple[Matrix, ...]
    projection: Vector
    relations: tuple[Relation | None, ...] = ()
    rows: Rows | None = None
    held: Held | None = None

    @property
    def yty(self) -> float:
        """y'R^-1y."""
        return float(self.WtW[-1, -1])

    def at(self, psi: Vector) -> Problem:
        """Return the problem at the residual parameters, the last of psi (t + r,)."""
        if self.rows is None:
            return self
        rho = psi[self.n_theta :]
        rows = self.rows.at(rho)
        assert rows.W is not None, "rows were whitened"
        equations = rows.equations(self.equations)
        return replace(
            self,
            rows=rows,
            equations=equations,
            ZtW=rows.Zt_dot(equations, rows.W),
            WtW=rows.W.T @ rows.W,
            logdet_R=self.logdet_weights + rows.residual.logdet,
        )

    def times_A(self, array: Matrix) -> Matrix:
        """Return P^-1 times an array (q, ...): the covariance A of related levels."""
        if not self.relations:
            return array
        parts = split_blocks(array, self.blocks)
        return np.concatenate(
            [
                times_relation(relation, part).reshape(-1, *array.shape[1:])
                for relation, part in zip(self.relations, parts, strict=True)
            ]
        )

    @property
    def ZtX(self) -> Matrix:
        """Z'R^-1X, (q, p)."""
        return self.ZtW[:, :-1]

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters, sigma not counted."""
        return max((where.stop for where in self.theta_slices), default=0)

    @property
    def n_rho(self) -> int:
        """Number of residual parameters, sigma not counted."""
        return 0 if self.rows is None else self.rows.model.n_parameters

    @property
    def residual_df(self) -> int:
        """What r^2 is divided by: n - p for REML, n for ML."""
        return self.n - self.p if self.reml else self.n

    @property
    def profiled(self) -> bool:
        """Whether sigma is profiled out of the criterion."""
        return self.held is None or self.held.profiled

    @property
    def free(self) -> np.ndarray:
        """Which parameters are estimated, (t + r,) boolean: all, or not those of R."""
        free = np.ones(self.n_theta + self.n_rho, dtype=bool)
        if self.held is not None and self.held.given.rho is not None:
            free[self.n_theta :] = False
        return free

    @property
    def n_variances(self) -> int:
        """Number of variance parameters that are estimated, sigma counted."""
        return int(self.free.sum()) + self.profiled

    def sigma2(self, T: Sequence[Matrix], r2: float) -> float:
        """Return the residual variance, in units of the scaled y."""
        if self.held is None or self.held.profiled:
            return r2 / self.residual_df
        return self.held.residual_variance(T)

    def start(self) -> Vector:
        """Return the parameters (t + r,) that the search starts from."""
        held, share = self.held, 1.0
        if held is not None and held.sigma2 is not None:
            share = 1.0 / float(np.sqrt(held.sigma2))
        theta = np.empty(self.n_theta)
        for structure, where, block in zip(
            self.structures, self.theta_slices, self.blocks, strict=True
        ):
            first = structure.start(block.k)
            theta[where] = (
                structure.rescaled(first, np.full(block.k, share))
                if is_curved(structure)
                else structure.from_factor(share * structure.factor(first, block.k))
            )
        if held is not None and held.tied is not None:
            theta[held.slot] = held.s_start
        if self.rows is None:
            return theta
        rho = None if held is None else held.given.rho
        if rho is None:
            rho = self.rows.model.started_from(self.rows.base[:, -1])
        return np.append(theta, rho)

    def factors(self, theta: Vector) -> tuple[Matrix, ...]:
        """Return T of each block; stacks of T for a stack of theta."""
        return tuple(
            structure.factor(theta[..., where], block.k)
            for structure, where, block in zip(
                self.structures, self.theta_slices, self.blocks, strict=True
            )
        )


def build_problem(
    design: Design, *, reml: bool, backend: str = "auto", given: Given | None = None
) -> Problem:
    """Scale the design and form its cross-products, once.

    Parameters
    ----------
    given : variances that are held, and need not be told from others

    Raises
    ------
    DesignError : the response is constant or fitted exactly by X; a random term
        cannot be told from the residual
    """
    response = checked_response(design)
    weights = design.weights
    n, p = design.fixed.Q.shape
    structures = tuple(structure_of(b, design.formula.source) for b in design.blocks)
    blocks, Z_scales = _scaled_blocks(
        design, structures, None if weights is None else np.sqrt(weights), backend
    )
    y_scale = float(response.y_scale[0])
    structures, held = hold(given, structures, Z_scales, y_scale)
    theta_slices, held = slices_of(structures, [b.k for b in blocks], held)
    if held is None or held.sigma2 is None:
        _require_told_apart(design, blocks, structures)
    W = np.column_stack([design.fixed.Q, response.rest])
    rows = None
    if design.residual is not None:
        rows = build_rows(build_residual_model(design.residual), W, blocks)
        backend = require_dense(rows, backend)
    if backend == "cg":
        require_given(structures, held, structured=rows is not None)
    equations = build_equations(blocks, backend)
    ZtW = equations.Zt_dot(W)
    require_outside_X(blocks, ZtW[:, :p], design, tuple(map(is_held, structures)))
    relations = relations_of(blocks, design)
    logdet_weights = 0.0 if weights is None else -float(np.log(weights).sum())
    WtW = np.eye(p + 1)
    WtW[p, p] = float(response.rest[:, 0] @ response.rest[:, 0])
    return Problem(
        n=n,
        p=p,
        reml=reml,
        blocks=blocks,
        structures=structures,
        theta_slices=theta_slices,
        equations=equations,
        ZtW=ZtW,
        WtW=WtW,
        logdet_R=logdet_weights,
        logdet_weights=logdet_weights,
        logdet_P=logdet_P(blocks, relations),
        y_scale=y_scale,
        Z_scales=Z_scales,
        projection=response.projection[:, 0],
        relations=relations,
        rows=rows,
        held=held,
    )


def _require_told_apart(
    design: Design, blocks: Sequence[ZBlock], structures: Sequence[Structure]
) -> None:
    for block, structure, term in zip(blocks, structures, design.blocks, strict=True):
        if is_held(structure):
            continue
        if term.relation is not None:
            require_not_residual(block, term, design)
        elif block.m * block.k >= len(design.y):
            require_identified(block, structure, design, term.term.span)


def times_relation(relation: Relation | None, part: Matrix) -> Matrix:
    """Return A times an array (m, ...) over the levels of one block."""
    if relation is None:
        return part
    return relation.times(part.reshape(len(part), -1)).reshape(part.shape)


def with_response(problem: Problem, design: Design) -> Problem:
    """Return the problem with the response of a design that is otherwise its own.

    Raises
    ------
    DesignError : the response is constant or fitted exactly by X
    """
    response = checked_response(design)
    Zty = problem.equations.Zt_dot(response.rest)
    return at_response(problem, response, Zty, 0)


def at_response(problem: Problem, responses: Responses, ZtY: Matrix, j: int) -> Problem:
    """Return the problem of response j; ZtY (q, r) is Z'R^-1 of all of them.

    With a residual structure, before it is whitened.
    """
    rest = responses.rest[:, j]
    WtW = np.eye(problem.p + 1)
    WtW[-1, -1] = float(rest @ rest)
    rows = problem.rows
    if rows is not None:
        rows = replace(rows, base=np.column_stack([rows.base[:, :-1], rest]))
    y_scale = float(responses.y_scale[j])
    structures, held = problem.structures, problem.held
    if held is not None:
        structures, held = rescaled(structures, held, y_scale / problem.y_scale)
    return replace(
        problem,
        ZtW=np.column_stack([problem.ZtX, ZtY[:, j]]),
        WtW=WtW,
        rows=rows,
        structures=structures,
        held=held,
        y_scale=y_scale,
        projection=responses.projection[:, j],
    )


def _scaled_blocks(
    design: Design,
    structures: Sequence[Structure],
    root_weights: Vector | None,
    backend: str,
) -> tuple[tuple[ZBlock, ...], tuple[Matrix, ...]]:
    inverted = by_precision(design, backend)
    blocks: list[ZBlock] = []
    scales: list[Matrix] = []
    for block, structure in zip(design.blocks, structures, strict=True):
        values = block.design
        if root_weights is not None:
            values = values * root_weights[:, None]
        scale = np.sqrt(np.einsum("ij,ij->j", values, values) / len(values))
        if not np.all(scale > 0.0):
            name = block.columns[int(np.flatnonzero(scale == 0.0)[0])]
            raise DesignError(
                f"The coefficient {name!r} of {block.term.source} is zero in all rows.",
                formula=design.formula.source,
                span=block.term.span,
                hint="Drop it from the random term.",
            )
        if not structure.scales_columns:
            scale = np.full_like(scale, np.sqrt(np.mean(scale**2)))
        values, C = values / scale, np.diag(scale)
        if structure.mixes and block.k > 1:
            values, mixing = _orthogonalize(values)
            C = mixing * scale
        blocks.append(z_block(block, values, inverted=inverted))
        scales.append(C)
    return tuple(blocks), tuple(scales)


def _orthogonalize(values: Matrix) -> tuple[Matrix, Matrix]:
    """Return orthogonal columns of unit RMS, and lower triangular C: values = them C.

    Lower triangular, so that C^-1 T is a Cholesky factor again. Columns that are
    combinations of each other stay as they are, and so do well-conditioned ones.
    """
    n, k = values.shape
    crossed = values.T @ values / n
    if float(np.linalg.eigvalsh(crossed)[0]) > COLLINEAR**2:
        return values, np.eye(k)
    Q, R = np.linalg.qr(values[:, ::-1])
    C = R[::-1, ::-1] / np.sqrt(n)
    rest = np.abs(C.diagonal()).min()
    if not 1e-10 < rest < COLLINEAR:
        return values, np.eye(k)
    signs = np.where(C.diagonal() < 0.0, -1.0, 1.0)
    return Q[:, ::-1] * (np.sqrt(n) * signs), C * signs[:, None]


def split_blocks(array: Matrix, blocks: Sequence[ZBlock]) -> list[Matrix]:
    """Cut an array over the random effects, (q, ...), into (m, k, ...) per block."""
    parts: list[Matrix] = []
    start = 0
    for block in blocks:
        end = start + block.m * block.k
        parts.append(array[start:end].reshape(block.m, block.k, *array.shape[1:]))
        start = end
    return parts
