"""The mixed model equations as a text book prints them."""

from __future__ import annotations

from mixform.inference.equations import HendersonEquations
from mixform.report.bootstrap import Printed
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import format_column, format_fixed

#: Equations that are printed.
PRINTED = 24

#: Decimals of the coefficients.
DECIMALS = 3


def printed_equations(record: HendersonEquations) -> Printed:
    """Return the equations as users hold them."""
    return Printed(record, equations_summary)


def equations_summary(record: HendersonEquations) -> Summary:
    """Lay left-hand side, solutions and right-hand side out; long ones cut."""
    size = len(record.rhs)
    shown = min(size, PRINTED)
    names = [str(name) for name in record.lhs.index[:shown]]
    lhs = record.lhs.to_numpy()[:shown, :shown]
    scale = abs(lhs).max() if lhs.size else 1.0
    # One precision for all, so that equal coefficients look equal.
    columns = [names] + [
        format_fixed((lhs[:, j] + 0.0).tolist(), DECIMALS)
        if scale >= 1.0
        else [f"{value:.{DECIMALS + 1}g}" for value in lhs[:, j]]
        for j in range(shown)
    ]
    headers = ["", *names]
    if shown < size:
        columns.append(["..."] * shown)
        headers.append("")
    columns.append(format_column(record.solution.to_numpy()[:shown].tolist()))
    columns.append(format_column(record.rhs.to_numpy()[:shown].tolist()))
    headers += ["Solution", "RHS"]
    by = ""
    if record.multiplier != 1.0:
        by = f", multiplied by the residual variance {record.multiplier:.6g}"
    sections: list[Section] = [
        f"Mixed model equations: {record.p} fixed, {size - record.p} random{by}",
        "",
        column_grid(headers, columns),
    ]
    if shown < size:
        sections.append(f"... {size - shown} more equations in lhs, rhs and solution")
    if record.notes:
        sections += ["", "\n".join(f"Note: {note}" for note in record.notes)]
    return Summary(tuple(sections))
