"""Read a mixed model formula: split off what formulaic does not know.

STRING in, `ModelFormula` out. The random terms ``(coefficients | group)`` are taken
out of the right-hand side, ``||`` and a structure name in front become the term's
covariance structure, and nesting is expanded; formulaic reads both sides of the bar
and everything else. This layer never sees data.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaParsingError, FormulaSyntaxError

from mixform.errors import FormulaError, Span, suggest
from mixform.formula.names import readable
from mixform.formula.options import read_options
from mixform.formula.scan import (
    closing_bracket,
    find_sign,
    split_sum,
    strip,
    top_level,
)
from mixform.formula.spelling import R_CALLS, to_formulaic
from mixform.formula.terms import ModelFormula, Part, RandomTerm

_CALL = re.compile(r"([A-Za-z_.][\w.]*)?\s*\(")
_MARKS = re.compile(r"\x1b\[[0-9;]*m|⧚")


@lru_cache(maxsize=256)
def parse_formula(source: str, structures: tuple[str, ...]) -> ModelFormula:
    """Read a formula such as ``"y ~ x + (x | g)"``.

    Parameters
    ----------
    source : the formula
    structures : names of the covariance structures that may precede a bracket

    Raises
    ------
    FormulaError : it cannot be read; the message underlines where

    Examples
    --------
    >>> model = parse_formula("y ~ x + (x || a/b)", ("us", "diag"))
    >>> [(t.coefficients, t.group_label, t.structure) for t in model.random]
    [('x', 'a', 'diag'), ('x', 'a:b', 'diag')]
    """
    reader = _Reader(source, structures)
    return reader.read()


def check_part(source: str, code: str, span: Span) -> None:
    """Require that formulaic can read a slice of the source, written in its grammar.

    Raises
    ------
    FormulaError : it cannot; the message underlines where
    """
    _Reader(source, ()).check(code, span)


class _Reader:
    """Collects the parts of one formula."""

    def __init__(self, source: str, structures: tuple[str, ...]) -> None:
        self.source = source
        self.structures = structures
        self.fixed: list[str] = []
        self.offsets: list[Part] = []
        self.random: list[RandomTerm] = []

    def error(self, message: str, span: Span, hint: str) -> FormulaError:
        return FormulaError(message, formula=self.source, span=span, hint=hint)

    def read(self) -> ModelFormula:
        tilde = find_sign(self.source, 0, len(self.source), "~")
        if tilde < 0:
            raise self.error(
                "The formula has no '~'."
                if self.source.strip()
                else "The formula is empty.",
                (0, len(self.source)),
                "Write the response left of it: y ~ x + (1 | group).",
            )
        response = self._response(tilde)
        right = (tilde + 1, len(self.source))
        again = find_sign(self.source, *right, "~")
        if again >= 0:
            raise self.error(
                "A formula has one '~' only.", (again, again + 1), "Remove this one."
            )
        self._read_sum(*right)
        span = strip(self.source, *right)
        fixed = Part(
            text=self.source[span[0] : span[1]],
            code=" ".join(self.fixed) or "1",
            span=span,
        )
        return ModelFormula(
            source=self.source,
            response=response,
            fixed=fixed,
            offsets=tuple(self.offsets),
            random=tuple(self.random),
        )

    def _response(self, tilde: int) -> Part:
        start, end = strip(self.source, 0, tilde)
        if start == end:
            raise self.error(
                "The formula has no response.",
                (tilde, tilde + 1),
                "Write it left of the '~'.",
            )
        if find_sign(self.source, start, end, "|") >= 0:
            raise self.error(
                "The response cannot hold a bar.",
                (start, end),
                "Random terms stand right of the '~'.",
            )
        for position, sign in top_level(self.source, start, end):
            if sign in "-*/^:%":
                raise self.error(
                    f"The response {self.source[start:end]!r} is not one column.",
                    (position, position + 1),
                    f"Write I({self.source[start:end]}) for arithmetic.",
                )
        return self._part((start, end))

    def _part(self, span: Span) -> Part:
        text = self.source[span[0] : span[1]]
        code = to_formulaic(text)
        self.check(code, span)
        return Part(text=text, code=code, span=span)

    def _read_sum(self, start: int, end: int) -> None:
        for sign, begin, stop in split_sum(self.source, start, end):
            piece = self.source[begin:stop]
            if not piece:
                place = (max(begin - 1, 0), begin)
                raise self.error(
                    "A term is missing here.",
                    place,
                    "Write a term after the sign, or remove the sign.",
                )
            if self._has_bar(begin, stop):
                self._read_bracket(sign, begin, stop)
            elif re.match(r"offset\s*\(", piece):
                self._read_offset(sign, begin, stop)
            else:
                text = to_formulaic(piece)
                if piece != ".":
                    self.check(text, (begin, stop))
                self.fixed.append(f"{sign} {text}" if self.fixed else f"{sign}{text}")

    def _has_bar(self, start: int, end: int) -> bool:
        """Whether a bar stands in the slice, at the top level or in a bracket of it.

        Bars inside quotes, and inside the calls that formulaic evaluates, are not
        signs of the formula.
        """
        for position, sign in top_level(self.source, start, end):
            if sign == "|":
                return True
            if sign == "(":
                close = closing_bracket(self.source, position, end)
                if self._has_bar(position + 1, close):
                    return True
        return False

    def _read_offset(self, sign: str, start: int, end: int) -> None:
        opening = self.source.index("(", start)
        if sign == "-" or closing_bracket(self.source, opening, end) != end - 1:
            raise self.error(
                "An offset can only be added.", (start, end), "Write + offset(z)."
            )
        span = strip(self.source, opening + 1, end - 1)
        # As in R an offset is an expression: offset(2 * z) is no interaction.
        text = self.source[span[0] : span[1]]
        code = to_formulaic(f"I({text})")
        self.check(code, span)
        self.offsets.append(Part(text=text, code=code, span=span))

    def _read_bracket(self, sign: str, start: int, end: int) -> None:
        call = _CALL.match(self.source, start)
        bar = find_sign(self.source, start, end, "|")
        if bar >= 0:
            raise self.error(
                "A bar must stand inside brackets.",
                (bar, bar + 1),
                "Write the random term as (coefficients | group), e.g. (1 | id).",
            )
        if call is None:
            raise self.error(
                "A random term can only be added to the model.",
                (start, end),
                "Only '+' may stand between terms: y ~ x + (1 | id).",
            )
        opening = call.end() - 1
        close = closing_bracket(self.source, opening, end)
        if close != end - 1:
            raise self.error(
                "A random term can only be added to the model.",
                strip(self.source, close + 1, end),
                "Only '+' may follow the bracket: y ~ (1 | id) + z.",
            )
        if sign == "-":
            raise self.error(
                "A random term cannot be subtracted.",
                (start, end),
                "Leave it out of the formula instead.",
            )
        inner = (opening + 1, end - 1)
        bar = find_sign(self.source, *inner, "|")
        if bar >= 0:
            self._read_term(call[1], (start, end), inner, bar)
        elif call[1]:
            raise self.error(
                "Brackets with a bar cannot be nested in a call.",
                (start, end),
                "Write (coefficients | group).",
            )
        else:
            self._read_sum(*inner)

    def _read_term(self, name: str | None, span: Span, inner: Span, bar: int) -> None:
        double = self.source[bar + 1] == "|"
        after = bar + (2 if double else 1)
        extra = find_sign(self.source, after, inner[1], "|")
        if extra >= 0:
            raise self.error(
                "A random term has one bar.",
                (extra, extra + 1),
                "Write (x | g), or (x || g) for independent coefficients.",
            )
        structure = self._structure(name, span, double=double)
        left = strip(self.source, inner[0], bar)
        end, options = read_options(self.source, after, inner[1], structure)
        right = strip(self.source, after, end)
        for side, where in ((left, "left"), (right, "right")):
            if side[0] == side[1]:
                raise self.error(
                    f"Nothing stands {where} of the bar.",
                    (bar, after),
                    "Write (coefficients | group), e.g. (1 | id).",
                )
        coefficients = to_formulaic(self.source[left[0] : left[1]])
        self.check(coefficients, left)
        self.random.extend(
            RandomTerm(
                coefficients=coefficients,
                group=group,
                structure=structure,
                source=self.source[span[0] : span[1]],
                span=span,
                options=options,
            )
            for group in self._groups(right)
        )

    def _structure(self, name: str | None, span: Span, *, double: bool) -> str:
        if name is None:
            return "diag" if double else "us"
        here = (span[0], span[0] + len(name))
        if name not in self.structures:
            raise self.error(
                f"Unknown covariance structure {name!r}.",
                here,
                suggest(name, self.structures, "Structures"),
            )
        if double and name != "diag":
            raise self.error(
                f"'||' means independent coefficients, which {name!r} is not.",
                here,
                f"Write {name}(... | g), or (... || g).",
            )
        return name

    def _groups(self, span: Span) -> list[tuple[str, ...]]:
        """Expand the grouping side: ``a/b`` is a and a:b."""
        text = self.source[span[0] : span[1]]
        # factor(g) says what a grouping column is anyway.
        calls = "|".join(map(re.escape, R_CALLS))
        text = re.sub(rf"\b(?:{calls}|C)\(\s*(`[^`]+`|[\w.]+)\s*\)", r"\1", text)
        groups: list[tuple[str, ...]] = []
        for term in self.check(to_formulaic(text), span, intercept=False):
            factors = tuple(readable(str(factor.expr)) for factor in term.factors)
            if any(factor.eval_method.value != "lookup" for factor in term.factors):
                raise self.error(
                    f"The grouping factor {':'.join(factors)!r} is not a column.",
                    span,
                    "Group by columns, joined by ':' or '/'; compute others first.",
                )
            groups.append(factors)
        if not groups:
            raise self.error(
                "The term has no grouping factor.", span, "Write (1 | id)."
            )
        return groups

    def check(self, text: str, span: Span, *, intercept: bool = True) -> SimpleFormula:
        """Return formulaic's reading of a part, its reports turned into ours."""
        try:
            parsed = formulaic_formula(text if intercept else f"{text} - 1")
        except (FormulaSyntaxError, FormulaParsingError, SyntaxError) as failure:
            raise self._explain(str(failure), text, span) from None
        if not isinstance(parsed, SimpleFormula):
            raise self.error("This is not one part of a formula.", span, "Remove it.")
        return parsed

    def _explain(self, report: str, text: str, span: Span) -> FormulaError:
        """Turn formulaic's report, which marks its token, into ours."""
        reason, _, marked = _MARKS.sub("", report).partition("\n")
        reason = readable(reason.removesuffix(" (<unknown>, line 1)"))
        place = marked.strip().find("⧛")
        unchanged = self.source[span[0] : span[1]] == text
        if place >= 0 and unchanged and not reason.startswith("Missing operator"):
            span = (span[0] + place, span[0] + place + 1)
        reason = reason.replace("insuffient", "insufficient").replace("`", "'")
        return self.error(
            f"The formula cannot be read. {reason[:1].upper()}{reason[1:]}",
            span,
            "Terms are joined by + - : * / and **, functions are called f(x).",
        )


@lru_cache(maxsize=512)
def formulaic_formula(text: str, dot: tuple[str, ...] = ()) -> Any:
    """Return formulaic's reading of one part (shared: never change it).

    Parameters
    ----------
    text : the part
    dot : the columns that ``.`` stands for
    """
    context = {
        "__formulaic_variables_available__": dot,
        "__formulaic_variables_used_lhs__": (),
    }
    return Formula.from_spec(text, context=context)
