"""Functions of the variance components with delta-method standard errors.

Var f(v) = (df/dv)' Var(v) (df/dv), Var(v) = J V_phi J', J the exact derivatives of the
components by phi = (interior theta, rho, sigma) and V_phi the inverse of the observed
information: what SAS's ASYCOV reports for the components themselves. df/dv comes from
evaluating the expression on numbers that carry their derivatives along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform._typing import AnyArray, Matrix, Vector
from mixform.estimate import Fit
from mixform.estimate.criterion import dSigma
from mixform.inference.diagnostics.component_expression import evaluate
from mixform.inference.diagnostics.component_functions import Components
from mixform.inference.diagnostics.residual_components import residual_components
from mixform.inference.diagnostics.term_covariates import (
    term_covariates,
    term_variables,
)
from mixform.inference.intervals import require_level
from mixform.inference.satterthwaite import VarianceModel, variance_model
from mixform.inference.variance_components import block_labels, covariances

#: Standard errors a variance should be away from zero for a Wald interval.
FAR_FROM_ZERO = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceFunction:
    """A function of the variance components.

    Attributes
    ----------
    expression : as written
    estimate, se : its value and the delta method's standard error
    lower, upper : Wald limits
    level : their confidence level
    notes : why there is no standard error, or why not to trust it
    """

    expression: str
    estimate: float
    se: float
    lower: float
    upper: float
    level: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        limits = f"{100 * self.level:g} % [{self.lower:.5g}, {self.upper:.5g}]"
        head = f"{self.expression} = {self.estimate:.5g} (SE {self.se:.4g}), {limits}"
        return "\n".join([head, *(f"Note: {note}" for note in self.notes)])


def vcfun(fit: Fit, expression: str, *, level: float = 0.95) -> VarianceFunction:
    """Evaluate a function of the variance components.

    Parameters
    ----------
    expression : arithmetic (+ - * / ** with brackets, sqrt, log, exp) on components and
        on whole terms. A grouping factor stands for its variance if it has one
        coefficient, ``Subject[Days]`` for the variance of a coefficient,
        ``Subject[Intercept, Days]`` for a covariance, ``residual`` for sigma^2, or
        ``residual[wwg, pwg]`` for a covariance of positions that have variances of
        their own, ```Residual:a` `` in stratum a; names that are no plain words in
        backticks, ```a:b` ``. ``var(animal, age=50)`` is the variance of what a term
        contributes there, ``cov(animal, age=(50, 90))`` and
        ``cor(animal, trait=("wwg", "pwg"))`` are those of two values, and
        ``total(age=50)`` is the sum over all terms and the residual
    level : of the Wald interval

    Returns
    -------
    the value, with no standard error where the variances were given

    Raises
    ------
    InferenceError : the expression is none, names an unknown component, or has no
        value (division by zero, root of a negative number)
    """
    return _functions(fit, [expression], level)[0]


def vcfuns(
    fit: Fit, expressions: Mapping[str, str], *, level: float = 0.95
) -> pd.DataFrame:
    """Evaluate several functions of the variance components; see `vcfun`.

    Returns
    -------
    frame : by name, ``estimate, se, lower, upper``; ``attrs["notes"]`` says what the
        notes of each are
    """
    found = _functions(fit, list(expressions.values()), level)
    columns = ("estimate", "se", "lower", "upper")
    rows = [[getattr(one, name) for name in columns] for one in found]
    table = pd.DataFrame(rows, index=list(expressions), columns=list(columns))
    table.attrs["notes"] = tuple(
        f"{name}: {note}"
        for name, one in zip(expressions, found, strict=True)
        for note in one.notes
    )
    return table


def _functions(
    fit: Fit, expressions: Sequence[str], level: float
) -> list[VarianceFunction]:
    require_level(level)
    components = named_components(fit)
    duals = [evaluate(expression, components) for expression in expressions]
    known = _known_components(fit)
    # Neither is there for variances from mean squares.
    instead = "" if fit.anova else ", use the profile or the bootstrap"
    return [
        _with_error(expression, dual, known, level, instead)
        for expression, dual in zip(expressions, duals, strict=True)
    ]


def named_components(fit: Fit) -> Components:
    """Return what an expression may name."""
    blocks = dict(zip(block_labels(fit), fit.design.blocks, strict=True))
    residuals = {part.label: part for part in residual_components(fit)}
    columns = {label: block.columns for label, block in blocks.items()}
    variables = {label: term_variables(block) for label, block in blocks.items()}
    for label, part in residuals.items():
        columns[label], variables[label] = part.columns, part.variables

    def covariates(label: str, values: Mapping[str, object]) -> Vector:
        if label in residuals:
            return residuals[label].covariates(values)
        return term_covariates(fit, blocks[label], values)

    values = _jacobian(fit)[1].tolist()
    return Components(
        values=dict(zip(component_labels(fit), values, strict=True)),
        columns=columns,
        variables=variables,
        covariates=covariates,
    )


def _with_error(
    expression: str,
    dual: tuple[float, Vector],
    components: tuple[pd.DataFrame, Matrix, list[str]],
    level: float,
    instead: str,
) -> VarianceFunction:
    """Add the delta method's standard error."""
    frame, covariance, reasons = components
    estimate, gradient = dual
    used = np.flatnonzero(gradient != 0.0)
    notes = list(dict.fromkeys(reasons[k] for k in used if reasons[k]))
    se = np.nan
    if not notes and np.all(np.isfinite(gradient)):
        variance = gradient[used] @ covariance[np.ix_(used, used)] @ gradient[used]
        se = float(np.sqrt(variance)) if variance >= 0.0 else np.nan
        if np.isnan(se):  # of mean squares, with negative estimates
            notes.append(
                "no standard error: with its negative estimates the covariance of the "
                "components is no covariance matrix."
            )
        else:
            notes = _warnings(frame, covariance.diagonal(), used, instead)
    elif not notes:
        notes.append("its derivative is infinite at the estimate.")
    width = float(ndtri(0.5 * (1.0 + level))) * se
    return VarianceFunction(
        expression=expression,
        estimate=estimate,
        se=se,
        lower=estimate - width,
        upper=estimate + width,
        level=level,
        notes=tuple(notes),
    )


def variance_covariance(fit: Fit) -> pd.DataFrame:
    """Return the asymptotic covariance of the variance components, (c, c).

    In the order of `varcorr`. Components of a term whose covariance is singular are
    NaN: their estimates are not asymptotically normal. ``attrs["notes"]`` says why
    entries are NaN.
    """
    frame, covariance, reasons = _components(fit, variance_model(fit))
    out = pd.DataFrame(covariance, index=frame.index, columns=frame.index)
    out.attrs["notes"] = tuple(dict.fromkeys(reason for reason in reasons if reason))
    return out


def component_labels(fit: Fit) -> tuple[str, ...]:
    """Return a label for each row of `varcorr`: ``Subject[Intercept, Days]``.

    A term with one coefficient has the label of its group alone.
    """
    labels: list[str] = []
    for label, block in zip(block_labels(fit), fit.design.blocks, strict=True):
        names = block.columns
        if block.k == 1:
            labels.append(label)
            continue
        labels += [f"{label}[{name}]" for name in names]
        if block.term.structure == "diag":
            continue
        labels += [
            f"{label}[{names[c]}, {names[r]}]"
            for c in range(block.k)
            for r in range(c + 1, block.k)
        ]
    return (*labels, *(x for part in residual_components(fit) for x in part.labels))


def _known_components(fit: Fit) -> tuple[pd.DataFrame, Matrix, list[str]]:
    """Return the components, their covariance, and why there is none; see below."""
    if not fit.known:
        return _components(fit, variance_model(fit))
    values = _jacobian(fit)[1]
    frame = pd.DataFrame({"vcov": values}, index=list(component_labels(fit)))
    why = "no standard error: the variances were given, not estimated."
    return frame, np.full((len(values),) * 2, np.nan), [why] * len(values)


def _components(
    fit: Fit, model: VarianceModel
) -> tuple[pd.DataFrame, Matrix, list[str]]:
    """Return the components, their covariance (c, c), and why each is NaN, or ""."""
    jacobian, values, reasons = _jacobian(fit)
    if fit.anova is not None:
        frame = pd.DataFrame({"vcov": values}, index=list(component_labels(fit)))
        return frame, fit.anova.V, reasons
    frame = pd.DataFrame({"vcov": values}, index=list(component_labels(fit)))
    if model.V_phi is None:
        assert model.note is not None, "there is a reason"
        why = model.note.replace("degrees of freedom:", "standard error:", 1)
        return frame, np.full((len(values),) * 2, np.nan), [why] * len(values)
    covariance = jacobian @ model.V_phi @ jacobian.T
    unknown = np.array([bool(reason) for reason in reasons])
    covariance[unknown], covariance[:, unknown] = np.nan, np.nan
    return frame, covariance, reasons


def _jacobian(fit: Fit) -> tuple[Matrix, Vector, list[str]]:
    """Return dv/dphi (c, t + r + 1), v (c,), and why v has no standard error, or ""."""
    if fit.anova is not None:
        found = fit.anova.components
        return np.eye(len(found)), found, [""] * len(found)
    here = fit.evaluation
    problem = here.problem
    t = problem.n_theta
    rows: list[Vector] = []
    values: list[float] = []
    reasons: list[str] = []
    for j, (Sigma, stack, C, where, block) in enumerate(
        zip(
            covariances(fit),
            dSigma(here, fit.scaled_theta),
            problem.Z_scales,
            problem.theta_slices,
            fit.design.blocks,
            strict=True,
        )
    ):
        C_inverse = np.linalg.inv(C)
        by_theta = fit.sigma**2 * C_inverse @ stack @ C_inverse.T
        reason = ""
        if j in fit.singular_terms:
            reason = (
                f"no standard error: the covariance of {block.term.group_label!r} is "
                "singular, on the boundary of the parameter space."
            )
        pairs = [(c, c) for c in range(block.k)]
        if block.term.structure != "diag":
            pairs += [(c, r) for c in range(block.k) for r in range(c + 1, block.k)]
        for c, r in pairs:
            row = np.zeros(t + len(fit.rho) + 1)
            row[where] = by_theta[:, r, c]
            row[-1] = 2.0 * Sigma[r, c]
            rows.append(row)
            values.append(float(Sigma[r, c]))
            reasons.append(reason)
    free = np.append(fit.interior, True)
    at_edge = ~free[t:]
    for part in residual_components(fit):
        for value, slope in zip(part.values, part.jacobian, strict=True):
            rows.append(np.append(np.zeros(t), slope))
            values.append(float(value))
            edge = "no standard error: a residual parameter is at its edge."
            reasons.append(edge if np.any(slope[at_edge] != 0.0) else "")
    return np.array(rows)[:, free], np.array(values), reasons


def _warnings(
    frame: pd.DataFrame, variances: Vector, used: AnyArray, instead: str
) -> list[str]:
    se = np.sqrt(np.maximum(variances, 0.0))
    near = [
        f"{frame.index[k]!r}"
        for k in used
        if "," not in str(frame.index[k])
        and frame["vcov"].iloc[k] < FAR_FROM_ZERO * se[k]
    ]
    if not near:
        return []
    return [
        f"the variance of {', '.join(near)} is not {FAR_FROM_ZERO:g} standard errors "
        f"above zero: the Wald interval is poor{instead}."
    ]
