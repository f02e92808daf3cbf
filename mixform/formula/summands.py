"""The summands of a formula: what each means, and how the user wrote it.

STRING in; out comes a `Piece`, whose terms can be compared by meaning and stand alone
as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mixform.formula.names import readable
from mixform.formula.parse import formulaic_formula
from mixform.formula.scan import QUOTES, closing_bracket, find_sign
from mixform.formula.spelling import to_formulaic
from mixform.formula.terms import ModelFormula, RandomTerm

#: What a term means: its factors, or structure, group and coefficients.
Key = frozenset[Any]

INTERCEPT: Key = frozenset({"1"})
_NAME = re.compile(r"(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """One summand of a formula.

    Attributes
    ----------
    text : as the user wrote it
    parts : what each term in it means, and its text when it stands alone
    """

    text: str
    parts: tuple[tuple[Key, str], ...]

    def alone(self) -> list[Piece]:
        """Return its terms one by one."""
        return [Piece(text, ((key, text),)) for key, text in self.parts]


def coefficients_text(source: str, term: RandomTerm, kept: Sequence[Any]) -> str:
    """Return some coefficients of a random term as the user wrote them.

    Parameters
    ----------
    source : the formula that the term stands in
    kept : formulaic's terms, the intercept among them if it is kept
    """
    text = source[term.span[0] : term.span[1]]
    opening = text.index("(")
    bar = find_sign(text, opening + 1, len(text) - 1, "|")
    written = _operands(text[opening + 1 : bar])
    names = [_term_text(t, written) for t in kept if term_key(t) != INTERCEPT]
    if len(names) < len(kept):
        return " + ".join(names) or "1"
    return " + ".join(["0", *names])


def random_text(term: RandomTerm, coefficients: str) -> str:
    """Return a random term of this group and structure as text."""
    group = ":".join(_quoted(name) for name in term.group)
    if term.structure == "diag":
        return f"({coefficients} || {group})"
    if coefficients == "1" and term.structure != "iid":
        return f"(1 | {group})"
    name = "" if term.structure == "us" else term.structure
    return f"{name}({coefficients} | {group}{_options_text(term)})"


def _options_text(term: RandomTerm) -> str:
    return "".join(f", {name} = {value}" for name, value in term.options)


def fixed_piece(text: str, parsed: ModelFormula) -> Piece:
    """Return the piece of a fixed summand or an offset, once it is parsed."""
    if parsed.offsets:
        code = "".join(map(str, formulaic_formula(f"0 + {parsed.offsets[0].code}")))
        return Piece(text, ((frozenset({"offset", code}), text),))
    written = _operands(text)
    terms = formulaic_formula(f"0 + {to_formulaic(text)}")
    return Piece(text, tuple((term_key(t), _term_text(t, written)) for t in terms))


def random_piece(text: str, parsed: ModelFormula) -> Piece:
    """Return the piece of a random summand, nested terms as parts of it."""
    opening = text.index("(")
    name = text[:opening].strip()
    bar = find_sign(text, opening + 1, len(text) - 1, "|")
    left = text[opening + 1 : bar].strip()
    sign = "||" if text[bar + 1] == "|" else "|"
    parts: list[tuple[Key, str]] = []
    for term in parsed.random:
        group = ":".join(_quoted(column) for column in term.group)
        alone = f"{name}({left} {sign} {group}{_options_text(term)})"
        parts.append((random_key(term), text if len(parsed.random) == 1 else alone))
    return Piece(text, tuple(parts))


def random_key(term: RandomTerm) -> Key:
    """Return what a random term means: structure, group and coefficients."""
    coefficients = frozenset(map(term_key, formulaic_formula(term.coefficients)))
    # A lone intercept has one variance whatever the structure; iid is about the levels.
    plain = coefficients == frozenset({INTERCEPT}) and term.structure != "iid"
    structure = "us" if plain else term.structure
    key = {structure, frozenset(term.group), ("of", coefficients)}
    return frozenset(key if plain else key | set(term.options))


def term_key(term: Any) -> Key:
    """Return what one of formulaic's terms means: its factors."""
    return frozenset(str(factor.expr) for factor in term.factors)


def _term_text(term: Any, written: dict[str, str]) -> str:
    exprs = [str(factor.expr) for factor in term.factors]
    return ":".join(written.get(expr, readable(expr)) for expr in exprs)


def written_terms(text: str, terms: Iterable[Any]) -> list[str]:
    """Return formulaic's terms as the user wrote them in a text, ``"1"`` for one."""
    written = _operands(text)
    return [_term_text(term, written) for term in terms]


def _operands(text: str) -> dict[str, str]:
    """Return the factors in a text: formulaic's spelling -> the user's."""
    return {
        str(term.factors[0].expr): operand
        for operand in _operand_texts(text)
        for term in formulaic_formula(f"0 + {to_formulaic(operand)}")
    }


def _operand_texts(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        name = _NAME.match(text, position)
        end = position + 1
        if name:
            end = name.end()
            if text[end:].lstrip()[:1] == "(":
                end = closing_bracket(text, text.index("(", end), len(text)) + 1
            yield text[position:end]
        elif text[position] in QUOTES:
            end = text.index(text[position], end) + 1
            yield text[position:end]
        position = end


def _quoted(name: str) -> str:
    return name if _NAME.fullmatch(name) else f"`{name}`"


def quoted_factor(expr: str) -> str:
    """Return a factor as a formula may hold it."""
    name = readable(expr)
    return name if "(" in name else _quoted(name)
