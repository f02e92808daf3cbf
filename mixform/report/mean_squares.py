"""The table of mean squares as it is printed."""

from __future__ import annotations

import pandas as pd

from mixform.inference.mean_squares import MeanSquaresReport
from mixform.report.layout import Grid, Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    format_column,
    format_fixed,
    p_with_stars,
    stars,
)


class MeanSquaresTable(pd.DataFrame):
    """Mean squares by source: a DataFrame that prints with expectations and tests.

    Selections from it are ordinary frames. ``attrs`` hold what is printed around it.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def expectations(self) -> pd.DataFrame:
        """Coefficient of each variance in the expectation of each mean square."""
        return self.attrs["expectations"].copy()

    @property
    def components(self) -> pd.DataFrame:
        """Estimated variances, negative ones as they are: ``estimate, se``."""
        return self.attrs["components"].copy()

    def summary(self) -> Summary:
        """Return the table as it is printed, with text, HTML and LaTeX forms."""
        sections: list[Section] = [self.attrs["heading"], self._numbers(), ""]
        sections += ["Expected mean squares and error terms:", self._symbols()]
        sections += ["", "Estimated variances:", self._estimates()]
        if any(stars(p) for p in self["p_value"]):
            sections += ["---", LEGEND]
        sections += [f"Note: {note}" for note in self.attrs["notes"]]
        return Summary(tuple(sections))

    def _numbers(self) -> Grid:
        tested = [bool(error) for error in self.attrs["errors"]]

        def shown(cells: list[str]) -> list[str]:
            return [cell if t else "" for cell, t in zip(cells, tested, strict=True)]

        columns = [
            [str(name) for name in self.index],
            [str(value) for value in self["num_df"]],
            format_column(self["sum_sq"].tolist()),
            format_column(self["mean_sq"].tolist()),
            shown(format_fixed(self["den_df"].tolist(), 2)),
            shown(format_fixed(self["f_value"].tolist(), 4)),
            shown([p_with_stars(p) for p in self["p_value"]]),
        ]
        headers = ["", "Df", "Sum Sq", "Mean Sq", "Error DF", "F value"]
        return column_grid([*headers, "Pr(>F)    "], columns)

    def _symbols(self) -> Grid:
        columns = [
            [str(name) for name in self.index],
            list(self.attrs["expected"]),
            list(self.attrs["errors"]),
        ]
        return column_grid(["", "Expectation", "Error term"], columns, n_left=3)

    def _estimates(self) -> Grid:
        frame: pd.DataFrame = self.attrs["components"]
        columns = [
            [str(name) for name in frame.index],
            format_column(frame["estimate"].tolist()),
            format_column(frame["se"].tolist()),
        ]
        return column_grid(["", "Estimate", "Std. Error"], columns)

    def __repr__(self) -> str:
        return self.summary().as_text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def mean_squares_table(found: MeanSquaresReport) -> MeanSquaresTable:
    """Return the frame with what is printed around it."""
    out = MeanSquaresTable(found.table)
    for name in (
        "expectations",
        "components",
        "expected",
        "errors",
        "heading",
        "notes",
    ):
        out.attrs[name] = getattr(found, name)
    return out
