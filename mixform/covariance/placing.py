"""The positions of the coefficients of a random term, from the levels they stand for.

Goes in: a structure and a random term on data. Comes out: the structure of these
coefficients, or an error that underlines the term.
"""

from __future__ import annotations

import re

import numpy as np

from mixform._typing import Vector
from mixform.covariance.structure import Structure
from mixform.design import RandomBlock
from mixform.errors import DesignError

#: A level of a factor that is coded in full: ``C(year)[2001]``.
_LEVEL = re.compile(r"(?P<factor>[^\[\]]+)\[(?P<level>.*)\]")

#: A level of a factor that is coded by contrasts: ``f[T.b]``.
_CONTRAST = re.compile(r"[^\[\]]+\[[A-Z]\..*\]")


def placed(structure: Structure, block: RandomBlock, source: str) -> Structure:
    """Return a structure for the coefficients of a term.

    Raises
    ------
    DesignError : too few coefficients, a rank above their number, or no positions
    """
    _require_enough(structure, block, source)
    if structure.coordinates == "none":
        return structure.placed(None, dict(block.term.options))
    levels = _levels(structure, block, source)
    if structure.coordinates == "order":
        return structure.placed(None, {})
    numbers = _numbers(levels)
    if numbers is not None and len(np.unique(numbers)) < len(numbers):
        numbers = None
    if structure.coordinates == "number":
        if numbers is None:
            raise _error(
                f"{structure.name} needs coordinates, but the levels of "
                f"{block.term.source} are no different numbers: {_shown(levels)}.",
                block,
                source,
                "Use a factor whose levels are numbers, or ar1 for equal spacing.",
            )
        return structure.placed(numbers, {})
    return structure.placed(_integers(structure, numbers, block, source), {})


def _require_enough(structure: Structure, block: RandomBlock, source: str) -> None:
    k, name = block.k, structure.name
    rank = dict(block.term.options).get("d")
    if rank is not None and rank > k:
        raise _error(
            f"The rank {rank} of {block.term.source} is above its {k} "
            f"coefficient{'s' if k > 1 else ''}.",
            block,
            source,
            f"Choose d from 1 to {k}; us is the covariance of full rank.",
        )
    if k >= structure.least:
        return
    hint = "Write (... | g), the covariance without structure."
    if k == 1:
        one = block.columns[0]
        hint = f"Write (1 | {block.term.group_label}) for one variance."
        if one != "Intercept":
            hint = f"If {one!r} numbers positions, write {name}(0 + factor({one}) | g)."
    raise _error(
        f"{name} needs at least {structure.least} coefficients, but "
        f"{block.term.source} has {k}.",
        block,
        source,
        hint,
    )


def _levels(structure: Structure, block: RandomBlock, source: str) -> list[str]:
    """Return the levels of the one factor whose effects the coefficients are."""
    found = [_LEVEL.fullmatch(name) for name in block.columns]
    factors = {match["factor"] if match else None for match in found}
    contrasts = any(_CONTRAST.fullmatch(name) for name in block.columns)
    if None in factors or len(factors) > 1 or contrasts:
        raise _error(
            f"{structure.name} needs the levels of one factor as coefficients, but "
            f"{block.term.source} has {', '.join(map(repr, block.columns[:4]))}"
            f"{', ...' if block.k > 4 else ''}.",
            block,
            source,
            f"Write {structure.name}(0 + f | g), with the factor f.",
        )
    return [match["level"] for match in found if match]


def _numbers(levels: list[str]) -> Vector | None:
    try:
        numbers = np.array([float(level) for level in levels])
    except ValueError:
        return None
    return numbers if np.all(np.isfinite(numbers)) else None


def _integers(
    structure: Structure, numbers: Vector | None, block: RandomBlock, source: str
) -> Vector | None:
    """Return whole positions; None for those in order.

    Gaps between whole numbers count. Other numbers must be equally spaced, and levels
    that are no numbers are taken to be.
    """
    if numbers is None or np.all(numbers == np.rint(numbers)):
        return numbers
    order = np.argsort(numbers)
    steps = np.diff(numbers[order])
    if not np.allclose(steps, steps.mean(), rtol=1e-6):
        raise _error(
            f"{structure.name} needs whole numbers or equal spacing, but the levels of "
            f"{block.term.source} are {_shown([f'{x:g}' for x in numbers])}.",
            block,
            source,
            "Use exp, whose correlation falls with any distance.",
        )
    positions = np.empty(len(numbers))
    positions[order] = np.arange(len(numbers))
    return positions


def _shown(levels: list[str]) -> str:
    return ", ".join(levels[:5]) + (", ..." if len(levels) > 5 else "")


def _error(message: str, block: RandomBlock, source: str, hint: str) -> DesignError:
    return DesignError(message, formula=source, span=block.term.span, hint=hint)
