"""Frames that print as statisticians expect: a heading, rounded columns, notes."""

from __future__ import annotations

from html import escape

import pandas as pd

from mixform.report.layout import Grid, Section, Summary, column_grid
from mixform.report.numbers import LEGEND, format_column, format_fixed, format_p, stars


class AnovaTable(pd.DataFrame):
    """An analysis of variance table: a DataFrame with a heading and notes.

    Selections from it are ordinary frames. ``attrs["heading"]`` and
    ``attrs["notes"]`` hold what is printed around it.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _layout(self) -> Summary:
        sections: list[Section] = [self.attrs["heading"], self._grid()]
        if any(stars(p) for p in self["p_value"]):
            sections += ["---", LEGEND]
        sections += [f"Note: {note}" for note in self.attrs["notes"]]
        return Summary(tuple(sections))

    def _grid(self) -> Grid:
        p_values = self["p_value"].tolist()
        columns = [
            [str(name) for name in self.index],
            format_column(self["sum_sq"].tolist(), 5),
            format_column(self["mean_sq"].tolist(), 5),
            [str(value) for value in self["num_df"]],
            format_fixed(self["den_df"].tolist(), 2),
            format_fixed(self["f_value"].tolist(), 4),
            [format_p(p) for p in p_values],
            [stars(p) for p in p_values],
        ]
        headers = ["", "Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)", ""]
        return column_grid(headers, columns)

    def __repr__(self) -> str:
        return self._layout().as_text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        heading = escape(self.attrs["heading"])
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.attrs["notes"])
        return f"<p>{heading}</p>{self._grid().as_html()}{notes}"


def anova_table(
    table: pd.DataFrame, heading: str, notes: tuple[str, ...]
) -> AnovaTable:
    """Return the frame with its heading and notes attached."""
    out = AnovaTable(table)
    out.attrs["heading"] = heading
    out.attrs["notes"] = notes
    return out
