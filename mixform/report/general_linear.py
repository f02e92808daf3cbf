"""What a general linear model of given matrices prints, as R's lm does."""

from __future__ import annotations

from textwrap import fill

import numpy as np

from mixform.inference.general_linear import GeneralLinearModel
from mixform.inference.least_squares import LeastSquares
from mixform.report.bootstrap import Printed
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    format_column,
    format_fixed,
    format_p,
    p_with_stars,
    stars,
)

#: Characters of a line.
WIDTH = 88


def printed_general_linear(record: GeneralLinearModel) -> Printed:
    """Return the model as users hold it."""
    return Printed(record, general_linear_summary)


def general_linear_summary(record: GeneralLinearModel) -> Summary:
    """Lay coefficients, residual variance, R^2 and F out."""
    table, sums = record.table, record.sums
    estimate, se = table["estimate"].tolist(), table["se"].tolist()
    p_values = table["p_value"].tolist()
    columns = [
        [str(name) for name in table.index],
        format_column(estimate, like=se),
        format_column(se, like=estimate),
        format_fixed(table["t_value"].tolist(), 3),
        [p_with_stars(p) for p in p_values],
    ]
    known = record.known_sigma2 is not None
    letter = "z" if known else "t"
    headers = ["", "Estimate", "Std. Error", f"{letter} value", f"Pr(>|{letter}|)    "]
    full = record.rank == len(table)
    if not full:
        columns.append(["" if one else "not unique" for one in record.estimable])
        headers.append("")
    sections: list[Section] = [
        f"General linear model: {sums.n} rows, {len(table)} columns of rank "
        f"{record.rank}",
        "",
        "Coefficients:" if full else "A solution, one of many:",
        column_grid(headers, columns),
    ]
    if any(stars(p) for p in p_values):
        sections += ["---", LEGEND]
    sections += ["", *fit_lines(sums, known=record.known_sigma2)]
    if not full:
        note = (
            f"Note: X has {len(table)} columns of rank {record.rank}. This solution is "
            f"{record.solution}; estimable functions are the same in all."
        )
        sections += ["", fill(note, WIDTH)]
    return Summary(tuple(sections))


def fit_lines(
    sums: LeastSquares, *, known: float | None = None, ml: bool = False
) -> list[Section]:
    """Return the lines of residual variance, R^2 and F, in the order of R's lm.

    Parameters
    ----------
    known : the residual variance if it was given
    ml : whether the residual variance of the model is RSS / n
    """
    variance = sums.sigma2 if known is None else known
    both = np.sqrt([variance, sums.sigma2_ml]).tolist()
    sd, sd_ml = format_column(both)
    on = f"{sd} on {sums.den_df} degrees of freedom"
    first = f"Residual standard error: {on}"
    if known is not None:
        first = f"Residual standard deviation: {sd} (known)"
    elif ml:
        first = f"Residual standard deviation: {sd_ml} by ML, RSS / n; unbiased {on}"
    f_value, den_df, p_value = sums.f_test(known)
    if np.isnan(f_value):
        return [first]
    shown = [f"{value:.4f}" for value in (sums.rsquared, sums.rsquared_adj)]
    return [
        first,
        f"Multiple R-squared: {shown[0]}, adjusted R-squared: {shown[1]}",
        f"F-statistic: {f_value:.4g} on {sums.num_df} and {den_df:.0f} DF, "
        f"p-value: {format_p(p_value)}",
    ]
