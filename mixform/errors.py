"""The tree of errors and warnings: each says what is wrong, where, and what to do.

Goes in: the facts of a failure (names, values, a span of the formula, a hint). Comes
out: one readable message. Every module may import this one; it imports nothing.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mixform._typing import Vector

Span = tuple[int, int]


class MixformError(Exception):
    """Base of all errors that mixform raises on purpose.

    Parameters
    ----------
    message : what is wrong, with names and values
    formula : the formula in which it is wrong, if it is wrong in one
    span : (start, end) of the offending part of ``formula``
    hint : what to do about it
    """

    def __init__(
        self,
        message: str,
        *,
        formula: str | None = None,
        span: Span | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.formula = formula
        self.span = span
        self.hint = hint
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        state = {"formula": self.formula, "span": self.span, "hint": self.hint}
        return (type(self), (self.message,), state)

    def __str__(self) -> str:
        lines = [self.message]
        if self.formula is not None and self.span is not None:
            lines += ["    " + line for line in _underlined(self.formula, self.span)]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)

    @property
    def one_line(self) -> str:
        """The message, the place in the formula and the hint on one line."""
        parts = [self.message]
        if self.formula is not None and self.span is not None:
            start, end = self.span
            where = self.formula[start:end] or "end"
            parts.append(f"(at {where!r}, column {start + 1} of the formula)")
        if self.hint:
            parts.append(self.hint)
        return " ".join(" ".join(parts).split())


def _underlined(formula: str, span: Span) -> tuple[str, str]:
    """Return the line of the formula in which the span starts, and its carets."""
    start, end = span
    first = formula.rfind("\n", 0, start) + 1
    line = formula[first:].partition("\n")[0]
    width = max(min(end, first + len(line)) - start, 1)
    return line.replace("\t", " "), " " * (start - first) + "^" * width


class FormulaError(MixformError, ValueError):
    """The formula cannot be read, or names something that is not there."""


class DesignError(MixformError, ValueError):
    """The data do not support the model, or an argument does not fit the data."""


class SolverError(MixformError):
    """The mixed model equations could not be solved."""


class InferenceError(MixformError, ValueError):
    """The quantity asked for does not exist in this fit."""


class MixformWarning(UserWarning):
    """Base of all warnings of mixform."""


class ConvergenceWarning(MixformWarning):
    """The optimum is not certified.

    Attributes
    ----------
    predicted_decrease : of the criterion that is left, in deviance units
    smallest_eigenvalue : of the one-sided derivative at a boundary, relative
    """

    def __init__(
        self, message: str, predicted_decrease: float, smallest_eigenvalue: float
    ) -> None:
        super().__init__(message)
        self.predicted_decrease = predicted_decrease
        self.smallest_eigenvalue = smallest_eigenvalue

    def __reduce__(self) -> tuple[object, ...]:
        numbers = (self.predicted_decrease, self.smallest_eigenvalue)
        return (type(self), (str(self), *numbers))


class SingularFitWarning(MixformWarning):
    """The covariance of a term is singular in a fit that is not certified.

    A certified singular fit is a result with a note, and no warning.

    Attributes
    ----------
    terms : labels of the singular terms
    theta : the relative covariance factor at the optimum
    """

    def __init__(self, message: str, terms: tuple[str, ...], theta: Vector) -> None:
        super().__init__(message)
        self.terms = terms
        self.theta = theta

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.terms, self.theta))


class RankDeficiencyWarning(MixformWarning):
    """Columns of X are linear combinations of others and were dropped.

    Attributes
    ----------
    columns : names of the dropped columns
    """

    def __init__(self, message: str, columns: tuple[str, ...]) -> None:
        super().__init__(message)
        self.columns = columns

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.columns))


def suggest(name: str, candidates: Iterable[object], what: str) -> str:
    """Return a hint that names the nearest candidate and lists them.

    Examples
    --------
    >>> suggest("treat", ["id", "trt", "y"], "Columns")
    "Did you mean 'trt'? Columns: id, trt, y."
    """
    known = [str(candidate) for candidate in candidates]
    lower = {candidate.lower(): candidate for candidate in reversed(known)}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    listing = f"{what}: {listed}." if known else f"{what}: none."
    return (f"Did you mean {lower[near[0]]!r}? " if near else "") + listing
