"""Power by simulation: how often a test of fixed effects rejects.

Goes in: a fit, its parameters changed as the user likes, its rows or a larger design.
Comes out: the share of draws in which the test rejects, with its Monte Carlo interval.
What simr does for lme4 (Green and MacLeod 2016, Methods Ecol. Evol. 7, 493).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc
from scipy.stats import binomtest

from mixform._typing import Matrix, Vector
from mixform.covariance import semidefinite_cholesky
from mixform.design import RandomBlock
from mixform.errors import InferenceError, suggest
from mixform.estimate import Control, Fit, estimate
from mixform.estimate.batch.batch import Refits, Refitter
from mixform.estimate.known import require_free
from mixform.estimate.refit import refit
from mixform.inference.approximation import DDF, approximate
from mixform.inference.contrast_tests import f_test
from mixform.inference.estimability import read_contrast, require_estimable
from mixform.inference.hypotheses import hypotheses, term_space
from mixform.inference.intervals import require_alpha
from mixform.inference.natural_parameters import from_natural, residual_names
from mixform.inference.resampling.bootstrap import parameter_names, parameter_values
from mixform.inference.resampling.bootstrap_test import RatioMeasure
from mixform.inference.resampling.new_design import (
    fit_of_new_rows,
    read_new_rows,
    restricted,
)
from mixform.inference.resampling.replication import (
    Measure,
    Part,
    Workers,
    notes_of,
    replicate,
    require_some,
    run_chunks,
)
from mixform.inference.resampling.simulation import (
    Parameters,
    chunks,
    new_simulator,
    parameters,
    require_count,
    simulator_of,
)
from mixform.progress import Progress

METHODS = (*DDF, "lr")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Power:
    """How often a test rejects.

    Attributes
    ----------
    power : share of the draws in which p < alpha
    lower, upper : its exact 95 % Monte Carlo interval (Clopper and Pearson 1934)
    n_rejected, n_tested : draws
    n_failed : draws without a test, left out
    alpha : level of the test
    label, method : of the test
    effect : L beta of the hypothesis under the parameters drawn from
    p_values : (draws,), NaN where there is no test
    notes : what a reader must know besides the numbers
    """

    power: float
    lower: float
    upper: float
    n_rejected: int
    n_tested: int
    n_failed: int
    alpha: float
    label: str
    method: str
    effect: Vector
    p_values: pd.Series
    notes: tuple[str, ...]


def power(
    fit: Fit,
    test: object,
    nsim: int = 1000,
    *,
    params: Mapping[str, float] | None = None,
    newdata: object = None,
    method: str = "satterthwaite",
    alpha: float = 0.05,
    seed: object = None,
    workers: Workers = 1,
    progress: bool | None = None,
) -> Power:
    """Estimate the power of a test of fixed effects by simulation.

    Parameters
    ----------
    test : name of a fixed term (type III) or of a coefficient, or a contrast as a
        string of equations, mapping or matrix
    params : parameters to draw with instead of the estimates, by the names that
        `bootstrap` gives them: ``{"Days": 5.0, "sd(Subject: Days)": 3.0}``
    newdata : a table with the model's columns except the response, for another design:
        more groups, more rows in each
    method : "satterthwaite", "kenward-roger", "asymptotic" F tests, or "lr", the
        likelihood-ratio test by ML
    alpha : level of the test

    Raises
    ------
    InferenceError : unknown coefficient, test or method; parameters that are no
        covariance; a design that does not determine the coefficients
    """
    require_free(fit, "The power of a test")
    nsim = require_count(nsim)
    require_alpha(alpha)
    _require_method(method)
    L, rhs, label = read_test(fit, test)
    truth = changed_parameters(fit, params or {})
    simulator = simulator_of(fit, truth)
    if newdata is not None:
        rows = read_new_rows(fit, newdata)
        simulator = new_simulator(fit, truth, rows)
        fit = fit_of_new_rows(fit, rows, simulator, seed)
    measure = _measure(fit, truth, method, (L, rhs))
    work = partial(replicate, simulator, measure)
    with Progress(progress, nsim, "refits") as bar:
        draws = list(chunks(simulator, nsim, seed))
        part = run_chunks(work, draws, workers, bar)
    require_some(part, "The test")
    return _judged(part, alpha, nsim, label=label, method=method, effect=L @ truth.beta)


def _judged(part: Part, alpha: float, nsim: int, **what: Any) -> Power:
    """Count the rejections."""
    p_values = part.values[:, 0]
    finite = p_values[np.isfinite(p_values)]
    rejected = int(np.sum(finite < alpha))
    interval = binomtest(rejected, len(finite)).proportion_ci(0.95, method="exact")
    return Power(
        power=rejected / len(finite),
        lower=float(interval.low),
        upper=float(interval.high),
        n_rejected=rejected,
        n_tested=len(finite),
        n_failed=len(p_values) - len(finite),
        alpha=alpha,
        p_values=pd.Series(p_values, name="p_value"),
        notes=notes_of(part, nsim),
        **what,
    )


def _require_method(method: object) -> None:
    if method not in METHODS:
        raise InferenceError(
            f"Unknown method {method!r}.",
            hint=suggest(str(method), METHODS, "Methods"),
        )


def read_test(fit: Fit, test: object) -> tuple[Matrix, Vector, str]:
    """Return L (r, p), rhs (r,) and the name of a test.

    Raises
    ------
    InferenceError : no such term or coefficient; a contrast that is not estimable
    """
    fixed = fit.design.fixed
    if isinstance(test, str) and test not in fixed.names:
        terms = hypotheses(term_space(fit.design), 3) if fixed.kept else {}
        if test in terms and len(terms[test]):
            return terms[test], np.zeros(len(terms[test])), test
    if isinstance(test, str) and test in fixed.names:
        test = {test: 1.0}
    L, rhs, labels = read_contrast(test, 0, fixed.names)
    name = ", ".join(labels)
    if isinstance(test, Mapping) and len(test) == 1:
        name = str(next(iter(test)))
    return require_estimable(L, fixed), rhs, name


def changed_parameters(fit: Fit, changes: Mapping[str, float]) -> Parameters:
    """Return the estimates with some parameters replaced.

    Parameters
    ----------
    changes : by the names of `parameter_names`

    Raises
    ------
    InferenceError : unknown name, a value that is not finite, or no covariance
    """
    names = parameter_names(fit)
    for name, value in changes.items():
        if name not in names:
            raise InferenceError(
                f"There is no parameter {name!r}.",
                hint=suggest(str(name), names, "Parameters"),
            )
        if not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise InferenceError(f"The parameter {name!r} is {value!r}, not a number.")
    if not changes:
        return parameters(fit)
    values = dict(zip(names, parameter_values(fit), strict=True)) | dict(changes)
    p, ordered = len(fit.beta), [float(values[name]) for name in names]
    end = len(names) - len(residual_names(fit))
    sigma, rho = from_natural(fit, ordered[end:])
    rest, T = ordered[p:end], []
    for block in fit.design.blocks:
        coupled = block.term.structure != "diag"
        size = block.k * (block.k + 1) // 2 if coupled else block.k
        Sigma = _covariance(block, rest[:size])
        rest = rest[size:]
        tolerance = 1e-12 * float(Sigma.max(initial=0.0)) / sigma**2
        T.append(semidefinite_cholesky(Sigma / sigma**2, tolerance))
    beta = np.array(ordered[:p])
    return Parameters(beta=beta, sigma=sigma, T=tuple(T), rho=rho)


def _covariance(block: RandomBlock, values: Sequence[float]) -> Matrix:
    """Return Var(b) (k, k) from k SDs and the correlations, lower triangle by columns.

    Raises
    ------
    InferenceError : there is no such covariance
    """
    k = block.k
    sd, correlation = np.array(values[:k]), np.eye(k)
    if len(values) > k:
        columns, rows = np.triu_indices(k, 1)
        # Undefined where a variance is estimated as zero.
        correlation[rows, columns] = np.nan_to_num(values[k:])
        correlation[columns, rows] = correlation[rows, columns]
    lowest = float(np.linalg.eigvalsh(correlation)[0])
    if np.any(sd < 0.0) or lowest < -1e-8:
        raise InferenceError(
            f"The parameters of {block.term.source} are no covariance: SDs "
            f"{sd.tolist()}, smallest eigenvalue of the correlations {lowest:.3g}.",
            hint="SDs must not be negative, correlations within -1 and 1.",
        )
    return correlation * np.outer(sd, sd)


def _measure(
    fit: Fit, truth: Parameters, method: str, hypothesis: tuple[Matrix, Vector]
) -> Measure:
    if method != "lr":
        refitter = Refitter(fit, start=truth.T, rho=_start_of(fit, truth))
        if method == "asymptotic" and np.linalg.matrix_rank(hypothesis[0]) == len(
            hypothesis[0]
        ):
            return WaldMeasure(refitter, hypothesis)
        return FTestMeasure(refitter, hypothesis, method)
    larger = refit(fit, method="ML")
    small_design = restricted(larger.design, *hypothesis)
    smaller = estimate(small_design, method="ML", control=Control())
    rho = _start_of(fit, truth)
    refitters = [Refitter(f, start=truth.T, rho=rho) for f in (smaller, larger)]
    return RatioTestMeasure(RatioMeasure(*refitters), len(hypothesis[0]))


def _start_of(fit: Fit, truth: Parameters) -> Vector | None:
    """Return the residual parameters drawn with, if they are those of this design."""
    return truth.rho if len(truth.rho) == fit.evaluation.problem.n_rho else None


class FTestMeasure:
    """The p value of the F test of L beta = rhs."""

    n_values = 1

    def __init__(
        self, refitter: Refitter, hypothesis: tuple[Matrix, Vector], ddf: str
    ) -> None:
        self.refitter, self.hypothesis, self.ddf = refitter, hypothesis, ddf
        self.stack_size = refitter.stack_size
        approximate(refitter.fit, ddf)  # what it refuses, it refuses at once

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        values = np.full((Y.shape[1], 1), np.nan)
        failures: dict[int, str] = {}

        def visit(j: int, refitted: Fit) -> None:
            try:
                approximation = approximate(refitted, self.ddf)
                values[j] = f_test(*self.hypothesis, refitted, approximation)[3]
            except InferenceError as failure:
                failures[j] = failure.one_line

        refits = self.refitter(Y, visit)
        for j in np.flatnonzero(np.isnan(values[:, 0])).tolist():
            failures.setdefault(j, "the test has no p value")
        return values, refits.failures | failures, [refits]


class WaldMeasure:
    """The asymptotic p value for L of full row rank, without a record of each fit."""

    n_values = 1

    def __init__(self, refitter: Refitter, hypothesis: tuple[Matrix, Vector]) -> None:
        self.refitter, self.hypothesis = refitter, hypothesis
        self.stack_size = refitter.stack_size

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        L, rhs = self.hypothesis
        refits = self.refitter(Y)
        gap = refits.beta @ L.T - rhs
        fitted = np.isfinite(refits.sigma)
        chisq = np.full(len(gap), np.nan)
        V = L @ refits.V_beta[fitted] @ L.T
        scaled = np.linalg.solve(V, gap[fitted][:, :, None])[:, :, 0]
        chisq[fitted] = np.einsum("ri,ri->r", gap[fitted], scaled)
        return chdtrc(len(L), chisq)[:, None], refits.failures, [refits]


class RatioTestMeasure:
    """The chi-square p value of a likelihood ratio."""

    n_values = 1

    def __init__(self, ratios: RatioMeasure, num_df: int) -> None:
        self.ratios, self.num_df = ratios, num_df
        self.stack_size = ratios.stack_size

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        values, failures, refits = self.ratios(Y)
        return chdtrc(self.num_df, np.maximum(values, 0.0)), failures, refits
