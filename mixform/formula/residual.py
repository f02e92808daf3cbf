"""Read a residual structure such as ``"us(visit | arm/id)"``, and ``"~ sex"``.

STRING in, `ResidualTerm` out: the name of the structure, the columns that say where
a residual stands (a visit, a time, coordinates), and the subject whose residuals are
correlated. This layer never sees data.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixform.errors import FormulaError, suggest
from mixform.formula.names import readable
from mixform.formula.parse import check_part, formulaic_formula
from mixform.formula.scan import closing_bracket, find_sign, strip, top_level
from mixform.formula.spelling import to_formulaic
from mixform.formula.terms import Part

if TYPE_CHECKING:
    from mixform.errors import Span

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\(")
_OPTION = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.+)", re.DOTALL)
_EXAMPLE = 'Write residual="us(visit | id)".'


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualTerm:
    """A residual structure, read but not yet applied to data.

    Attributes
    ----------
    structure : its name
    coordinates : columns that say where a residual stands within its subject
    group : columns whose combination is the subject; empty if all rows are one
    strata : columns whose combinations have parameters of their own
    options : (name, value) as written
    source : the structure as the user wrote it
    """

    structure: str
    coordinates: tuple[str, ...]
    group: tuple[str, ...]
    strata: tuple[str, ...]
    options: tuple[tuple[str, object], ...]
    source: str

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, each once."""
        return tuple(dict.fromkeys((*self.coordinates, *self.group)))

    @property
    def group_label(self) -> str:
        """The name of the subject factor, e.g. ``arm:id``."""
        return ":".join(self.group)

    def find(self, name: str) -> Span:
        """Return where a column stands in the source, all of it if not found."""
        found = re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", self.source)
        return found.span() if found else (0, len(self.source))


def parse_residual(source: object, structures: Sequence[str]) -> ResidualTerm:
    """Read a residual structure.

    Parameters
    ----------
    source : ``"name(coordinates | subject)"``; ``stratum/subject`` gives each stratum
        parameters of its own; options follow a comma, ``nugget=True``
    structures : names there are

    Raises
    ------
    FormulaError : it cannot be read; the message underlines where

    Examples
    --------
    >>> term = parse_residual("us(visit | arm/id)", ("us", "ar1"))
    >>> term.coordinates, term.group, term.strata
    (('visit',), ('arm', 'id'), ('arm',))
    """
    if not isinstance(source, str):
        raise FormulaError(
            f"residual is a {type(source).__name__}, not a string.", hint=_EXAMPLE
        )
    call = _CALL.match(source)
    if call is None:
        raise FormulaError(
            "The residual structure is not a call.",
            formula=source,
            span=(0, len(source)),
            hint=_EXAMPLE,
        )
    if call[1] not in structures:
        raise FormulaError(
            f"Unknown residual structure {call[1]!r}.",
            formula=source,
            span=call.span(1),
            hint=suggest(call[1], structures, "Structures"),
        )
    opening = call.end() - 1
    close = closing_bracket(source, opening, len(source))
    rest = strip(source, close + 1, len(source))
    if rest[0] != rest[1]:
        raise FormulaError(
            "A model has one residual structure.",
            formula=source,
            span=rest,
            hint="Remove what follows the bracket; random terms go in the formula.",
        )
    return _read(source, call[1], (opening + 1, close))


def parse_dispersion(source: object) -> Part:
    """Read a dispersion formula: ``"~ sex"``.

    Raises
    ------
    FormulaError : it is no one-sided formula, or has random terms
    """
    if not isinstance(source, str):
        raise FormulaError(
            f"dispersion is a {type(source).__name__}, not a string.",
            hint='Write dispersion="~ sex".',
        )
    start, end = strip(source, 0, len(source))
    if source[start : start + 1] != "~":
        raise FormulaError(
            "A dispersion formula starts with '~'.",
            formula=source,
            span=(start, end),
            hint='Write dispersion="~ sex".',
        )
    span = strip(source, start + 1, end)
    bar = find_sign(source, *span, "|")
    if span[0] == span[1] or bar >= 0:
        raise FormulaError(
            "A dispersion formula has fixed effects, and those only.",
            formula=source,
            span=(bar, bar + 1) if bar >= 0 else (start, end),
            hint='Write dispersion="~ sex".',
        )
    text = source[span[0] : span[1]]
    code = to_formulaic(text)
    check_part(source, code, span)
    return Part(text=text, code=code, span=span)


def _read(source: str, name: str, inner: Span) -> ResidualTerm:
    pieces = _split(source, inner)
    options = tuple(_option(source, span) for span in pieces[1:])
    body = pieces[0]
    bar = find_sign(source, *body, "|")
    left = strip(source, body[0], body[1] if bar < 0 else bar)
    group: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    if bar >= 0:
        right = strip(source, bar + 1, body[1])
        nested = [
            _names(source, span, ":") for span in _cut(source, right, "/", "subject")
        ]
        group = tuple(name for names in nested for name in names)
        strata = tuple(name for names in nested[:-1] for name in names)
    return ResidualTerm(
        structure=name,
        coordinates=_names(source, left, "+"),
        group=group,
        strata=strata,
        options=options,
        source=source,
    )


def _split(source: str, inner: Span) -> list[Span]:
    """Split at the top-level commas."""
    commas = [i for i, sign in top_level(source, *inner) if sign == ","]
    starts, ends = [inner[0], *(i + 1 for i in commas)], [*commas, inner[1]]
    return [strip(source, a, b) for a, b in zip(starts, ends, strict=True)]


def _option(source: str, span: Span) -> tuple[str, object]:
    found = _OPTION.fullmatch(source[span[0] : span[1]])
    try:
        if found is None:
            raise ValueError
        return found[1], literal_eval(found[2])
    except (ValueError, SyntaxError):
        raise FormulaError(
            "An option is written name=value.",
            formula=source,
            span=span,
            hint="Options: nugget=True, nu=1.5.",
        ) from None


def _cut(source: str, span: Span, sign: str, what: str) -> list[Span]:
    """Split at a sign, no piece empty."""
    cuts = [i for i, found in top_level(source, *span) if found == sign]
    starts, ends = [span[0], *(i + 1 for i in cuts)], [*cuts, span[1]]
    pieces = [strip(source, a, b) for a, b in zip(starts, ends, strict=True)]
    for piece in pieces:
        if piece[0] == piece[1]:
            raise FormulaError(
                f"The {what} is missing.",
                formula=source,
                span=(max(span[0] - 1, 0), max(span[1], span[0] + 1)),
                hint=_EXAMPLE,
            )
    return pieces


def _names(source: str, span: Span, sign: str) -> tuple[str, ...]:
    """Return the columns that a slice joins by a sign."""
    names: list[str] = []
    what = "subject" if sign == ":" else "position"
    for piece in _cut(source, span, sign, what):
        code = to_formulaic(source[piece[0] : piece[1]])
        check_part(source, code, piece)
        terms = list(formulaic_formula(f"0 + {code}"))
        factors = [factor for term in terms for factor in term.factors]
        if len(factors) != 1 or factors[0].eval_method.value != "lookup":
            raise FormulaError(
                f"'{source[piece[0] : piece[1]]}' is not a column.",
                formula=source,
                span=piece,
                hint="Compute it as a column of the data first.",
            )
        names.append(readable(str(factors[0].expr)))
    return tuple(names)
