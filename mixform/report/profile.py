"""The limits of a profile as a printed table, and the profile that prints it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mixform.inference.profile.record import Curve, Profile
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import format_column


def profile_summary(profile: Profile, level: float = 0.95) -> Summary:
    """Lay out the limits of a profile, at the level asked for, with their reasons."""
    return interval_summary(profile.conf_int(level), profile.method, level)


def interval_summary(table: pd.DataFrame, method: str, level: float) -> Summary:
    """Lay out profile limits.

    Parameters
    ----------
    table : ``estimate, lower, upper, reason`` by parameter
    method : the criterion that was profiled, REML or ML
    level : confidence level
    """
    criterion = "the deviance (ML)" if method == "ML" else "the REML criterion"
    heading = f"Profile likelihood intervals of {criterion}, {100 * level:g} %:"
    if not len(table):
        return Summary((heading, "No parameters."))
    cells: list[list[str]] = []
    for estimate, lower, upper in zip(
        table["estimate"], table["lower"], table["upper"], strict=True
    ):
        # Each parameter has its own unit, so each row its own precision.
        cells.append(format_column([float(estimate), float(lower), float(upper)], 4))
    columns = [
        [str(name) for name in table.index],
        *map(list, zip(*cells, strict=True)),
    ]
    sections: list[Section] = [heading, ""]
    sections.append(column_grid(["", "estimate", "lower", "upper"], columns))
    notes = [
        f"Note: {name}: {reason}"
        for name, reason in zip(table.index, table["reason"], strict=True)
        if reason
    ]
    if notes:
        sections += ["", "\n".join(notes)]
    return Summary(tuple(sections))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProfileReport:
    """A profile that prints its 95 % limits.

    Attributes
    ----------
    profile : what `inference.profile` found
    """

    profile: Profile

    @property
    def cutoff(self) -> float:
        """Up to which |zeta| was followed."""
        return self.profile.cutoff

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that were profiled."""
        return tuple(self.profile.curves)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Return limits: ``estimate, lower, upper, reason`` by parameter."""
        return self.profile.conf_int(level)

    def to_frame(self) -> pd.DataFrame:
        """Return all points: ``parameter, lme4_name, zeta, value, criterion, ...``."""
        return self.profile.to_frame()

    def zeta(self, parameter: str, values: object = None) -> pd.Series:
        """Return zeta at values of a parameter, or at the points of the profile."""
        return self.profile.zeta(parameter, values)

    def density(self, parameter: str, n: int = 101) -> pd.DataFrame:
        """Return the normal density carried over by zeta: ``value, density``."""
        return self.profile.density(parameter, n)

    def pairs(self, one: str, two: str) -> pd.DataFrame:
        """Return traces: ``along, value_1, value_2, zeta_1, zeta_2``."""
        return self.profile.pairs(one, two)

    def curve(self, parameter: str) -> Curve:
        """Return the curve of one parameter."""
        return self.profile.curve(parameter)

    def summary(self, level: float = 0.95) -> Summary:
        """Return the printed limits, with text, HTML and LaTeX forms."""
        return profile_summary(self.profile, level)

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()
