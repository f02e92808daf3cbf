"""Smaller models of the same rows: a design without a term, made from the design.

The user's table is not needed again, and no row is dropped or gained. The formula of
the new design says what it holds, so that it prints and refits as if written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from formulaic import SimpleFormula

from mixform._typing import Matrix
from mixform.design.contrasts import without_full
from mixform.design.fixed import orthonormalize
from mixform.design.model_matrix import Coded, Term, code_part, variables_of
from mixform.design.random import RandomBlock
from mixform.design.record import Design
from mixform.errors import DesignError, suggest
from mixform.formula import ModelFormula, formulaic_formula, parse_formula, readable
from mixform.formula.summands import coefficients_text, random_text
from mixform.formula.update import with_random, without_fixed

#: What is left of a unit column outside a space, below which it lies inside.
INSIDE = 1e-6


def without_block(design: Design, j: int) -> Design:
    """Return the design without random term j, nested terms counted one by one."""
    formula = _reparsed(design, with_random(design.formula.source, j, None))
    blocks = [block for i, block in enumerate(design.blocks) if i != j]
    return _with(design, formula, blocks)


def with_coefficients(design: Design, j: int, terms: Sequence[str]) -> Design:
    """Return the design with other coefficients in random term j.

    Parameters
    ----------
    terms : names of the terms left of the bar that stay, ``"1"`` for the intercept,
        which may be new: ``(0 + f | g)`` can become ``(1 | g)``
    """
    block = design.blocks[j]
    known = {readable(str(term)): term for term in _terms_of(block)}
    known.setdefault("1", *formulaic_formula("1"))
    kept = [known[name] for name in terms]
    source = design.formula.source
    text = random_text(block.term, coefficients_text(source, block.term, kept))
    formula = _reparsed(design, with_random(source, j, text))
    new = replace(block, term=formula.random[j], **_coded(design, block, kept))
    blocks = [new if i == j else old for i, old in enumerate(design.blocks)]
    return _with(design, formula, blocks)


def without_fixed_term(design: Design, name: str) -> Design:
    """Return the design without a fixed term; ``"1"`` is the intercept.

    The other terms are coded anew: as in R an interaction that stays when its main
    effect goes is coded by more columns, so that the model is the same.

    Raises
    ------
    DesignError : there is no such term
    """
    old = design.fixed.coded
    names = [term.name for term in old.terms]
    if name not in names:
        raise DesignError(
            f"There is no fixed term {name!r}.", hint=suggest(name, names, "Terms")
        )
    terms = list(old.spec.formula)
    gone = next(term for term in terms if readable(str(term)) == name)
    key = frozenset(str(factor.expr) for factor in gone.factors)
    formula = _reparsed(design, without_fixed(design.formula.source, key))
    coded = code_part(
        SimpleFormula([term for term in terms if term is not gone]),
        design.columns,
        len(design.y),
        design.contrasts,
        (formula.source, formula.fixed.span),
    )
    roots = None if design.weights is None else np.sqrt(design.weights)
    reduced = replace(design, fixed=orthonormalize(coded, roots))
    return _with(reduced, formula, design.blocks)


def overparameterized(design: Design) -> bool:
    """Whether columns are aliased for no other reason than full contrasts."""
    plain = without_full(design.contrasts)
    if len(plain) == len(design.contrasts):
        return False
    coded = code_part(
        design.fixed.coded.spec.formula,
        design.columns,
        len(design.y),
        plain,
        (design.formula.source, design.formula.fixed.span),
    )
    return coded.values.shape[1] == len(design.fixed.kept)


def droppable_terms(design: Design) -> tuple[str, ...]:
    """Return the fixed terms that no other term contains, the intercept left out.

    As R's ``drop.scope``: a term is in another if the other has all its variables.
    """
    return _marginal(design.fixed.coded.terms)


def droppable_coefficients(block: RandomBlock) -> tuple[str, ...]:
    """Return the terms left of the bar that no other term there contains.

    Coefficients that are independent may go one by one, the intercept too.
    """
    if block.coded is None:
        return ()
    names = _marginal(block.coded.terms)
    has_intercept = any(term.name == "1" for term in block.coded.terms)
    numeric = not any(term.factors for term in block.coded.terms)
    if block.term.structure == "diag" and has_intercept and numeric:
        return ("1", *names)
    return names


def coefficient_terms(block: RandomBlock) -> tuple[str, ...]:
    """Return the names of the terms left of the bar, ``"1"`` for the intercept."""
    return tuple(readable(str(term)) for term in _terms_of(block))


def is_within(inner: Matrix, outer: Matrix) -> bool:
    """Return whether the columns (n, a) are combinations of the columns (n, b).

    Examples
    --------
    >>> a, b = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0, 0.0]] * 3)
    >>> is_within(a, a), is_within(a, b)
    (True, False)
    """
    basis = orthonormal_basis(outer)
    lengths = np.linalg.norm(inner, axis=0)
    columns = inner / np.where(lengths > 0.0, lengths, 1.0)
    rest = columns - basis @ (basis.T @ columns)
    return bool(np.all(np.linalg.norm(rest, axis=0) < INSIDE))


def orthonormal_basis(columns: Matrix) -> Matrix:
    """Return an orthonormal basis (n, r) of the span of columns (n, c)."""
    lengths = np.linalg.norm(columns, axis=0)
    unit = columns[:, lengths > 0.0] / lengths[lengths > 0.0]
    U, values, _ = np.linalg.svd(unit, full_matrices=False)
    return U[:, values > INSIDE * 1e-2 * values[:1]] if len(values) else unit


def _marginal(terms: Sequence[Term]) -> tuple[str, ...]:
    variables = [term.factors | term.covariates for term in terms]
    return tuple(
        term.name
        for term, own in zip(terms, variables, strict=True)
        if own and not any(own < other for other in variables)
    )


def _terms_of(block: RandomBlock) -> list[Any]:
    if block.coded is None:
        return list(formulaic_formula("1"))
    return list(block.coded.spec.formula)


def _coded(design: Design, block: RandomBlock, terms: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a block that has these coefficients."""
    n = len(design.y)
    if [str(term) for term in terms] == ["1"]:
        return {"columns": ("Intercept",), "coded": None, "design": np.ones((n, 1))}
    coded: Coded = code_part(
        SimpleFormula(list(terms)),
        design.columns,
        n,
        without_full(design.contrasts),
        (design.formula.source, block.term.span),
    )
    return {"columns": coded.names, "coded": coded, "design": coded.values}


def _reparsed(design: Design, source: str) -> ModelFormula:
    structures = {"us", "diag", *(block.term.structure for block in design.blocks)}
    return parse_formula(source, tuple(sorted(structures)))


def _with(
    design: Design, formula: ModelFormula, blocks: Sequence[RandomBlock]
) -> Design:
    """Return the design of a formula, its variables no more than the formula's."""
    renamed = tuple(
        replace(block, term=term)
        for block, term in zip(blocks, formula.random, strict=True)
    )
    used = {*variables_of(formulaic_formula(f"0 + {formula.response.code}"))}
    used.update(variables_of(design.fixed.coded.spec.formula))
    for part in formula.offsets:
        used.update(variables_of(formulaic_formula(f"0 + {part.code}")))
    for block in renamed:
        used.update(variables_of(_terms_of(block)))
    if design.residual is not None:
        used.update(design.residual.variables)
    return replace(
        design,
        formula=formula,
        blocks=renamed,
        columns={name: s for name, s in design.columns.items() if name in used},
        contrasts={name: c for name, c in design.contrasts.items() if name in used},
    )
