"""Change a formula by a formula, as R's ``update`` does: ``". + x - (1 | g)"``.

STRINGS in, STRING out. Terms are compared by what they mean (``b:a`` is ``a:b``,
``(1 + x | g)`` is ``(x | g)``) and kept as the user wrote them: a product is written
out only where a part of it is removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mixform.errors import FormulaError, Span, suggest
from mixform.formula.parse import parse_formula
from mixform.formula.scan import find_sign, split_sum, strip
from mixform.formula.summands import (
    INTERCEPT,
    Key,
    Piece,
    fixed_piece,
    quoted_factor,
    random_piece,
)
from mixform.formula.terms import ModelFormula

_CALLED = re.compile(r"([A-Za-z_.][\w.]*)\s*\(")
_QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"")
_DOT = re.compile(r"(?<![\w.])\.(?![\w.])")


def update_formula(old: str, new: str) -> str:
    """Return the old formula changed as the new one says.

    Parameters
    ----------
    old : a formula
    new : a formula in which ``.`` stands for the old response or the old right-hand
        side; ``. + x`` alone changes the right-hand side. Where ``.`` is part of a
        product, as in ``. * x``, it stands for the old fixed part; the old random
        terms and offsets stay.

    Raises
    ------
    FormulaError : it cannot be read, or removes a term that is not there

    Examples
    --------
    >>> update_formula("y ~ a*b + (x | g)", ". - b:a - (1 + x | g) + (1 | g)")
    'y ~ a + b + (1 | g)'
    >>> update_formula("y ~ x + (1 | g)", "log(.) ~ .")
    'log(y) ~ x + (1 | g)'
    """
    before = read_sum(old)
    tilde = find_sign(new, 0, len(new), "~")
    start, end = strip(new, tilde + 1, len(new))
    if start == end:
        raise FormulaError(
            "The change of the formula is empty.",
            formula=new,
            span=(0, len(new)),
            hint="Write '. + x' or '. - (1 | g)'.",
        )
    if tilde < 0 and new[start] in "+-":
        raise FormulaError(
            f"The change starts with {new[start]!r}: it does not say from what.",
            formula=new,
            span=(start, start + 1),
            hint=f"Write '. {new[start:end]}' to change the old right-hand side.",
        )
    left = new[:tilde].strip() if tilde >= 0 else ""
    after = TermSum(response=_fill(left or ".", before.response))
    after.apply(new, (start, end), before)
    return after.text()


@dataclass(slots=True)
class TermSum:
    """A formula as response, fixed pieces and random pieces; grows by `apply`."""

    response: str
    intercept: bool = True
    fixed: list[Piece] = field(default_factory=list[Piece])
    random: list[Piece] = field(default_factory=list[Piece])

    @property
    def open(self) -> bool:
        """Whether a ``.`` stands for columns that only the data can name."""
        return any(_has_dot(piece.text) for piece in self.fixed)

    def text(self) -> str:
        """Return the formula."""
        fixed = [p.text for p in self.fixed if self.intercept or p.text != "1"]
        if not self.intercept:
            fixed.insert(0, "0")
        first, *rest = [*(fixed or ["1"]), *(piece.text for piece in self.random)]
        signed = (f" {s}" if s.startswith("- ") else f" + {s}" for s in rest)
        return f"{self.response} ~ {first}{''.join(signed)}"

    def apply(self, source: str, span: Span, before: TermSum | None) -> None:
        """Add and remove what a slice of the source says, in order.

        Parameters
        ----------
        before : what ``.`` stands for; None leaves it to the data
        """
        for sign, begin, end in split_sum(source, *span):
            text = source[begin:end]
            if not text:
                raise _error(
                    source,
                    (max(begin - 1, 0), begin),
                    "A term is missing here.",
                    "Write a term after the sign, or remove the sign.",
                )
            if before is not None and _has_dot(text):
                self._take_over(before, sign, source, (begin, end))
            elif text in {"0", "1"}:
                self._set_intercept(text, sign, source, (begin, end), before)
            elif before is None and _has_dot(text):
                shown = text if sign == "+" else f"- {text}"
                self.fixed.append(Piece(shown, ((frozenset({shown}), shown),)))
            else:
                self._apply_piece(sign, source, (begin, end), before)

    def _take_over(self, before: TermSum, sign: str, source: str, span: Span) -> None:
        """Add the old terms; in a product, the product of the old fixed part."""
        text = source[span[0] : span[1]]
        if sign == "-":
            raise _error(
                source, span, "The old terms can only be added.", "Write '. - x'."
            )
        if text == ".":
            self.intercept &= before.intercept
            for piece in before.fixed:
                self._add(piece, random=False)
        else:
            inner = TermSum("", before.intercept, before.fixed).text().lstrip(" ~")
            filled = _fill(text, inner if inner.isidentifier() else f"({inner})")
            try:
                self.apply(filled, (0, len(filled)), None)
            except FormulaError as failure:
                raise _error(source, span, failure.message, failure.hint) from None
        for piece in before.random:
            self._add(piece, random=True)

    def _set_intercept(
        self, text: str, sign: str, source: str, span: Span, before: TermSum | None
    ) -> None:
        wanted = (text == "1") == (sign == "+")
        if before is not None and text == "1" and not wanted and not self.intercept:
            raise _error(source, span, "The model has no intercept to remove.", None)
        self.intercept = wanted
        if text == "1" and wanted and before is None:
            self.fixed.append(Piece("1", ((INTERCEPT, "1"),)))

    def _apply_piece(
        self, sign: str, source: str, span: Span, before: TermSum | None
    ) -> None:
        text = source[span[0] : span[1]]
        parsed = _parse(source, span)
        random = bool(parsed.random)
        if random and _bar_is_deeper(text):
            # Brackets around a sum: + (a + (1 | g)).
            inner = (span[0] + 1, span[1] - 1)
            if sign == "-":
                raise _error(
                    source, span, "Remove random terms one by one.", "Write '- (1 | g)'"
                )
            self.apply(source, inner, before)
            return
        piece = random_piece(text, parsed) if random else fixed_piece(text, parsed)
        if sign == "+":
            self._add(piece, random=random)
        else:
            self._remove(piece, random, source, span, strict=before is not None)

    def _add(self, piece: Piece, *, random: bool) -> None:
        where = self.random if random else self.fixed
        known = {key for other in where for key, _ in other.parts}
        new = [part for part in piece.alone() if part.parts[0][0] not in known]
        where.extend([piece] if len(new) == len(piece.parts) else new)

    def _remove(
        self, piece: Piece, random: bool, source: str, span: Span, *, strict: bool
    ) -> None:
        where = self.random if random else self.fixed
        known = {key for other in where for key, _ in other.parts}
        for key, text in piece.parts:
            if key in known:
                self.drop(key, random=random)
            elif self.open and not random:
                self.fixed.append(Piece(f"- {text}", ((frozenset({f"-{text}"}), ""),)))
            elif strict:
                kind = "random term" if random else "term"
                names = [text for p in where for _, text in p.parts if text != "1"]
                raise _error(
                    source,
                    span,
                    f"The model has no {kind} {text} to remove.",
                    suggest(text, names, f"{kind.capitalize()}s"),
                )

    def drop(self, key: Key, *, random: bool) -> None:
        """Remove the term of this meaning, if it is there."""
        where = self.random if random else self.fixed
        kept: list[Piece] = []
        for piece in where:
            if any(key == own for own, _ in piece.parts):
                kept += [p for p in piece.alone() if p.parts[0][0] != key]
            else:
                kept.append(piece)
        where[:] = kept


def read_sum(source: str) -> TermSum:
    """Return a formula as a sum of pieces; its ``.`` stays as it is."""
    tilde = find_sign(source, 0, len(source), "~")
    if tilde < 0:
        raise FormulaError(
            "The formula has no '~'.",
            formula=source,
            span=(0, len(source)),
            hint="Write the response left of it: y ~ x + (1 | group).",
        )
    out = TermSum(response=source[:tilde].strip())
    out.apply(source, strip(source, tilde + 1, len(source)), None)
    return out


def meanings(text: str) -> tuple[Key, ...]:
    """Return what the terms of one summand mean; equal for ``a:b`` and ``b:a``.

    Raises
    ------
    FormulaError : it cannot be read

    Examples
    --------
    >>> meanings("(x | g)") == meanings("(1 + x|g)")
    True
    """
    parsed = _parse(text, (0, len(text)))
    piece = random_piece if parsed.random else fixed_piece
    return tuple(key for key, _ in piece(text, parsed).parts)


def without_fixed(source: str, key: Key) -> str:
    """Return the formula without the fixed term of these factors.

    Parameters
    ----------
    key : the term's factors as formulaic writes them, ``{"1"}`` for the intercept
    """
    out = read_sum(source)
    if key == INTERCEPT:
        out.intercept = False
    elif any(key == own for piece in out.fixed for own, _ in piece.parts):
        out.drop(key, random=False)
    else:  # one of the columns that '.' stands for
        text = f"- {':'.join(sorted(map(quoted_factor, key)))}"
        out.fixed.append(Piece(text, ()))
    return out.text()


def with_random(source: str, j: int, replacement: str | None) -> str:
    """Return the formula with random term j replaced, or removed.

    Parameters
    ----------
    j : position among the random terms, nested ones expanded
    """
    out = read_sum(source)
    changed: list[Piece] = []
    position = 0
    for piece in out.random:
        inside = position <= j < position + len(piece.parts)
        singles = piece.alone() if inside else [piece]
        for single in singles:
            if inside and position == j:
                changed += [] if replacement is None else [Piece(replacement, ())]
            else:
                changed.append(single)
            position += len(single.parts)
    out.random = changed
    return out.text()


def _parse(source: str, span: Span) -> ModelFormula:
    """Read one summand; errors underline it in the source."""
    text = source[span[0] : span[1]]
    prefix = "y~"
    try:
        return parse_formula(prefix + text, tuple(_CALLED.findall(text)))
    except FormulaError as failure:
        start, end = failure.span or (len(prefix), len(prefix) + len(text))
        shift = span[0] - len(prefix)
        where = (max(start + shift, span[0]), min(end + shift, span[1]))
        raise _error(source, where, failure.message, failure.hint) from None


def _error(source: str, span: Span, message: str, hint: str | None) -> FormulaError:
    return FormulaError(message, formula=source, span=span, hint=hint)


def _bar_is_deeper(text: str) -> bool:
    """Whether the outer brackets hold a sum with random terms, not one of them."""
    opening = text.index("(")
    return find_sign(text, opening + 1, len(text) - 1, "|") < 0


def _has_dot(text: str) -> bool:
    return bool(_DOT.search(_QUOTED.sub(lambda m: "x" * len(m[0]), text)))


def _fill(text: str, old: str) -> str:
    """Replace every ``.`` that stands for the old text."""
    hidden = _QUOTED.sub(lambda match: "x" * len(match[0]), text)
    out, position = "", 0
    for match in _DOT.finditer(hidden):
        out += text[position : match.start()] + old
        position = match.end()
    return out + text[position:]
