"""Marginal means and contrasts as users hold them, printed as R's emmeans prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mixform._typing import Matrix
from mixform.inference.means import joint_tests, letters, mean_contrasts
from mixform.inference.means.linear_estimates import LinearEstimates, frame, with_level
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import format_column, format_fixed, format_p

#: Column of a table -> what is printed over it.
HEADERS = {"se": "SE", "lower": "lower.CL", "upper": "upper.CL"}
HEADERS |= {"t_value": "t.ratio", "p_value": "p.value", "num_df": "df1"}
HEADERS |= {"den_df": "df2", "f_value": "F.ratio"}
NUMBERS = {"se", "df", "lower", "upper", "null", "t_value", "p_value", "pd"}


class MeansTable(pd.DataFrame):
    """A table of means or contrasts: a DataFrame that prints by group, with notes.

    Selections from it are ordinary frames. ``attrs["by"]`` holds the columns that make
    groups, ``attrs["notes"]`` what is printed below.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def summary(self) -> Summary:
        """Return the table as it is printed, with text, HTML and LaTeX forms."""
        by = list(self.attrs["by"])
        columns = [name for name in self.columns if name not in by]
        n_left = next(
            (i for i, c in enumerate(columns) if c in NUMBERS or c in HEADERS),
            len(columns),
        )
        # What is estimated stands before its SE or df, and is a number.
        n_left = max(n_left - 1, 0) if "se" in columns else n_left
        headers = [HEADERS.get(c, c) for c in columns]
        cells = [self._cells(name, i < n_left) for i, name in enumerate(columns)]
        sections: list[Section] = []
        for heading, rows in self._groups(by):
            if heading:
                sections.append(heading)
            part = [[column[i] for i in rows] for column in cells]
            sections += [column_grid(headers, part, n_left=n_left), ""]
        sections += list(self.attrs["notes"])
        return Summary(tuple(sections))

    def _groups(self, by: list[str]) -> list[tuple[str, list[int]]]:
        if not by or len(self) == 0 or "f_value" in self:
            return [("", list(range(len(self))))]
        groups: dict[str, list[int]] = {}
        for i, values in enumerate(self[by].itertuples(index=False, name=None)):
            pairs = zip(by, values, strict=True)
            heading = ", ".join(f"{name} = {_text(value)}" for name, value in pairs)
            groups.setdefault(f"{heading}:", []).append(i)
        return list(groups.items())

    def _cells(self, name: str, is_label: bool) -> list[str]:
        if is_label or name == "letters":
            return [_text(value) for value in self[name]]
        values = [float(value) for value in self[name]]
        if name in {"df", "den_df"}:
            return [
                "Inf" if v == float("inf") else c
                for v, c in zip(values, format_fixed(values, 2), strict=True)
            ]
        if name == "num_df":
            return [f"{value:g}" for value in values]
        if name in {"t_value", "f_value"}:
            return format_fixed(values, 3)
        if name == "p_value":
            return [format_p(value) for value in values]
        if name == "pd":
            return format_fixed(values, 4)
        if name == "null":
            return [f"{value:g}" for value in values]
        like = self["se"].tolist() if "se" in self else []
        least = min((se for se in like if se > 0.0), default=0.0)
        cells = format_column(values, 3, like=like, least=least)
        if name in HEADERS:
            return cells
        return ["nonEst" if cell == "NaN" else cell for cell in cells]

    def __repr__(self) -> str:
        return self.summary().as_text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def means_table(
    table: pd.DataFrame, notes: Sequence[str], by: Sequence[str]
) -> MeansTable:
    """Return the frame with its groups and notes attached."""
    out = MeansTable(table)
    out.attrs["by"] = tuple(by)
    out.attrs["notes"] = tuple(notes)
    return out


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Means:
    """Estimated means, slopes or contrasts, from which others are made.

    Attributes
    ----------
    estimates : the record behind them

    Printing it shows the table with confidence limits (means and slopes) or tests
    (contrasts).
    """

    estimates: LinearEstimates

    @property
    def table(self) -> MeansTable:
        """The estimates with ``se, df``, and limits or tests."""
        means = self.estimates.kind == "mean"
        return self._frame(limits=means, tests=not means)

    @property
    def L(self) -> Matrix:
        """Coefficients over the columns of X, (r, c); the estimates are L beta."""
        return self.estimates.L.copy()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        return tuple(self.table.attrs["notes"])

    def conf_int(
        self,
        level: float | None = None,
        adjust: str | None = None,
        *,
        by: str | Sequence[str] | None = None,
    ) -> MeansTable:
        """Return the estimates with confidence limits ``lower, upper``.

        Parameters
        ----------
        level : confidence level in (0, 1)
        adjust : for simultaneous limits: "none", "tukey", "dunnett", "sidak" or
            "scheffe" or "bonferroni" (which also stands in for stepwise methods)
        by : what makes families, if not the groups; [] for one family
        """
        names = mean_contrasts.read_columns(by)
        return self._frame(
            limits=True, tests=False, level=level, adjust=adjust, by=names
        )

    def test(
        self,
        null: float = 0.0,
        adjust: str | None = None,
        *,
        by: str | Sequence[str] | None = None,
    ) -> MeansTable:
        """Return the estimates with t tests: ``t_value, p_value``.

        Parameters
        ----------
        null : the value tested, on the scale of the model
        adjust : method for several tests: "none", "tukey", "dunnett", "sidak",
            "bonferroni", "scheffe", "holm", "hochberg", "hommel", "fdr", "fdr_by"
        by : what makes families, if not the groups; [] for one family
        """
        names = mean_contrasts.read_columns(by)
        return self._frame(limits=False, tests=True, null=null, adjust=adjust, by=names)

    def to_frame(self) -> pd.DataFrame:
        """Return everything as a plain frame: limits and tests."""
        table, _ = frame(self.estimates, limits=True, tests=True)
        return table

    def pairs(
        self,
        adjust: str | None = "tukey",
        *,
        by: str | Sequence[str] | None = None,
        reverse: bool = False,
    ) -> Means:
        """Return all differences of pairs.

        Parameters
        ----------
        adjust : method for several tests
        by : variables that make groups, instead of those of the means; [] for none
        reverse : later minus earlier levels
        """
        method = "revpairwise" if reverse else "pairwise"
        return self.contrast(method, "none" if adjust is None else adjust, by=by)

    def contrast(
        self,
        method: object = "eff",
        adjust: str | None = None,
        *,
        by: str | Sequence[str] | None = None,
        ref: object = None,
        level: float | None = None,
    ) -> Means:
        """Return contrasts.

        Parameters
        ----------
        method : "pairwise", "revpairwise", "trt.vs.ctrl" (also "treatment-control",
            "dunnett"), "consec", "poly", "eff", "del.eff", "mean_chg"; or
            coefficients: a vector or matrix, a mapping of levels to numbers, or of
            labels to either
        adjust : method for several tests, instead of the usual one of the contrasts
        by : variables that make groups, instead of those of the means; [] for none
        ref : the control, the first level if None
        level : of confidence limits
        """
        return Means(
            mean_contrasts.contrast(
                self.estimates, method, adjust=adjust, by=by, ref=ref, level=level
            )
        )

    def letters(
        self,
        alpha: float = 0.05,
        adjust: str | None = "tukey",
        *,
        decreasing: bool = False,
    ) -> MeansTable:
        """Return the means with a compact letter display.

        Means of one group that share a letter do not differ at level alpha.

        Parameters
        ----------
        adjust : of the p values of the pairs
        decreasing : give "a" to the largest mean
        """
        table, notes = letters.letters(
            self.estimates, alpha=alpha, adjust=adjust, decreasing=decreasing
        )
        return means_table(table, notes, self.estimates.by)

    def joint_tests(self) -> MeansTable:
        """Test in each group that all estimates are equal, by one F test."""
        table, notes = joint_tests.equality_tests(self.estimates)
        return means_table(table, notes, self.estimates.by)

    def with_level(self, level: float) -> Means:
        """Return the same estimates with another confidence level."""
        return Means(with_level(self.estimates, level))

    def summary(self) -> Summary:
        """Return the printed table, with text, HTML and LaTeX forms."""
        return self.table.summary()

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _frame(
        self,
        *,
        limits: bool,
        tests: bool,
        null: float = 0.0,
        level: float | None = None,
        adjust: str | None = None,
        by: tuple[str, ...] | None = None,
    ) -> MeansTable:
        table, notes = frame(
            self.estimates,
            limits=limits,
            tests=tests,
            null=null,
            level=level,
            adjust=adjust,
            by=by,
        )
        return means_table(table, notes, self.estimates.by)
