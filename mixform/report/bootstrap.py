"""What the bootstrap, its likelihood-ratio test and power by simulation print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mixform.inference.resampling.bootstrap import Bootstrap
from mixform.inference.resampling.bootstrap_test import BootstrapTest
from mixform.inference.resampling.power import Power
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import decimals_for, format_fixed, format_p

TITLES = {
    "satterthwaite": "F test with Satterthwaite's method",
    "kenward-roger": "F test with Kenward-Roger's method",
    "asymptotic": "asymptotic Wald test",
    "lr": "likelihood-ratio test",
}


class Printed:
    """A record that prints as a table; its attributes and methods are the record's."""

    __slots__ = ("_record", "_summarize")

    def __init__(self, record: Any, summarize: Callable[[Any], Summary]) -> None:
        self._record, self._summarize = record, summarize

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._record, name)

    def __dir__(self) -> list[str]:
        names = {n for n in dir(self._record) if not n.startswith("_")}
        return sorted({*super().__dir__(), *names})

    def summary(self) -> Summary:
        """Return the table as it is printed, with text, HTML and LaTeX forms."""
        return self._summarize(self._record)

    def __repr__(self) -> str:
        return self.summary().as_text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def printed_bootstrap(record: Bootstrap) -> Printed:
    """Return the bootstrap as users hold it."""
    return Printed(record, bootstrap_summary)


def printed_bootstrap_test(record: BootstrapTest) -> Printed:
    """Return the test as users hold it."""
    return Printed(record, bootstrap_test_summary)


def printed_power(record: Power) -> Printed:
    """Return the power as users hold it."""
    return Printed(record, power_summary)


def bootstrap_summary(record: Bootstrap, level: float = 0.95) -> Summary:
    """Return estimates, bias, standard errors and percentile intervals as a table."""
    limits = record.conf_int(level)
    columns = [record.estimate, record.bias, record.se, limits.lower, limits.upper]
    rows = [_row(values) for values in zip(*columns, strict=True)]
    cells = [list(column) for column in zip(*rows, strict=True)]
    tail = f"{100.0 * (1.0 - level) / 2.0:.3g} %", f"{50.0 * (1.0 + level):.3g} %"
    headers = ["", "Estimate", "Bias", "Std. Error", *tail]
    names = [str(name) for name in record.estimate.index]
    heading = f"{record.kind.capitalize()} bootstrap, {record.nsim} draws"
    grid = column_grid(headers, [names, *cells])
    return Summary((heading, f"Formula: {record.formula}", "", grid, *_notes(record)))


def _row(values: tuple[float, ...]) -> list[str]:
    """Format the numbers of one parameter alike: by the digits of its SE."""
    decimals = decimals_for([values[2]], 4)
    if decimals is None:
        return [f"{value:.4g}" for value in values]
    return format_fixed(values, decimals)


def bootstrap_test_summary(record: BootstrapTest) -> Summary:
    """Return the statistic with the p values of the draws and of the chi-square."""
    smaller, larger = record.formulas
    used = int(record.replicates.notna().sum())
    rows = [
        ("Parametric bootstrap", record.p_value),
        ("Bartlett-corrected", record.p_bartlett),
        ("Chi-square", record.p_chi2),
    ]
    columns = [
        [name for name, _ in rows],
        format_fixed([record.statistic] * len(rows), 4),
        ["", str(record.num_df), str(record.num_df)],
        [format_p(p) for _, p in rows],
    ]
    sections: list[Section] = [
        f"Likelihood-ratio test by the parametric bootstrap, {used} draws "
        f"({record.method})",
        f"Smaller: {smaller}",
        f"Larger:  {larger}",
        "",
        column_grid(["", "Chisq", "Df", "p value"], columns),
        *_notes(record),
    ]
    return Summary(tuple(sections))


def power_summary(record: Power) -> Summary:
    """Return the power and its interval in words."""
    share, lower, upper = (
        f"{100.0 * value:.2f}" for value in (record.power, record.lower, record.upper)
    )
    effect = ", ".join(f"{value:.5g}" for value in record.effect)
    lines = (
        f"Power of the test of {record.label}: {share} % ({lower}, {upper})",
        f"{TITLES[record.method]}, alpha = {record.alpha:g}",
        f"{record.n_rejected} rejections in {record.n_tested} draws; "
        f"effect drawn with: {effect}",
    )
    return Summary((*lines, *_notes(record)))


def _notes(record: Bootstrap | BootstrapTest | Power) -> list[str]:
    return [f"Note: {note}" for note in record.notes]
