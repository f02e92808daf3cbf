"""Regressions of subjects, their second stage and the mixed model, as printed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design import Design
from mixform.estimate.subjects import SubjectFits
from mixform.inference.subjects import standard_errors, t_statistics
from mixform.inference.two_stage import (
    TwoStage,
    coefficient_table,
    covariance_frame,
    notes_of,
)
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    format_column,
    format_fixed,
    format_p,
    p_with_stars,
    stars,
)
from mixform.report.summary import missing_note

#: Subjects that are printed if there are more than `ALL`.
FIRST = 10
ALL = 60

SOURCES = {
    "moment": "D by moments, sampling errors subtracted",
    "reml": "D by REML, sampling errors known",
    "ml": "D by ML, sampling errors known",
    "given": "D given",
}


def summarize_subjects(fits: SubjectFits, notes: Sequence[str]) -> Summary:
    """Lay the regressions out, coefficient by coefficient as nlme does."""
    design = fits.design
    group = design.blocks[0].term.group_label
    own = "pooled" if fits.pool else "each subject's own"
    sections: list[Section] = [
        f"Least squares by {group}, residual variance {own}",
        f"Formula: {design.formula.source}",
    ]
    if design.weights is not None:
        sections.append(f"Weights: {design.weights_column or 'array'}")
    sections += ["", "Coefficients:"]
    shown = fits.m if fits.m <= ALL else FIRST
    t_values, p_values = t_statistics(fits)
    tables = (fits.coefficients, standard_errors(fits), t_values, p_values)
    labels = [str(level) for level in fits.levels[:shown]]
    for c, name in enumerate(fits.names):
        numbers = [table[:shown, c].tolist() for table in tables]
        sections += [f"   {name}", _coefficient(labels, numbers)]
    if shown < fits.m:
        sections.append(f" ... and {fits.m - shown} more: see .coefficients")
    sections.append("")
    if fits.pool:
        sigma = format_column([float(np.sqrt(fits.pooled_variance))])[0]
        sections.append(
            f"Residual standard error: {sigma} on {fits.pooled_df} degrees of freedom"
        )
    sections.append(f"Number of obs: {len(design.y)}, groups: {group}, {fits.m}")
    return Summary((*sections, *_noted(notes)))


def subject_notes(
    design: Design, dropped: Sequence[str], fits: SubjectFits
) -> tuple[str, ...]:
    """Say which rows and subjects were left out, and whose errors are rounding.

    Parameters
    ----------
    design : of all subjects
    dropped : labels with the reason
    fits : of the others
    """
    few = f"{len(dropped)} subjects dropped for too few rows: {', '.join(dropped[:20])}"
    more = ", ..." if len(dropped) > 20 else ""
    lost = [f"{few}{more}."] if dropped else []
    exact = [str(label) for label in fits.levels[fits.exact]]
    if fits.pool and not np.array_equal(fits.exact, fits.subject_df > 0):
        exact = []  # the pooled variance is that of the others
    which = ", ".join(exact[:20]) + (", ..." if len(exact) > 20 else "")
    told = f"The rows of {which} lie on the regression: standard errors are rounding."
    return (*missing_note(design), *lost, *([told] if exact else []))


def summarize_second_stage(record: TwoStage, notes: Sequence[str]) -> Summary:
    """Lay the second stage out: both estimates of beta and of D."""
    fits = record.fits
    naive = coefficient_table(record, record.moments.naive)
    sections: list[Section] = [
        "Second stage: coefficients of subjects regressed on their covariates",
        *_formulas(record),
        "",
        "Least squares (naive: sampling errors of the first stage ignored):",
        *_tests(naive),
        "",
        f"Generalized least squares ({SOURCES[record.source]}):",
        *_tests(coefficient_table(record, record.gls)),
        "",
        "D, naive:",
        _matrix(record.moments.D_naive, fits),
        f"D, {_label(record.source)}:",
        _matrix(record.D, fits),
        "",
        f"Number of subjects: {record.m}",
    ]
    return Summary((*sections, *_noted([*notes, *notes_of(record)])))


def summarize_comparison(
    fixed: pd.DataFrame,
    variances: pd.DataFrame,
    heading: Sequence[str],
    notes: Sequence[str],
) -> Summary:
    """Lay two stages and the mixed model out beside each other."""
    labels = [[str(pair[i]) for pair in fixed.index] for i in range(2)]
    shown = [
        format_column(
            fixed[n].tolist(), like=fixed[n.removesuffix("_se") + "_se"].tolist()
        )
        for n in fixed.columns
    ]
    headers = ["coefficient", "covariate"]
    for name in ("naive", "GLS", "mixed model"):
        headers += [name, "SE"]
    parts = [[str(pair[i]) for pair in variances.index] for i in range(2)]
    rows = [format_column(row) for row in variances.to_numpy().tolist()]
    columns = [list(column) for column in zip(*rows, strict=True)]
    sections: list[Section] = [
        *heading,
        "",
        "Fixed effects:",
        column_grid(headers, [*labels, *shown], n_left=2),
        "",
        "Variances and covariances of the coefficients:",
        column_grid(
            ["", "", "naive", "GLS", "mixed model"], [*parts, *columns], n_left=2
        ),
    ]
    return Summary((*sections, *_noted(notes)))


def _noted(notes: Sequence[str]) -> list[Section]:
    return ["", "\n".join(f"Note: {note}" for note in notes)] if notes else []


def _coefficient(labels: Sequence[str], numbers: Sequence[Sequence[float]]) -> Section:
    estimate, se, t_values, p_values = numbers
    columns = [
        labels,
        format_column(estimate, like=se),
        format_column(se, like=estimate),
        format_fixed(t_values, 3),
        [format_p(p) for p in p_values],
    ]
    return column_grid(["", "Estimate", "Std. Error", "t value", "Pr(>|t|)"], columns)


def _formulas(record: TwoStage) -> list[Section]:
    first = f"Formula: {record.fits.design.formula.source}"
    sources = record.between.sources
    if len(set(sources)) == 1:
        return [f"{first}; {sources[0]}"]
    pairs = zip(record.fits.names, sources, strict=True)
    return [first, *(f"  {name}: {source}" for name, source in pairs)]


def _tests(table: pd.DataFrame) -> list[Section]:
    estimate, se = table["estimate"].tolist(), table["se"].tolist()
    p_values = table["p_value"].tolist()
    columns = [
        [str(pair[0]) for pair in table.index],
        [str(pair[1]) for pair in table.index],
        format_column(estimate, like=se),
        format_column(se, like=estimate),
        [f"{value:g}" for value in table["df"]],
        format_fixed(table["t_value"].tolist(), 3),
        [p_with_stars(p) for p in p_values],
    ]
    headers = ["coefficient", "covariate", "Estimate", "Std. Error", "df", "t value"]
    grid = column_grid([*headers, "Pr(>|t|)    "], columns, n_left=2)
    return [grid, "---", LEGEND] if any(stars(p) for p in p_values) else [grid]


def _matrix(D: Matrix, fits: SubjectFits) -> Section:
    frame = covariance_frame(D, fits)
    names = [str(name) for name in frame.index]
    columns = [format_column(frame[name].tolist()) for name in names]
    return column_grid(["", *names], [names, *columns])


def _label(source: str) -> str:
    return {"moment": "corrected", "given": "given"}.get(source, f"by {source.upper()}")
