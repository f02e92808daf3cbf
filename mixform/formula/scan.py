"""Find signs at the top level of a formula: outside brackets and quotes.

STRING in, positions out. All positions count from the start of the whole formula, so
that every later error can underline the right characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixform.errors import FormulaError

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOSING = {"(": ")", "[": "]", "{": "}"}
QUOTES = "'\"`"


def top_level(source: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    """Yield (position, character) outside all brackets and quotes of a slice.

    An opening bracket itself is yielded, what it encloses is not.

    Raises
    ------
    FormulaError : a bracket or a quote is not closed, or closes nothing

    Examples
    --------
    >>> [i for i, sign in top_level("a + (b + c) + d", 0, 15) if sign == "+"]
    [2, 12]
    """
    position = start
    while position < end:
        sign = source[position]
        if sign in QUOTES:
            position = _closing_quote(source, position, end)
        elif sign in CLOSING:
            yield position, sign
            position = closing_bracket(source, position, end)
        elif sign in ")]}":
            raise FormulaError(
                f"{sign!r} closes no bracket.",
                formula=source,
                span=(position, position + 1),
                hint="Remove it, or open the bracket it belongs to.",
            )
        else:
            yield position, sign
        position += 1


def closing_bracket(source: str, start: int, end: int) -> int:
    """Return the position of the bracket that closes the one at ``start``."""
    expected = [CLOSING[source[start]]]
    position = start + 1
    while position < end:
        sign = source[position]
        if sign in QUOTES:
            position = _closing_quote(source, position, end)
        elif sign in CLOSING:
            expected.append(CLOSING[sign])
        elif sign in ")]}":
            if sign != expected.pop():
                break
            if not expected:
                return position
        position += 1
    raise FormulaError(
        f"The bracket {source[start]!r} is not closed.",
        formula=source,
        span=(start, start + 1),
        hint=f"Add the missing {CLOSING[source[start]]!r}.",
    )


def _closing_quote(source: str, start: int, end: int) -> int:
    position = source.find(source[start], start + 1, end)
    if position < 0:
        raise FormulaError(
            f"The quote {source[start]} is not closed.",
            formula=source,
            span=(start, end),
            hint="Add the closing quote.",
        )
    return position


def find_sign(source: str, start: int, end: int, sign: str) -> int:
    """Return the first top-level position of one sign in a slice, or -1."""
    for position, found in top_level(source, start, end):
        if found == sign:
            return position
    return -1


def strip(source: str, start: int, end: int) -> tuple[int, int]:
    """Return the slice without the white space at its ends."""
    while start < end and source[start].isspace():
        start += 1
    while end > start and source[end - 1].isspace():
        end -= 1
    return start, end


def split_sum(source: str, start: int, end: int) -> list[tuple[str, int, int]]:
    """Split a slice at its top-level plus and minus signs.

    Returns
    -------
    list of (sign, start, end) : the sign of each summand, ``"+"`` or ``"-"``, and its
        stripped slice, which is empty where a summand is missing at the end

    Examples
    --------
    >>> split_sum("1 + x + -(a + b)", 0, 16)
    [('+', 0, 1), ('+', 4, 5), ('-', 9, 16)]
    """
    pieces: list[tuple[str, int, int]] = []
    sign, begin = "+", start
    for position, found in top_level(source, start, end):
        if found in "+-":
            if source[begin:position].strip():
                pieces.append((sign, *strip(source, begin, position)))
                sign = found
            else:  # signs in a row multiply, as in R: x + -1
                sign = "+" if sign == found else "-"
            begin = position + 1
    pieces.append((sign, *strip(source, begin, end)))
    return pieces
