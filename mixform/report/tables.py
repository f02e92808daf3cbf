"""Frames that print as statisticians expect: a heading, rounded columns, notes."""

from __future__ import annotations

import pandas as pd

from mixform.report.layout import Grid, Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    decimals_for,
    format_column,
    format_fixed,
    p_with_stars,
    stars,
)


class AnovaTable(pd.DataFrame):
    """An analysis of variance table: a DataFrame with a heading and notes.

    Selections from it are ordinary frames. ``attrs["heading"]`` and
    ``attrs["notes"]`` hold what is printed around it.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def summary(self) -> Summary:
        """Return the table as it is printed, with text, HTML and LaTeX forms."""
        sections: list[Section] = [self.attrs["heading"], self._grid()]
        if any(stars(p) for p in self["p_value"]):
            sections += ["---", LEGEND]
        sections += [f"Note: {note}" for note in self.attrs["notes"]]
        return Summary(tuple(sections))

    def _grid(self) -> Grid:
        p_values = self["p_value"].tolist()
        columns = [
            [str(name) for name in self.index],
            format_column(self["sum_sq"].tolist()),
            format_column(self["mean_sq"].tolist()),
            [str(value) for value in self["num_df"]],
            format_fixed(self["den_df"].tolist(), 2),
            format_fixed(self["f_value"].tolist(), 4),
            [p_with_stars(p) for p in p_values],
        ]
        headers = ["", "Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value"]
        headers.append("Pr(>F)    ")
        return column_grid(headers, columns)

    def __repr__(self) -> str:
        return self.summary().as_text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def anova_table(
    table: pd.DataFrame, heading: str, notes: tuple[str, ...]
) -> AnovaTable:
    """Return the frame with its heading and notes attached."""
    out = AnovaTable(table)
    out.attrs["heading"] = heading
    out.attrs["notes"] = notes
    return out


def ranef_summary(table: pd.DataFrame) -> Summary:
    """Return the random effects of `Result.ranef` as a printed table."""
    if len(table) == 0:
        return Summary(("No random effects.",))
    decimals = decimals_for([se for se in table["se"] if se > 0.0], 4)
    columns = [
        table["grp"].tolist(),
        table["term"].tolist(),
        [str(level) for level in table["level"]],
        *(
            format_fixed(table[name].tolist(), decimals)
            if decimals is not None
            else [f"{value:.4g}" for value in table[name]]
            for name in ("estimate", "se")
        ),
    ]
    grid = column_grid(["grp", "term", "level", "estimate", "se"], columns, n_left=3)
    return Summary(("Random effects:", grid))
