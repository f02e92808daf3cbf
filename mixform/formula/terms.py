"""What a parsed formula is: the response, the fixed part, and the random terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixform.errors import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the formula that formulaic reads.

    Attributes
    ----------
    text : the part as the user wrote it
    code : the part in formulaic's grammar
    span : where it stands in the formula
    """

    text: str
    code: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomTerm:
    """One random term, after nesting is expanded: ``(1 + days | site:id)``.

    Attributes
    ----------
    coefficients : what stands left of the bar, in formulaic's grammar
    group : the columns whose combination is the grouping factor
    structure : name of the covariance structure of the coefficients
    options : of the structure, name and value
    source : the term as the user wrote it
    span : where it stands in the formula
    """

    coefficients: str
    group: tuple[str, ...]
    structure: str
    source: str
    span: Span
    options: tuple[tuple[str, int], ...] = ()

    @property
    def group_label(self) -> str:
        """The name of the grouping factor, e.g. ``site:id``."""
        return ":".join(self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormula:
    """A formula, read but not yet applied to data.

    Attributes
    ----------
    source : the formula as the user wrote it
    response : left of the tilde
    fixed : right of it, without random terms and offsets
    offsets : the expressions of the ``offset(...)`` terms
    random : the random terms in the order written, nested ones expanded
    """

    source: str
    response: Part
    fixed: Part
    offsets: tuple[Part, ...]
    random: tuple[RandomTerm, ...]
