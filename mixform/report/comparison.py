"""Tables of likelihood ratios and single term deletions; the path of a selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mixform.inference.selection.step import Elimination
from mixform.report.layout import Grid, Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    format_column,
    format_fixed,
    format_p,
    p_with_stars,
    stars,
)
from mixform.report.tables import AnovaTable

#: column -> header, and how its numbers are written
COLUMNS: dict[str, tuple[str, Callable[[Sequence[float]], list[str]]]] = {
    "eliminated": ("Eliminated", lambda v: format_fixed(v, 0)),
    "npar": ("npar", lambda v: format_fixed(v, 0)),
    "num_df": ("Df", lambda v: format_fixed(v, 0)),
    "llf": ("logLik", lambda v: format_fixed(v, 2)),
    "aic": ("AIC", lambda v: format_fixed(v, 2)),
    "bic": ("BIC", lambda v: format_fixed(v, 2)),
    "deviance": ("deviance", lambda v: format_fixed(v, 2)),
    "sum_sq": ("Sum Sq", format_column),
    "mean_sq": ("Mean Sq", format_column),
    "den_df": ("DenDF", lambda v: format_fixed(v, 2)),
    "f_value": ("F value", lambda v: format_fixed(v, 4)),
    "chisq": ("Chisq", lambda v: format_fixed(v, 4)),
    "lrt": ("LRT", lambda v: format_fixed(v, 4)),
    "p_value": ("Pr(>Chisq)    ", lambda v: [p_with_stars(p) for p in v]),
    "p_mixture": ("Pr(mixture)", lambda v: [format_p(p) for p in v]),
}


class ComparisonTable(AnovaTable):
    """A table of tests of models or terms: a DataFrame with a heading and notes."""

    def _grid(self) -> Grid:
        return _grid(self)


def comparison_table(
    table: pd.DataFrame, heading: str, notes: tuple[str, ...]
) -> ComparisonTable:
    """Return the frame with its heading and notes attached."""
    out = ComparisonTable(table)
    out.attrs["heading"] = heading
    out.attrs["notes"] = notes
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A backward elimination, printed as its path and the formula at the end.

    Attributes
    ----------
    path : what was tested and what went
    model : the model at the end, as users hold it
    """

    path: Elimination
    model: Any

    @property
    def random(self) -> pd.DataFrame:
        """Tests of the random terms: ``eliminated`` and the columns of `ranova`."""
        return self.path.random

    @property
    def fixed(self) -> pd.DataFrame:
        """Tests of the fixed terms: ``eliminated`` and the columns of `drop1`."""
        return self.path.fixed

    @property
    def formula(self) -> str:
        """The formula of the model at the end."""
        return self.path.fit.design.formula.source

    def summary(self) -> Summary:
        """Return the path as it is printed, with text, HTML and LaTeX forms."""
        sections: list[Section] = []
        for what, table in (("random", self.random), ("fixed", self.fixed)):
            sections.append(f"Backward elimination of {what} effects:")
            sections += [*_sections(table)] if len(table) else [f"No {what} term."]
            sections.append("")
        sections += ["Model found:", self.formula]
        sections += [f"Note: {note}" for note in self.path.notes]
        return Summary(tuple(sections))

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def _sections(table: pd.DataFrame) -> list[Section]:
    sections: list[Section] = [_grid(table)]
    if any(stars(p) for p in table["p_value"]):
        sections += ["---", LEGEND]
    return sections


def _grid(table: pd.DataFrame) -> Grid:
    headers = [""]
    columns = [[str(name) for name in table.index]]
    for name in table.columns:
        values = table[name].astype(float).tolist()
        header, write = COLUMNS[str(name)]
        if name == "p_mixture" and all(value != value for value in values):
            continue
        if "f_value" in table.columns:
            header = {"Df": "NumDF", "Pr(>Chisq)    ": "Pr(>F)    "}.get(header, header)
        headers.append(header)
        # What is not there, such as the test of the first model, stays empty.
        columns.append(
            [
                "" if v != v else text
                for v, text in zip(values, write(values), strict=True)
            ]
        )
    return column_grid(headers, columns)
