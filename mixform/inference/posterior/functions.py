"""Functions of the variances at each draw: vcfun, R^2, intraclass correlations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.diagnostics.component_expression import evaluate
from mixform.inference.diagnostics.component_functions import Components
from mixform.inference.diagnostics.vcfun import named_components
from mixform.inference.intervals import require_level
from mixform.inference.new_residuals import own_errors
from mixform.inference.posterior.draws import (
    covariance_draws,
    credible_limits,
    deviations,
    of_effects,
    summarized,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PosteriorFunction:
    """A function of the variance components at each draw.

    Attributes
    ----------
    expression : as written
    draws : (S,) its values, chain after chain
    level, method : of the credible limits
    """

    expression: str
    draws: Vector
    level: float
    method: str

    @property
    def estimate(self) -> float:
        """The posterior mean."""
        return float(self.draws.mean())

    @property
    def se(self) -> float:
        """The posterior standard deviation."""
        return float(deviations(self.draws))

    @property
    def lower(self) -> float:
        """The lower credible limit."""
        return float(credible_limits(self.draws, self.level, self.method)[0])

    @property
    def upper(self) -> float:
        """The upper credible limit."""
        return float(credible_limits(self.draws, self.level, self.method)[1])

    def __str__(self) -> str:
        limits = f"{100 * self.level:g} % [{self.lower:.5g}, {self.upper:.5g}]"
        return f"{self.expression} = {self.estimate:.5g} (SD {self.se:.4g}), {limits}"

    __repr__ = __str__


def vcfun(
    posterior: Posterior, expression: str, *, level: float = 0.95, method: str = "eti"
) -> PosteriorFunction:
    """Evaluate a function of the variance components at each draw.

    Parameters
    ----------
    expression : as of `mixform.inference.diagnostics.vcfun.vcfun`

    Raises
    ------
    InferenceError : the expression is none, names an unknown component, or has no value
        at a draw
    """
    require_level(level)
    draws = _evaluated(posterior, expression, _remembering(posterior))
    credible_limits(draws, level, method)
    return PosteriorFunction(
        expression=expression, draws=draws, level=level, method=method
    )


def vcfuns(
    posterior: Posterior,
    expressions: Mapping[str, str],
    *,
    level: float = 0.95,
    method: str = "eti",
) -> pd.DataFrame:
    """Evaluate several functions; ``estimate, se, lower, upper`` by name."""
    require_level(level)
    components = _remembering(posterior)
    values = [_evaluated(posterior, one, components) for one in expressions.values()]
    return summarized(np.column_stack(values), list(expressions), level, method)


def _remembering(posterior: Posterior) -> Components:
    """Return what an expression may name; covariates are coded once for all draws."""
    components = named_components(posterior.fit)
    known: dict[object, Vector] = {}

    def covariates(label: str, values: Mapping[str, object]) -> Vector:
        key = (label, *((n, type(v), v) for n, v in values.items()))
        if key not in known:
            known[key] = components.covariates(label, values)
        return known[key]

    return replace(components, covariates=covariates)


def _evaluated(posterior: Posterior, expression: str, components: Components) -> Vector:
    """Return the value at each draw, (S,)."""
    values, labels = component_draws(posterior), list(components.values)
    out = np.empty(len(values))
    for s, row in enumerate(values.tolist()):
        here = replace(components, values=dict(zip(labels, row, strict=True)))
        try:
            out[s] = evaluate(expression, here)[0]
        except InferenceError as failure:
            if s == 0:
                raise
            raise InferenceError(
                f"{expression!r} has no value at draw {s + 1} of {len(out)}: "
                f"{failure.message}",
                hint=failure.hint,
            ) from None
    return out


def component_draws(posterior: Posterior) -> Matrix:
    """Return the components (S, c) in the order of `component_labels`."""
    columns: list[Vector] = []
    blocks = posterior.fit.design.blocks
    for block, Sigma in zip(blocks, covariance_draws(posterior), strict=True):
        columns += [Sigma[:, c, c] for c in range(block.k)]
        if block.term.structure != "diag":
            pairs = [(c, r) for c in range(block.k) for r in range(c + 1, block.k)]
            columns += [Sigma[:, r, c] for c, r in pairs]
    return np.column_stack([*columns, posterior.sigma**2])


def r2(
    posterior: Posterior, *, level: float = 0.95, method: str = "eti"
) -> pd.DataFrame:
    """Return the marginal and conditional R^2 of Nakagawa and Schielzeth.

    The formulas of `fit_measures` at each draw; without random effects both are v_f /
    (v_f + v_e).

    Returns
    -------
    frame : ``estimate, se, lower, upper`` of "marginal" and "conditional"
    """
    fixed, random, residual = _shares(posterior)
    explained = sum(random.values(), np.zeros(len(fixed)))
    total = fixed + explained + residual
    values = np.column_stack([fixed, fixed + explained]) / total[:, None]
    return summarized(values, ["marginal", "conditional"], level, method)


def icc(
    posterior: Posterior, *, level: float = 0.95, method: str = "eti"
) -> pd.DataFrame:
    """Return the intraclass correlations, overall and by grouping factor.

    Returns
    -------
    frame : ``estimate, se, lower, upper`` of "adjusted" and "unadjusted", and with
        several grouping factors of "adjusted: g", "unadjusted: g"

    Raises
    ------
    InferenceError : the model has no random effects
    """
    if not posterior.fit.design.blocks:
        raise InferenceError(
            "Intraclass correlations need a random effect; the model has none.",
            hint="Add one, e.g. (1 | subject).",
        )
    fixed, random, residual = _shares(posterior)
    explained = sum(random.values(), np.zeros(len(fixed)))
    parts = {"": explained} | (
        {f": {label}": value for label, value in random.items()}
        if len(random) > 1
        else {}
    )
    values = {f"adjusted{n}": v / (explained + residual) for n, v in parts.items()}
    total = fixed + explained + residual
    values |= {f"unadjusted{n}": v / total for n, v in parts.items()}
    return summarized(np.column_stack([*values.values()]), list(values), level, method)


def _shares(posterior: Posterior) -> tuple[Vector, dict[str, Vector], Vector]:
    """Return v_f, v_r by grouping factor and v_e at each draw, each (E,).

    v_r is the mean over the rows of z'Sigma z, that is tr(Sigma M), M the mean of zz'.
    """
    fit = posterior.fit
    apart = fit.design.fixed.X - fit.design.fixed.X.mean(axis=0)
    C = apart.T @ apart / (fit.n - 1)
    fixed = np.einsum("ei,ij,ej->e", posterior.beta, C, posterior.beta)
    random: dict[str, Vector] = {}
    for block, Sigma in zip(
        fit.design.blocks, covariance_draws(posterior), strict=True
    ):
        Z = block.design
        weight = np.ones(len(Z))
        if block.relation is not None:
            weight = block.relation.diagonal[block.codes]
        M = Z.T @ (Z * weight[:, None]) / len(Z)
        part = np.einsum("eij,ij->e", of_effects(posterior, Sigma), M)
        label = block.term.group_label
        random[label] = random.get(label, 0.0) + part
    mean_error = float(np.mean(1.0 / own_errors(fit).weights))
    return fixed, random, of_effects(posterior, posterior.sigma) ** 2 * mean_error
