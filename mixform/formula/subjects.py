"""Read the formulas of an analysis in two stages, and write them as one.

STRINGS in: ``"y ~ time | id"``, the regression of every subject, and ``"~ trt"``, the
regression of its coefficients. Out come the parts of a `ModelFormula`, and the formula
of the mixed model that both stages make together. This layer never sees data.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from mixform.errors import FormulaError, Span, suggest
from mixform.formula.parse import formulaic_formula, parse_formula
from mixform.formula.scan import find_sign, strip
from mixform.formula.summands import random_text, written_terms
from mixform.formula.terms import ModelFormula, Part, RandomTerm

_FIRST = 'Write "y ~ time | id".'
_SECOND = 'Write "~ trt", or "~ 1".'
_DOT = re.compile(r"(?<![\w.)])\.(?![\w.])")


def parse_subjects(source: str) -> ModelFormula:
    """Read the formula of one regression for each subject.

    Returns
    -------
    formula : its random part is ``(1 | id)``, the subjects

    Raises
    ------
    FormulaError : it cannot be read, has no bar or several, or random terms

    Examples
    --------
    >>> formula = parse_subjects("y ~ time + I(time^2) | id")
    >>> formula.fixed.code, formula.random[0].group
    ('+time + I(time**2)', ('id',))
    """
    bars = [i for i in _bars(source) if i > find_sign(source, 0, len(source), "~")]
    if not bars:
        raise FormulaError(
            "The formula has no '|' outside brackets: whose are the regressions?",
            formula=source,
            span=(0, len(source)),
            hint=_FIRST,
        )
    if len(bars) > 1:
        raise FormulaError(
            "The formula of lm_list has one bar.",
            formula=source,
            span=(bars[1], bars[1] + 1),
            hint=_FIRST,
        )
    with _within(source, 0):
        model = parse_formula(source[: bars[0]], ())
    _require_fixed_only(source, model, "A regression of one subject", _FIRST)
    term = _subjects(source, bars[0])
    return replace(model, source=source, random=(term,))


def parse_between(
    source: object, coefficients: Sequence[str]
) -> tuple[tuple[str, Part], ...]:
    """Read the formulas of the second stage.

    Parameters
    ----------
    source : ``"~ trt"`` for all coefficients; or coefficient -> formula, and those that
        are not named have ``"~ 1"``
    coefficients : their names

    Returns
    -------
    parts : for each coefficient the formula as given, and its right-hand side

    Raises
    ------
    FormulaError : one cannot be read, has a response or a bar; unknown coefficient
    """
    if not isinstance(source, Mapping):
        return (_one_sided(source),) * len(coefficients)
    known = {_squeezed(name): name for name in coefficients}
    given: dict[str, tuple[str, Part]] = {}
    for key, formula in cast("Mapping[object, object]", source).items():
        name = known.get(_squeezed(str(key)))
        if name is None:
            raise FormulaError(
                f"The second stage names {key!r}, no coefficient of the first.",
                hint=suggest(str(key), coefficients, "Coefficients"),
            )
        given[name] = _one_sided(formula)
    constant = _one_sided("~ 1")
    return tuple(given.get(name, constant) for name in coefficients)


def single_stage(first: ModelFormula, second: Sequence[Part]) -> str:
    """Return the formula of the mixed model that two stages make together.

    Parameters
    ----------
    first : from `parse_subjects`
    second : right-hand side of the second stage for each term of the first, in the
        order of formulaic, the intercept among them

    Examples
    --------
    >>> first = parse_subjects("y ~ time + I(time^2) | id")
    >>> trt, none = parse_between({"x": "~ trt", "z": "~ 1"}, ["x", "z"])
    >>> single_stage(first, [trt[1]] * 3)
    'y ~ (time + I(time^2)) * trt + (time + I(time^2) | id)'
    >>> single_stage(first, [trt[1], trt[1], none[1]])
    'y ~ trt + time + time:trt + I(time^2) + (time + I(time^2) | id)'
    """
    within = written_terms(first.fixed.text, formulaic_formula(first.fixed.code))
    between = [written_terms(p.text, formulaic_formula(p.code)) for p in second]
    common = between[0] if all(terms == between[0] for terms in between) else None
    if common and all("1" in terms and len(terms) > 1 for terms in (within, common)):
        fixed = f"{_bracketed(within)} * {_bracketed(common)}"
    else:
        fixed = _expanded(within, between)
    offsets = [f"offset({part.text})" for part in first.offsets]
    inner = [text for text in within if text != "1"]
    inner = inner if "1" in within else ["0", *inner]
    random = random_text(first.random[0], " + ".join(inner) or "1")
    return f"{first.response.text} ~ {' + '.join([fixed, *offsets, random])}"


def _expanded(within: Sequence[str], between: Sequence[Sequence[str]]) -> str:
    pairs = [(z, w) for z, ws in zip(within, between, strict=True) for w in ws]
    products = [w if z == "1" else z if w == "1" else f"{z}:{w}" for z, w in pairs]
    rest = [text for text in products if text != "1"]
    if len(rest) == len(products):
        return " + ".join(["0", *rest])
    return " + ".join(rest) or "1"


def _bracketed(terms: Sequence[str]) -> str:
    rest = [text for text in terms if text != "1"]
    return rest[0] if len(rest) == 1 else f"({' + '.join(rest)})"


def _bars(source: str) -> list[int]:
    """Return the positions of the bars outside brackets."""
    found: list[int] = []
    start = 0
    while (bar := find_sign(source, start, len(source), "|")) >= 0:
        found.append(bar)
        start = bar + 1
    return found


def _subjects(source: str, bar: int) -> RandomTerm:
    start, end = strip(source, bar + 1, len(source))
    if start == end:
        raise FormulaError(
            "Nothing stands right of the bar.",
            formula=source,
            span=(bar, bar + 1),
            hint=_FIRST,
        )
    before = "y ~ (1 | "
    with _within(source, start - len(before)):
        term, *others = parse_formula(f"{before}{source[start:end]})", ()).random
    if others:
        raise FormulaError(
            "Regressions have one grouping factor.",
            formula=source,
            span=(start, end),
            hint=f'Write "{others[-1].group_label}" for each combination.',
        )
    return replace(term, source=source[start:end], span=(start, end))


def _one_sided(source: object) -> tuple[str, Part]:
    if not isinstance(source, str):
        raise FormulaError(
            f"The formula of the second stage is a {type(source).__name__}, not a "
            "string.",
            hint=_SECOND,
        )
    start, end = strip(source, 0, len(source))
    tilde = find_sign(source, 0, len(source), "~")
    if tilde != start:
        what = "starts with '~'" if tilde < 0 else "has no response"
        raise FormulaError(
            f"The formula of the second stage {what}.",
            formula=source,
            span=strip(source, start, tilde if tilde > 0 else end),
            hint=f"The coefficients of the first stage are its response. {_SECOND}",
        )
    before = "y "
    with _within(source, start - len(before)):
        model = parse_formula(before + source[start:end], ())
    _require_fixed_only(source, model, "The second stage", _SECOND)
    if model.offsets:
        raise FormulaError(
            "The second stage has no offset.",
            formula=source,
            span=(start, end),
            hint="Write it in the first stage.",
        )
    text, span = model.fixed.text, model.fixed.span
    shift = start - len(before)
    part = Part(
        text=text, code=model.fixed.code, span=(span[0] + shift, span[1] + shift)
    )
    return source, part


def _require_fixed_only(source: str, model: ModelFormula, what: str, hint: str) -> None:
    span = (find_sign(source, 0, len(source), "~") + 1, len(source))
    if model.random:
        raise FormulaError(
            f"{what} has no random terms.", formula=source, span=span, hint=hint
        )
    if _DOT.search(model.fixed.code):
        raise FormulaError(
            "'.' does not say which columns belong to which stage.",
            formula=source,
            span=span,
            hint="Write the columns out.",
        )


def _squeezed(name: str) -> str:
    """Return the name of a coefficient in one of the ways that users may spell it."""
    name = "".join(name.split()).replace("^", "**")
    return "Intercept" if name in {"1", "(Intercept)"} else name


@contextmanager
def _within(source: str, shift: int) -> Generator[None]:
    """Raise errors of a slice with the place in the whole formula."""
    try:
        yield
    except FormulaError as failure:
        span = (0, len(source))
        if failure.span is not None:
            span = tuple(min(max(i + shift, 0), len(source)) for i in failure.span)
        raise FormulaError(
            failure.message,
            formula=source,
            span=cast("Span", span),
            hint=failure.hint,
        ) from None
