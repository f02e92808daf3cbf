"""Options of a covariance structure, behind the group: ``rr(0 + env | g, d = 2)``."""

from __future__ import annotations

import re

from mixform.errors import FormulaError, Span, suggest
from mixform.formula.scan import strip, top_level

#: The options of each structure that has some; each is a whole number above zero.
OPTIONS: dict[str, tuple[str, ...]] = {"rr": ("d",)}

_OPTION = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*)", re.DOTALL)


def read_options(
    source: str, start: int, end: int, structure: str
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Read what stands behind the first comma right of the bar.

    Parameters
    ----------
    start, end : what is right of the bar

    Returns
    -------
    where the grouping side ends, and the options, name and value

    Raises
    ------
    FormulaError : the structure has no such option, or its value is none
    """
    commas = [at for at, sign in top_level(source, start, end) if sign == ","]
    if not commas:
        return end, ()
    found: dict[str, int] = {}
    for begin, stop in zip(commas, [*commas[1:], end], strict=True):
        span = strip(source, begin + 1, stop)
        name, value = _read(source, span, (begin, begin + 1), structure)
        if name in found:
            raise _error(source, f"The option {name!r} is given twice.", span, None)
        found[name] = value
    return commas[0], tuple(found.items())


def _read(source: str, span: Span, comma: Span, structure: str) -> tuple[str, int]:
    known = OPTIONS.get(structure, ())
    text = source[span[0] : span[1]]
    if not known:
        where = span if text else comma
        raise _error(
            source,
            f"The structure {structure!r} has no options.",
            where,
            "A random term is (coefficients | group).",
        )
    match = _OPTION.fullmatch(text)
    if match is None:
        where = span if text else comma
        hint = f"Write {known[0]} = 2."
        raise _error(source, f"This is no option of {structure!r}.", where, hint)
    if match[1] not in known:
        raise _error(
            source,
            f"{structure!r} has no option {match[1]!r}.",
            (span[0], span[0] + len(match[1])),
            suggest(match[1], known, "Options"),
        )
    if not re.fullmatch(r"0*[1-9]\d*", match[2]):
        raise _error(
            source,
            f"The option {match[1]!r} is {match[2]!r}, not a whole number above zero.",
            (span[0] + match.start(2), max(span[1], span[0] + match.start(2) + 1)),
            f"Write {match[1]} = 2.",
        )
    return match[1], int(match[2])


def _error(source: str, message: str, span: Span, hint: str | None) -> FormulaError:
    return FormulaError(message, formula=source, span=span, hint=hint)
