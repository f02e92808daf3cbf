"""Refuse what no data of this shape could estimate, and say why.

Goes in: the design and the scaled blocks. Comes out: nothing, or a `DesignError`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixform._typing import Matrix
from mixform.covariance import Structure
from mixform.design import Design, RandomBlock
from mixform.errors import DesignError
from mixform.mme import ZBlock

#: What X must leave of a response of unit root mean square.
LEAST_VARIATION = 1e-13


def require_variation(design: Design, size: float, y_scale: float) -> None:
    """Refuse a response that X fits exactly, a constant one above all.

    Parameters
    ----------
    size : root mean square of the response less offset, weighted
    y_scale : root mean square of what X leaves of it
    """
    text, span = design.formula.response.text, design.formula.response.span
    if y_scale > LEAST_VARIATION * size:
        return
    constant = bool(np.all(design.y == design.y[0]))
    raise DesignError(
        f"The response {text!r} is constant."
        if constant
        else f"The fixed effects fit the response {text!r} exactly.",
        formula=design.formula.source,
        span=span,
        hint="There is no variance left to estimate; check the response column.",
    )


def require_size(design: Design, largest: float) -> None:
    """Refuse a response whose variance would over- or underflow."""
    if 1e-140 < largest < 1e140 or largest == 0.0:
        return
    raise DesignError(
        f"The response {design.formula.response.text!r} is of size {largest:.3g}; its "
        "variance cannot be represented.",
        formula=design.formula.source,
        span=design.formula.response.span,
        hint="Change its unit.",
    )


def require_outside_X(
    blocks: Sequence[ZBlock], ZtX: Matrix, design: Design, held: Sequence[bool]
) -> None:
    """Refuse a random coefficient all of whose columns are combinations of X's.

    Nothing of it is left once X is fitted: the criterion does not depend on its
    variance. X is orthonormal and the coefficients have unit mean square, so what is
    left is n - |Z_c'X|^2; with a loading, the squares of Z_c F instead of n.

    Parameters
    ----------
    ZtX : (q, p) Z'R^-1X
    held : for each block whether its variance is given
    """
    n, start = len(design.y), 0
    for block, own, known in zip(blocks, design.blocks, held, strict=True):
        end = start + block.m * block.k
        inside = (ZtX[start:end].reshape(block.m, block.k, -1) ** 2).sum(axis=(0, 2))
        start = end
        sizes = np.full(block.k, float(n))
        if block.loading is not None:
            prior = np.einsum("lf,lf->l", block.loading, block.loading)
            sizes = prior[block.codes] @ block.design**2
        for name, part, size in zip(own.columns, inside, sizes, strict=True):
            if known or size - part > 1e-9 * size:
                continue
            raise DesignError(
                f"The fixed effects hold every effect {name!r} of "
                f"{own.term.group_label!r}: nothing is left to estimate its variance.",
                formula=design.formula.source,
                span=own.term.span,
                hint=f"Take {own.term.group_label!r} out of the fixed part, or drop "
                "the random term.",
            )


def require_not_residual(block: ZBlock, term: RandomBlock, design: Design) -> None:
    """Refuse related levels whose rows are no more related than residuals are.

    Outside X, Z A Z' times a random vector is a multiple of it, almost surely, only if
    the matrix is a multiple of the identity. Terms with one coefficient only.
    """
    assert term.relation is not None, "for related levels"
    if block.k > 1:
        return
    Q = design.fixed.Q
    x = np.random.default_rng(0).standard_normal(len(block.codes))
    x -= Q @ (Q.T @ x)
    z = block.design[:, 0]
    sums: Matrix = np.zeros((block.n_levels, 1))
    np.add.at(sums[:, 0], block.codes, z * x)
    ZAZx = z * term.relation.times(sums)[block.codes, 0]
    ZAZx -= Q @ (Q.T @ ZAZx)
    rest = ZAZx - (ZAZx @ x) / (x @ x) * x
    if float(rest @ rest) > 1e-16 * float(ZAZx @ ZAZx):
        return
    raise DesignError(
        f"In the data no two levels of {term.term.group_label!r} are related, and each "
        "has one row: its variance cannot be told from the residual variance.",
        formula=design.formula.source,
        span=term.term.span,
        hint="Drop the term, or check the labels of the relationship.",
    )


def require_identified(
    block: ZBlock, structure: Structure, design: Design, span: tuple[int, int]
) -> None:
    """Refuse a term that has a covariance equal to the residual's.

    With C_l = Z_l'Z_l of level l, the distance of the identity from all
    Z_l S Z_l', S in the structure's span, is n - v'N^-1 v with N_ab = sum_l
    tr(S_a C_l S_b C_l) and v_a = sum_l tr(S_a C_l); zero means confounded.
    """
    basis = structure.spanning(block.k)
    if not len(basis):
        return
    C = np.empty((block.m, block.k, block.k))
    for a in range(block.k):
        for b in range(block.k):
            products = block.design[:, a] * block.design[:, b]
            C[:, a, b] = np.bincount(block.codes, products, minlength=block.m)
    N = np.einsum("iab,lbc,jcd,lda->ij", basis, C, basis, C, optimize=True)
    v = np.einsum("iab,lba->i", basis, C)
    values, vectors = np.linalg.eigh(N)
    solvable = values > 1e-10 * values[-1]
    along = vectors[:, solvable].T @ v
    n_rows = len(block.codes)
    distance = n_rows - float(np.sum(along**2 / values[solvable]))
    if distance > 1e-8 * n_rows:
        return
    label = design.formula.source[span[0] : span[1]]
    raise DesignError(
        f"The random term {label} has {block.m * block.k} effects for {n_rows} "
        "rows: its variance cannot be told from the residual variance.",
        formula=design.formula.source,
        span=span,
        hint="Drop the term; it needs groups with more rows than coefficients.",
    )
