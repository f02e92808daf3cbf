"""The matrices of a fitted model: y, X, Z, G = Var(b), R = Var(e), V = ZGZ' + R."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import block_diag, csc_array, diags_array, eye_array, kron

from mixform._typing import Matrix
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.equations import effect_labels
from mixform.inference.residual_structure import row_covariance
from mixform.inference.variance_components import block_labels, covariances

#: Rows or levels up to which a dense covariance is formed.
LARGEST = 5000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelMatrices:
    """The matrices of y = X beta + Z u + e at the estimated (or held) variances.

    Attributes
    ----------
    y : (n,) response, offset subtracted
    X : (n, c) fixed-effects design, aliased columns included
    Z : (n, q) sparse random-effects design
    G : (q, q) sparse Var(u), units of y^2; R : (n, n) sparse Var(e)
    effects : names of the q random effects
    """

    y: pd.Series
    X: pd.DataFrame
    Z: Any
    G: Any
    R: Any
    effects: pd.Index

    @property
    def V(self) -> Matrix:
        """Var(y) = Z G Z' + R, (n, n) dense.

        Raises
        ------
        InferenceError : more than 5000 rows
        """
        _require_small(len(self.y), "rows")
        return (self.Z @ self.G @ self.Z.T + self.R).toarray()

    @property
    def C(self) -> Any:
        """Cov(u, y) = G Z', (q, n) sparse."""
        return self.G @ self.Z.T

    def __repr__(self) -> str:
        q, c = len(self.effects), self.X.shape[1]
        return f"<y, X, Z, G, R of {len(self.y)} rows, {c} fixed, {q} random effects>"


def matrices(fit: Fit) -> ModelMatrices:
    """Return the matrices of a fit.

    Raises
    ------
    InferenceError : a relationship of more than 5000 levels, or a residual structure
        of more than 5000 rows
    """
    design = fit.design
    y = design.y if design.offset is None else design.y - design.offset
    parts: list[Any] = []
    names: list[str] = []
    for label, block, Sigma in zip(
        block_labels(fit), design.blocks, covariances(fit), strict=True
    ):
        A: Any = eye_array(block.m)
        if block.relation is not None:
            _require_small(block.m, f"levels of {label}")
            A = csc_array(block.relation.times(np.eye(block.m)))
        parts.append(kron(A, csc_array(Sigma)))
        names += effect_labels(label, block)
    empty = csc_array((0, 0))
    return ModelMatrices(
        y=pd.Series(y, index=design.row_index, name=design.formula.response.text),
        X=design.X,
        Z=design.Z,
        G=csc_array(block_diag(parts)) if parts else empty,
        R=_residual(fit),
        effects=pd.Index(names),
    )


def _residual(fit: Fit) -> Any:
    if fit.evaluation.problem.rows is None:
        weights = fit.design.weights
        own = np.ones(fit.n) if weights is None else 1.0 / weights
        return csc_array(diags_array(fit.sigma**2 * own))
    _require_small(fit.n, "rows with correlated residuals")
    return csc_array(fit.sigma**2 * row_covariance(fit, np.arange(fit.n)))


def _require_small(size: int, what: str) -> None:
    if size > LARGEST:
        raise InferenceError(
            f"There are {size} {what}; covariances are written out up to {LARGEST}.",
            hint="Build the matrices of a part of the data.",
        )
