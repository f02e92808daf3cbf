"""The printed model, in the order and words of lmerTest's summary."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design import Design
from mixform.design.column_space import listed
from mixform.estimate import Fit
from mixform.estimate.mean_squares import SUMS
from mixform.inference.approximation import Approximation
from mixform.inference.least_squares import least_squares
from mixform.inference.likelihood import aic, bic
from mixform.inference.prediction import scaled_residuals
from mixform.inference.random_structure import parameters_at_limit, structure_lines
from mixform.inference.residual_structure import names_at_edge, residual_parameters
from mixform.inference.variance_components import block_labels, estimates
from mixform.report.general_linear import fit_lines
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.numbers import (
    LEGEND,
    format_column,
    format_fixed,
    p_with_stars,
    stars,
)

#: Parameters of the residual structure that are printed.
LONGEST = 21

#: Characters of a line of parameters.
WIDTH = 88

#: Methods that are named after those who proposed them.
NAMESAKES = ("Satterthwaite", "Kenward-Roger")


def summarize(
    fit: Fit,
    coefficients: pd.DataFrame,
    *,
    correlation: bool,
    approximation: Approximation,
) -> Summary:
    """Lay the model out.

    Parameters
    ----------
    coefficients : estimate, se, df, t_value, p_value by name, aliased ones NaN
    correlation : whether to add the correlation of the fixed effects
    approximation : the method of the t tests
    """
    sections: list[Section] = [_heading(fit, approximation), *_criterion(fit)]
    sections += ["Scaled residuals:", _residuals(fit), ""]
    structured = fit.design.residual is not None
    if fit.design.blocks:
        sections += ["Random effects:", _random(fit), *_structures(fit)]
    elif not structured:
        sections += _least_squares(fit)
    if structured:
        sections += ["", *_residual(fit)] if fit.design.blocks else _residual(fit)
    sections += [sizes_line(fit), ""]
    if len(coefficients):
        sections += ["Fixed effects:", _fixed(coefficients)]
        if any(stars(p) for p in coefficients["p_value"]):
            sections += ["---", LEGEND]
    else:
        sections.append("No fixed effects.")
    if correlation and len(fit.beta) > 1:
        sections += [
            "",
            "Correlation of fixed effects:",
            _correlation(approximation.V_beta, fit),
        ]
    notes = fit_notes(fit)
    if approximation.note:
        notes.append(approximation.note)
    if notes:
        sections += ["", "\n".join(f"Note: {note}" for note in notes)]
    return Summary(tuple(sections))


def _least_squares(fit: Fit) -> list[Section]:
    sums = least_squares(fit)
    assert sums is not None, "no random effects, no structure"
    known = fit.sigma**2 if fit.known else None
    return fit_lines(sums, known=known, ml=fit.method == "ML")


def _heading(fit: Fit, approximation: Approximation) -> str:
    kind = "Linear mixed model" if fit.design.blocks else "Linear model"
    method = fit.method
    if fit.anova is not None:
        method = f"ANOVA ({SUMS[fit.anova.sums]})"
    first = f"{kind} fit by {method}. {_title(approximation)}"
    return "\n".join([first, *design_lines(fit), ""])


def design_lines(fit: Fit) -> list[str]:
    """Return the formula, and where weights and offset come from."""
    lines = [f"Formula: {fit.design.formula.source}"]
    if fit.design.weights is not None:
        lines.append(f"Weights: {fit.design.weights_column or 'array'}")
    if fit.design.offset_column or fit.design.offset_is_array:
        lines.append(f"Offset: {fit.design.offset_column or 'array'}")
    return lines


def _title(approximation: Approximation) -> str:
    if approximation.title in NAMESAKES:
        return f"t-tests use {approximation.title}'s method"
    title = approximation.title
    return f"{title[0].upper()}{title[1:]}"


def _criterion(fit: Fit) -> list[Section]:
    if np.isnan(fit.criterion):
        return ["Criterion: not computed by conjugate gradients", ""]
    if fit.anova is not None:
        return []
    if fit.method == "REML":
        return [f"REML criterion at convergence: {fit.criterion:.1f}", ""]
    columns = [
        [f"{aic(fit):.1f}"],
        [f"{bic(fit):.1f}"],
        [f"{fit.loglik:.1f}"],
        [f"{fit.criterion:.1f}"],
        [str(fit.n - fit.n_parameters)],
    ]
    headers = ["AIC", "BIC", "logLik", "deviance", "df.resid"]
    return [column_grid(headers, columns, n_left=0), ""]


def _residuals(fit: Fit) -> Section:
    quantiles = np.quantile(scaled_residuals(fit), [0.0, 0.25, 0.5, 0.75, 1.0])
    headers = ["Min", "1Q", "Median", "3Q", "Max"]
    return column_grid(headers, [[f"{value:.4f}"] for value in quantiles], n_left=0)


def _random(fit: Fit) -> Section:
    groups: list[str] = []
    names: list[str] = []
    variances: list[float] = []
    correlations: list[list[str]] = []
    held: list[str] = []
    for label, block, Sigma in zip(
        block_labels(fit), fit.design.blocks, estimates(fit), strict=True
    ):
        sd = np.sqrt(np.maximum(np.diag(Sigma), 0.0))
        for c, name in enumerate(block.columns):
            held.append("(held)" if label in fit.held else "")
            groups.append(label if c == 0 else "")
            names.append(name)
            variances.append(float(Sigma[c, c]))
            row: list[str] = []
            for other in range(c if block.term.structure != "diag" else 0):
                scale = sd[c] * sd[other]
                value = Sigma[c, other] / scale if scale > 0.0 else np.nan
                row.append(f"{value:.2f}")
            correlations.append(row)
    if fit.design.residual is None:
        groups.append("Residual")
        names.append("")
        variances.append(fit.sigma**2)
        correlations.append([])
        held.append("(held)" if "residual" in fit.held else "")
    sds = [float(np.sqrt(value)) if value >= 0.0 else np.nan for value in variances]
    columns = [groups, names, format_column(variances), format_column(sds)]
    headers = ["Groups", "Name", "Variance", "Std.Dev."]
    width = max(len(row) for row in correlations)
    for c in range(width):
        columns.append([row[c] if c < len(row) else "" for row in correlations])
        headers.append("Corr" if c == 0 else "")
    if any(held) and not fit.known:
        columns.append(held)
        headers.append("")
    return column_grid(headers, columns, n_left=2)


def _structures(fit: Fit) -> list[Section]:
    """Return a line for each term whose coefficients have a structure."""
    lines: list[Section] = []
    for label, name, table in structure_lines(fit):
        parts = [
            f"{parameter} {value:.3f}" + (f" (SE {se:.3f})" if np.isfinite(se) else "")
            for parameter, value, se in zip(
                table["parameter"], table["estimate"], table["se"], strict=True
            )
        ]
        shown = ", ".join(parts[:LONGEST])
        more = ", ... more in random_parameters()" if len(parts) > LONGEST else ""
        line = f" {label} {name}: {shown}{more}"
        lines.append(fill(line, WIDTH, subsequent_indent="   "))
    return lines


def _residual(fit: Fit) -> list[Section]:
    """Lay the residual structure out: its parameters with standard errors."""
    part, table = fit.design.residual, residual_parameters(fit)
    assert part is not None, "there is a structure"
    asked = [] if part.term is None else [part.term.source]
    asked += [] if part.dispersion is None else [f"dispersion ~ {_dispersion(fit)}"]
    shown = table.iloc[:LONGEST]
    columns = [
        [str(name) for name in shown.index],
        format_column(shown["estimate"].tolist()),
        format_column(shown["se"].tolist()),
    ]
    grid = column_grid(["", "Estimate", "Std. Error"], columns)
    out: list[Section] = [f"Residual structure: {', '.join(asked)}", grid]
    if len(table) > LONGEST:
        out.append(f" ... {len(table) - LONGEST} more in residual_parameters()")
    return out


def _dispersion(fit: Fit) -> str:
    part = fit.design.residual
    assert part is not None, "there is a structure"
    origins = zip(part.dispersion_names, part.origin.tolist(), strict=True)
    away = ", ".join(f"{name} {origin:g}" for name, origin in origins if origin)
    return " + ".join(part.dispersion_names) + (f" (sd at {away})" if away else "")


def sizes_line(fit: Fit) -> str:
    """Return the number of rows, and of levels of each grouping factor."""
    text = f"Number of obs: {fit.n}"
    sizes = {b.term.group_label: b.m for b in fit.design.blocks}
    part = fit.design.residual
    if part is not None and part.term is not None and part.term.group:
        sizes.setdefault(part.term.group_label, len(part.labels))
    if sizes:
        text += ", groups: " + "; ".join(f"{name}, {m}" for name, m in sizes.items())
    return text


def _fixed(table: pd.DataFrame) -> Section:
    estimate, se = table["estimate"].tolist(), table["se"].tolist()
    p_values = table["p_value"].tolist()
    columns = [
        [str(name) for name in table.index],
        format_column(estimate, like=se),
        format_column(se, like=estimate),
        format_fixed(table["df"].tolist(), 2),
        format_fixed(table["t_value"].tolist(), 3),
        [p_with_stars(p) for p in p_values],
    ]
    headers = ["", "Estimate", "Std. Error", "df", "t value", "Pr(>|t|)    "]
    return column_grid(headers, columns)


def _correlation(V_beta: Matrix, fit: Fit) -> Section:
    names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    sd = np.sqrt(np.diag(V_beta))
    values = V_beta / np.outer(sd, sd)
    below = range(1, len(names))
    columns = [
        [f"{values[r, c]:.3f}" if c < r else "" for r in below]
        for c in range(len(names) - 1)
    ]
    return column_grid(["", *names[:-1]], [names[1:], *columns])


def fit_notes(fit: Fit) -> list[str]:
    """Return what a reader must know besides the numbers."""
    notes = design_notes(fit)
    if fit.known:
        notes.append(f"{fit.convergence.message}.")
    elif fit.held:
        notes.append(f"held, not estimated: {_held(fit)}.")
    notes += relation_notes(fit)
    if fit.anova is not None:
        notes += _negative_notes(fit)
    elif not fit.known:
        notes += [_singular_note(fit, j) for j in fit.singular_terms]
    at_limit = [*names_at_edge(fit), *([] if fit.known else parameters_at_limit(fit))]
    notes += [f"{name} is at the edge of its range." for name in at_limit]
    if not fit.convergence.converged:
        notes.append(f"{fit.convergence.message}.")
    return notes


def design_notes(fit: Fit) -> list[str]:
    """Return what a reader must know of the data in the model."""
    design = fit.design
    notes = missing_note(design)
    if design.fixed.aliased:
        names = ", ".join(design.fixed.aliased_names)
        notes.append(f"dropped as combinations of other columns: {names}.")
        some = design.fixed.space.not_unique
        if some:
            text = listed(some)
            notes.append(f"not estimable by themselves, one of many solutions: {text}.")
    notes += [
        f"{block.term.source} has independent effects for {', '.join(block.columns)}."
        for block in design.blocks
        if block.term.structure == "diag" and block.k > 1
    ]
    return notes


def relation_notes(fit: Fit) -> list[str]:
    """Return how the levels of random terms are related, where they are."""
    return [
        f"{block.term.group_label}: {block.relation.description}, "
        f"{len(np.unique(block.codes))} with records."
        for block in fit.design.blocks
        if block.relation is not None
    ]


def missing_note(design: Design) -> list[str]:
    """Return how many rows were dropped for missing values, and of what."""
    if not design.n_missing:
        return []
    counts = ", ".join(
        f"{name} {count}"
        if name in design.columns or "(" not in name
        else f"{name} is undefined in {count}"
        for name, count in design.missing_columns.items()
    )
    total = design.n_missing + len(design.y)
    return [
        f"{design.n_missing} of {total} rows dropped for missing values ({counts})."
    ]


def _held(fit: Fit) -> str:
    assert fit.given is not None, "something is held"
    ratios = dict(zip(block_labels(fit), fit.given.ratio, strict=True))
    return ", ".join(
        f"{name} (relative to the residual variance)"
        if ratios.get(name) is not None
        else f"{name} (residual variance)"
        if name == "residual" and fit.given.rho is None and fit.design.residual
        else name
        for name in fit.held
    )


def _negative_notes(fit: Fit) -> list[str]:
    assert fit.anova is not None, "the variances come from mean squares"
    labels = [block_labels(fit)[j] for j in fit.anova.negative]
    if not labels:
        return []
    return [
        f"the estimated variance of {', '.join(labels)} is negative: effects, tests, "
        "predictions, R2 and ICC take zero."
    ]


def _singular_note(fit: Fit, j: int) -> str:
    block, T = fit.design.blocks[j], fit.T[j]
    label = block_labels(fit)[j]
    zero = [n for n, row in zip(block.columns, T, strict=True) if not np.any(row)]
    if zero:
        return (
            f"singular fit: the variance of {label} {', '.join(zero)} is estimated "
            "as zero."
        )
    if block.k > 2 and fit.evaluation.problem.structures[j].curved:
        return f"singular fit: a combination of the effects of {label} has no variance."
    return (
        f"singular fit: the effects {', '.join(block.columns)} of {label} are "
        "perfectly correlated."
    )
