"""Which factors of the fixed part are nested in which others.

As in R's emmeans (Lenth), b is nested in a if each of its levels occurs with one level
of a only, or if the formula has no main effect of b and its terms say so, as in
``a/b``. Combinations that nesting rules out are not part of a reference grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixform._typing import Codes
from mixform.design.model_matrix import variables_of


def find_nesting(
    observed: Mapping[str, Codes], terms: Sequence[frozenset[str]]
) -> dict[str, tuple[str, ...]]:
    """Return the factors in which each nested factor is nested.

    Parameters
    ----------
    observed : factor -> (n,) codes of its levels in the data
    terms : the factors of each fixed term

    Examples
    --------
    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    >>> find_nesting({"a": a, "b": b}, [])
    {'b': ('a',)}
    """
    levels = {name: len(np.unique(codes)) for name, codes in observed.items()}
    names = [name for name, m in levels.items() if m > 1]
    parents: dict[str, set[str]] = {}
    for name in names:
        others = [o for o in names if o != name and name not in parents.get(o, ())]
        inside = {
            other
            for other in others
            if _n_pairs(observed[name], observed[other]) == levels[name]
        }
        if inside:
            parents[name] = inside
    for name in names:
        written = _nested_by_formula(name, set(names), terms)
        if written:
            parents[name] = parents.get(name, set()) | written
    # A parent's parents are parents too; two factors inside each other are crossed.
    for name in parents:
        parents[name] |= {g for p in parents[name] for g in parents.get(p, ())}
    return {
        name: tuple(other for other in names if other in found)
        for name, found in parents.items()
        if name not in found
    }


def _n_pairs(first: Codes, second: Codes) -> int:
    return len(np.unique(first * (int(second.max()) + 1) + second))


def _nested_by_formula(
    name: str, factors: set[str], terms: Sequence[frozenset[str]]
) -> set[str]:
    """Return the factors b is nested in by terms such as a:b without a term b.

    In such a term a is coded by all its levels, since b alone is not in the model.
    """
    if frozenset([name]) in terms:
        return set()
    model = {*terms, frozenset[str]()}
    holding = [term for term in terms if name in term]
    inside = [term for term in holding if term - {name} in model]
    found = [
        frozenset(g for g in term & factors if term - {g} not in model) - {name}
        for term in inside or holding
    ]
    smallest = [s for s in found if not any(other < s for other in found)]
    return {factor for s in smallest for factor in s}


def term_variables(formula: Any) -> tuple[frozenset[str], ...]:
    """Return the data columns in each term of a formulaic formula."""
    return tuple(frozenset(variables_of([term])) for term in formula)
