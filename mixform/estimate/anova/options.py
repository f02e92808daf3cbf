"""Options of an analysis of variance, read from ``control``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from mixform.errors import DesignError, suggest
from mixform.estimate.mean_squares import SUMS

BACKENDS = ("auto", "dense", "sparse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Options of an analysis of variance.

    Attributes
    ----------
    sums : "henderson3", each random term after the fixed part and the random terms
        that do not contain it, as SAS's TYPE2; or "type1", each after the terms before
        it, as SAS's TYPE1. In balanced data they, and SAS's TYPE3, are the same
    backend : "dense" or "sparse" solver of the mixed model equations; "auto" chooses
    """

    sums: str = "henderson3"
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in (("sums", tuple(SUMS)), ("backend", BACKENDS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise DesignError(
                    f"control: {name} is {value!r}.",
                    hint=f"Choices: {', '.join(choices)}.",
                )


def resolve_sums(control: object) -> Sums:
    """Return the options.

    Raises
    ------
    DesignError : an unknown option, or a value that makes no sense
    """
    if control is None or isinstance(control, Sums):
        return control or Sums()
    if not isinstance(control, Mapping):
        raise DesignError(
            f"control is a {type(control).__name__}, not a mapping; an analysis of "
            "variance does not search.",
            hint='Write control={"sums": "type1"}, or leave it out.',
        )
    given = {str(n): v for n, v in cast("Mapping[object, Any]", control).items()}
    known = [field.name for field in fields(Sums)]
    for name in given:
        if name not in known:
            raise DesignError(
                f"Unknown control option {name!r} of an analysis of variance.",
                hint=suggest(name, known, "Options"),
            )
    return Sums(**given)
