"""The hypotheses of an analysis of variance: types I, II and III.

They are built from estimable functions of the overparameterized model, one column for
each level of each factor, and written in treatment coding, so that treatment, sum and
Helmert coding of the model give one answer (Goodnight 1980, Commun. Stat. A 9, 167;
SAS/STAT User's Guide, "The Four Types of Estimable Functions"):

- type I, sequential: what a term adds to the terms before it;
- type II: what it adds to all terms that do not contain it;
- type III: functions that involve only the term and terms containing it, orthogonal to
  those that involve only the latter. In ``y ~ f * x`` the test of f is at x = 0.

A term contains another if it has the same covariates and more factors, including all of
the other's. (lmerTest misses this where a factor is coded by all its levels, as in
``f/g`` or ``x + f:x``.) Else the rows of L are those that lmerTest uses under treatment
coding: the space they span fixes F, but Satterthwaite's denominator df depends a
little on the rows (in the third or fourth digit where the rows' own df differ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design
from mixform.design.fixed import orthonormalize
from mixform.design.model_matrix import Coded, Term, code_part

#: Smallest singular value, relative to unit columns, of what is not zero.
RANK_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TermSpace:
    """The fixed part in treatment coding, X's columns scaled to unit length.

    Attributes
    ----------
    terms : with the positions of their estimated columns, the intercept included
    root : (p, p) upper triangular factor of X'X, unweighted
    W : (p, c) X W is the overparameterized design, its columns scaled to unit length
    own : for each term the positions of its columns in W
    X_scale, W_scale : (p,) and (c,) lengths taken out of the columns
    from_model : (p, p) coefficients in treatment coding from those of the model
    """

    terms: tuple[Term, ...]
    root: Matrix
    W: Matrix
    own: tuple[tuple[int, ...], ...]
    X_scale: Vector
    W_scale: Vector
    from_model: Matrix


def term_space(design: Design) -> TermSpace:
    """Code the fixed part by treatment contrasts, and with all levels."""
    coded = design.fixed.coded
    if design.contrasts:
        coded = _recode(design, full_rank=True)
        fixed = orthonormalize(coded, None)
    else:
        fixed = design.fixed
    full = _recode(design, full_rank=False)
    X, X_scale = _unit_columns(fixed.X)
    columns, W_scale = _unit_columns(full.values)
    Q, root = np.linalg.qr(X)
    from_model = np.eye(len(X_scale))
    if design.contrasts:
        scaled = np.linalg.solve(root, Q.T @ design.fixed.X)
        from_model = scaled / X_scale[:, None]
    position = {column: i for i, column in enumerate(fixed.kept)}
    kept = [
        replace(term, columns=tuple(position[c] for c in term.columns if c in position))
        for term in coded.terms
    ]
    # A term of which nothing is estimated is out of the model, as its columns are.
    estimated = [i for i, term in enumerate(kept) if term.columns]
    in_model = [c for i in estimated for c in full.terms[i].columns]
    place = {column: i for i, column in enumerate(in_model)}
    return TermSpace(
        terms=tuple(kept),
        root=root,
        W=np.linalg.solve(root, Q.T @ columns[:, in_model]),
        own=tuple(
            tuple(place[c] for c in term.columns if c in place) for term in full.terms
        ),
        X_scale=X_scale,
        W_scale=W_scale[in_model],
        from_model=from_model,
    )


def _recode(design: Design, *, full_rank: bool) -> Coded:
    return code_part(
        design.fixed.coded.spec.formula,
        design.columns,
        len(design.y),
        {},
        (design.formula.source, design.formula.fixed.span),
        full_rank=full_rank,
    )


def _unit_columns(X: Matrix) -> tuple[Matrix, Vector]:
    lengths = np.sqrt(np.einsum("ij,ij->j", X, X))
    lengths[lengths == 0.0] = 1.0
    return X / lengths, lengths


def hypotheses(space: TermSpace, kind: int) -> dict[str, Matrix]:
    """Return L (num_df, p) over the estimated columns of X for each term.

    A term that adds nothing (all its columns are aliased) has no rows.
    """
    out: dict[str, Matrix] = {}
    tested = [i for i, t in enumerate(space.terms) if t.factors or t.covariates]
    for i in tested:
        term = space.terms[i]
        if kind == 1 or len(tested) == 1:  # with one term the types are the same
            L = _added(space, range(space.root.shape[1]), term)
        elif kind == 2:
            L = _type_two(space, term)
        else:
            L = _type_three(space, i)
        if len(L) == len(term.columns):
            # A unit coefficient for the column that a row is about, unscaled.
            L = L / space.X_scale[list(term.columns)][:, None]
        out[term.name] = (L * space.X_scale) @ space.from_model
    return out


def contains(larger: Term, smaller: Term) -> bool:
    """Return whether a term contains another."""
    return larger.covariates == smaller.covariates and larger.factors > smaller.factors


def _containing(space: TermSpace, term: Term) -> list[int]:
    return [i for i, other in enumerate(space.terms) if contains(other, term)]


def _added(space: TermSpace, order: Sequence[int], term: Term) -> Matrix:
    """Return what the term adds to the columns before it in the given order.

    These are rows of the triangular factor of X'X in that order (Doolittle: unit
    diagonal): the part of X beta along the columns' new directions.
    """
    R = np.asarray(np.linalg.qr(space.root[:, list(order)], mode="r"))
    rows = [list(order).index(column) for column in term.columns]
    L = np.zeros((len(rows), len(order)))
    L[:, list(order)] = R[rows] / R[rows, rows][:, None]
    return L


def _type_two(space: TermSpace, term: Term) -> Matrix:
    containing = _containing(space, term)
    if not containing:
        return np.eye(space.root.shape[1])[list(term.columns)]
    last = [*term.columns, *(c for i in containing for c in space.terms[i].columns)]
    first = [c for c in range(space.root.shape[1]) if c not in set(last)]
    return _added(space, [*first, *last], term)


def _type_three(space: TermSpace, i: int) -> Matrix:
    term = space.terms[i]
    containing = [c for j in _containing(space, term) for c in space.own[j]]
    own = {*space.own[i], *containing}
    every = range(space.W.shape[1])
    # Rows of L with L W = 0 outside the term and what contains it ...
    N = _left_null(space.W[:, [c for c in every if c not in own]])
    inner = _left_null(space.W[:, [c for c in every if c not in set(containing)]])
    if containing and len(inner):
        # ... orthogonal, as functions of the effects of levels, to those inside.
        K, K_inner = N @ space.W * space.W_scale, inner @ space.W * space.W_scale
        size = float(np.abs(K).max())
        N = _left_null((K / size) @ (K_inner / size).T) @ N
    leading = N[:, list(term.columns)]
    square = leading.shape[0] == leading.shape[1] > 0
    if square and np.linalg.cond(leading) < 1e8:
        return np.linalg.solve(leading, N)  # one row for each coefficient of the term
    return N


def _left_null(columns: Matrix) -> Matrix:
    """Return an orthonormal basis, as rows, of what is orthogonal to all columns."""
    if columns.shape[1] == 0:
        return np.eye(columns.shape[0])
    U, values, _ = np.linalg.svd(columns)
    rank = int(np.sum(values > RANK_TOLERANCE * max(1.0, float(values[0]))))
    return U[:, rank:].T
