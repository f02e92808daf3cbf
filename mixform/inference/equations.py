"""Henderson's mixed model equations of a small fit, as a text book prints them.

    [ X'R^-1X   X'R^-1Z        ] [beta]   [ X'R^-1 y ]
    [ Z'R^-1X   Z'R^-1Z + G^-1 ] [ b  ] = [ Z'R^-1 y ]

Var(b) = G, Var(e) = R (Henderson 1975, Biometrics 31, 423). With independent residuals
all is often multiplied by sigma^2, which leaves counts and sums, and G^-1 sigma^2 =
A^-1 alpha (Mrode 2014, chapter 3). The fit itself is solved in another form, which
knows no G^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design import RandomBlock
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.variance_components import block_labels, covariances

#: Equations up to which they are written out.
LARGEST = 1000

#: Eigenvalue, relative to the largest, from which a covariance has an inverse.
SINGULAR = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HendersonEquations:
    """The equations: ``lhs @ solution = rhs``.

    Attributes
    ----------
    lhs : (p + q, p + q) coefficient matrix, labelled by coefficient and level
    rhs : (p + q,) right-hand side; solution : (p + q,) beta and b
    p : how many of them are fixed effects
    multiplier : what both sides are multiplied by: sigma^2, or 1
    notes : which effects have no equation
    """

    lhs: pd.DataFrame
    rhs: pd.Series
    solution: pd.Series
    p: int
    multiplier: float
    notes: tuple[str, ...]


def equations(fit: Fit, *, multiply: bool | None = None) -> HendersonEquations:
    """Return the mixed model equations at the variances of a fit.

    Columns of X that are combinations of others have no equation; nor have random
    coefficients whose variance is zero, which has no inverse: their effects are zero.

    Parameters
    ----------
    multiply : both sides by the residual variance; None does where residuals are
        independent with equal variance up to weights

    Raises
    ------
    InferenceError : too many equations to read; a covariance is singular, no variance
        in it being zero
    """
    design = fit.design
    q = sum(block.m * block.k for block in design.blocks)
    size = len(fit.beta) + q
    if size > LARGEST:
        raise InferenceError(
            f"The model has {size} equations; up to {LARGEST} are written out.",
            hint="Build large ones with MixedModelEquations, from matrices().",
        )
    labels = [design.fixed.names[j] for j in design.fixed.kept]
    p = len(labels)
    Z = np.asarray(design.Z.todense())
    rows, y = _whitened(fit, np.column_stack([design.fixed.X, Z]))
    C, right = rows.T @ rows, rows.T @ y
    b = [part.ravel() for part in fit.b]
    solution = np.concatenate([fit.beta, *b])
    used, notes = np.ones(size, dtype=bool), list[str]()
    start = p
    for label, block, Sigma in zip(
        block_labels(fit), design.blocks, covariances(fit), strict=True
    ):
        own = np.diag(Sigma) > 0.0
        here = slice(start, start + block.m * block.k)
        C[here, here] += _precision(label, block, Sigma, own)
        used[here], start = np.tile(own, block.m), here.stop
        labels += effect_labels(label, block)
        notes += _without_variance(label, block, own)
    if design.fixed.aliased:
        names = ", ".join(design.fixed.aliased_names)
        notes.append(f"no equation, combinations of other columns: {names}.")
    if multiply is None:
        multiply = design.residual is None
    factor = fit.sigma**2 if multiply else 1.0
    index = pd.Index([name for name, one in zip(labels, used, strict=True) if one])
    return HendersonEquations(
        lhs=pd.DataFrame(factor * C[np.ix_(used, used)], index=index, columns=index),
        rhs=pd.Series(factor * right[used], index=index),
        solution=pd.Series(solution[used], index=index),
        p=p,
        multiplier=factor,
        notes=tuple(notes),
    )


def _whitened(fit: Fit, W: Matrix) -> tuple[Matrix, Matrix]:
    """Return R^-1/2 W (n, c) and R^-1/2 y (n,)."""
    design, rows = fit.design, fit.evaluation.problem.rows
    y = design.y if design.offset is None else design.y - design.offset
    both = np.column_stack([W, y])
    if design.weights is not None:
        both *= np.sqrt(design.weights)[:, None]
    if rows is not None:
        both = rows.residual.whiten(both)
    both /= fit.sigma
    return both[:, :-1], both[:, -1]


def _precision(
    label: str, block: RandomBlock, Sigma: Matrix, own: np.ndarray
) -> Matrix:
    """Return G^-1 (m k, m k) of a term, zero where there is no variance."""
    inner = Sigma[np.ix_(own, own)]
    inverse = np.zeros_like(Sigma)
    if len(inner):
        values = np.linalg.eigvalsh(inner)
        if values[0] <= SINGULAR * values[-1]:
            raise InferenceError(
                f"The covariance of {label} is singular: it has no inverse, and the "
                "equations cannot be written in b.",
                hint="Drop the coefficient that the others determine.",
            )
        inverse[np.ix_(own, own)] = np.linalg.inv(inner)
    relation = block.relation
    A_inverse = np.eye(block.m) if relation is None else relation.precision.todense()
    return np.kron(np.asarray(A_inverse), inverse)


def _without_variance(label: str, block: RandomBlock, own: np.ndarray) -> list[str]:
    return [
        f"the variance of {label} {name} is zero: its effects are zero and have no "
        "equation."
        for name, positive in zip(block.columns, own, strict=True)
        if not positive
    ]


def effect_labels(label: str, block: RandomBlock) -> list[str]:
    """Return a name for each random effect of a term, in the order of Z."""
    plain = block.columns == ("Intercept",)
    return [
        f"{label}[{level}]" if plain else f"{label}[{level}]: {name}"
        for level in block.levels
        for name in block.columns
    ]
