"""The stages of longitudinal data as fits: regressions, their regression, one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mixform._typing import Matrix
from mixform.call import Call, make_call, run, table_of, warn_of
from mixform.design import Design, build_design
from mixform.design.between import Between, build_between
from mixform.design.model_matrix import find_name, variables_of
from mixform.errors import DesignError, FormulaError, InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.subjects import SubjectFits, find_shortage, fit_subjects
from mixform.formula import (
    ModelFormula,
    Part,
    formulaic_formula,
    parse_between,
    parse_subjects,
    single_stage,
)
from mixform.inference.two_stage import (
    CORRECTIONS,
    TwoStage,
    given_covariance,
    sampling_covariances,
    second_stage,
    single_stage_columns,
)
from mixform.inference.variance_components import covariances
from mixform.report.two_stage import subject_notes

#: A formula of the second stage for all coefficients, or by coefficient.
BetweenFormula = str | Mapping[str, str]


def first_stage(
    call: Call, *, pool: bool, too_few: str
) -> tuple[SubjectFits, tuple[str, ...]]:
    """Fit each subject's regression; return what was left out as notes.

    Raises
    ------
    FormulaError, DesignError : of formula or data; subjects with too few rows
    """
    if too_few not in {"raise", "drop"}:
        raise DesignError(
            f"Unknown too_few {too_few!r}.",
            hint=suggest(str(too_few), ("raise", "drop"), "Choices"),
        )
    first = design = _design(call, call.subset)
    dropped: list[str] = []
    while (shortage := find_shortage(design, pool=pool)).short.any():
        block, short = design.blocks[0], shortage.short
        listed = [
            f"{label} ({reason})"
            for label, reason in zip(block.levels, shortage.reasons, strict=True)
            if reason
        ]
        if too_few == "raise" or block.m - len(listed) < 2:
            raise _too_few(design, listed, pool=pool)
        dropped += listed
        # Factor levels and polynomials are those of the rows that are left.
        rows = design.used.copy()
        rows[design.used] = ~short[block.codes]
        design = _design(call, rows)
    fits = fit_subjects(design, pool=pool)
    return fits, subject_notes(first, dropped, fits)


def estimate_between(
    fits: SubjectFits,
    call: Call,
    formula: BetweenFormula,
    correct: str = "moment",
    *,
    D: object = None,
    sigma: float | None = None,
) -> TwoStage:
    """Regress the coefficients on covariates of the subjects.

    Raises
    ------
    FormulaError, DesignError, InferenceError : as `LmList.second_stage`
    """
    if str(correct).lower() not in CORRECTIONS:
        raise DesignError(
            f"Unknown correct {correct!r}.",
            hint=suggest(str(correct), CORRECTIONS, "Choices"),
        )
    correct = correct.lower()
    parts = parse_between(formula, fits.names)
    between = build_between(fits.design, table_of(call), parts, call.missing)
    S = sampling_covariances(fits, between, sigma)
    if D is not None:
        given = given_covariance(D, fits.names)
        return second_stage(fits, between, S, given, "given")
    record = second_stage(fits, between, S)
    if correct == "moment":
        return record
    estimated = _likelihood_D(record, call, correct, sigma)
    return second_stage(fits, between, S, estimated, correct)


def fit_both(
    record: TwoStage, call: Call, method: str, **changes: object
) -> tuple[Fit, Call, list[int]]:
    """Fit the mixed model of both stages, to the subjects of the second.

    Parameters
    ----------
    call : of the first stage
    changes : other arguments of the fit than those of the first stage

    Returns
    -------
    fit, call : of the mixed model
    places : of its columns in the order of the second stage
    """
    if str(method).upper() not in {"REML", "ML"}:
        raise DesignError(
            f"Unknown method {method!r}.",
            hint=suggest(str(method), ("REML", "ML"), "Choices"),
        )
    design, between = record.fits.design, record.between
    rows = design.used.copy()
    rows[design.used] = between.kept[design.blocks[0].codes]
    given: dict[str, Any] = {"weights": call.weights, "subset": rows, **changes}
    formula = _formula_of(design, between)
    mixed = make_call(formula, call.data, method=method, **given)
    mixed = replace(mixed, file=call.file)
    fit = run(mixed)
    return fit, mixed, single_stage_columns(fit, record)


def _likelihood_D(
    record: TwoStage, call: Call, correct: str, sigma: float | None
) -> Matrix:
    """Return D by REML or ML of the coefficients, given their sampling errors.

    That is the mixed model with its residual variance held: the residuals of the first
    stage are independent of its coefficients and say nothing of D.
    """
    fits, changes = record.fits, dict[str, object]()
    variance = fits.pooled_variance if sigma is None else sigma**2
    if sigma is None and not fits.pool:
        _require_variances(fits)
        weights = fits.design.weights
        own = fits.own_variances[fits.design.blocks[0].codes]
        precision = np.ones(len(fits.design.used))
        precision[fits.design.used] = (1.0 if weights is None else weights) / own
        variance, changes["weights"] = 1.0, precision
    changes["varcomp"] = {"residual": variance}
    fit, _, _ = fit_both(record, call, correct, **changes)
    warn_of(fit, stacklevel=5)
    return covariances(fit)[0]


def _require_variances(fits: SubjectFits) -> None:
    exact = fits.levels[fits.exact]
    if len(exact):
        raise InferenceError(
            f"The regression of {fits.design.blocks[0].term.group_label} {exact[0]!r} "
            "leaves no residual variance that its rows could be weighted by.",
            hint='Use correct="moment", or lm_list(pool=True).',
        )


def _design(call: Call, subset: object) -> Design:
    formula = parse_subjects(call.formula)
    _require_no_subject(formula)
    design = build_design(
        formula,
        table_of(call),
        weights=call.weights,
        subset=subset,
        missing=call.missing,
    )
    if not design.fixed.names:
        raise DesignError(
            "The regression has no coefficients.",
            formula=call.formula,
            span=design.formula.fixed.span,
            hint='Write "y ~ time | id", or "y ~ 1 | id" for means.',
        )
    return design


def _require_no_subject(formula: ModelFormula) -> None:
    """Refuse the grouping factor as a covariate: it is constant in its groups."""
    used = variables_of(formulaic_formula(formula.fixed.code))
    for name in formula.random[0].group:
        if name in used:
            raise FormulaError(
                f"{name!r} is the grouping factor, and constant in each regression.",
                formula=formula.source,
                span=find_name(name, formula.source, formula.fixed.span),
                hint="Leave it out left of the bar.",
            )


def _too_few(design: Design, listed: list[str], *, pool: bool) -> DesignError:
    block, k = design.blocks[0], len(design.fixed.names)
    more = ", ..." if len(listed) > 5 else ""
    own = "" if pool else " and a residual variance of their own"
    what = f"{k} coefficient{'s' if k > 1 else ''}"
    return DesignError(
        f"{len(listed)} of {block.m} levels of {block.term.group_label!r} have too few "
        f"distinct rows for {what}{own}: {', '.join(listed[:5])}{more}.",
        formula=design.formula.source,
        span=design.formula.fixed.span,
        hint='Use fewer coefficients, or leave them out with too_few="drop"; what is '
        "constant within subjects belongs in second_stage().",
    )


def _formula_of(design: Design, between: Between) -> str:
    """Return the formula of the mixed model.

    Raises
    ------
    DesignError : columns of one term have different formulas in the second stage
    """
    parts: list[Part] = []
    for term in design.fixed.coded.terms:
        of_term = {between.parts[c].code: between.parts[c] for c in term.columns}
        if len(of_term) > 1:
            names = ", ".join(design.fixed.names[c] for c in term.columns)
            raise DesignError(
                f"The columns of {term.name!r} ({names}) have different formulas in "
                "the second stage, which no formula of a mixed model says.",
                hint="Give them the same formula.",
            )
        parts += of_term.values()
    return single_stage(design.formula, parts)
