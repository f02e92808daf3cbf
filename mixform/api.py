"""`fit`, and what takes several models or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import pandas as pd

from mixform import lme4, storage
from mixform.call import make_call
from mixform.errors import InferenceError
from mixform.estimate import Control, Fit
from mixform.inference import scan as association
from mixform.inference.posterior.refusals import refuse_model
from mixform.inference.resampling import bootstrap_test
from mixform.inference.selection import comparison
from mixform.report.bootstrap import Printed, printed_bootstrap_test
from mixform.report.comparison import ComparisonTable, comparison_table
from mixform.result import BayesResult, LmList, Result
from mixform.result.fitted import fitted
from mixform.result.stages import first_stage


class FitOptions(TypedDict, total=False):
    """Arguments of `fit` that do not decide what it returns."""

    weights: object
    offset: object
    contrasts: Mapping[str, object] | None
    subset: object
    missing: Literal["drop", "raise"]
    relationship: Mapping[str, object] | None
    varcomp: Mapping[str, object] | None
    residual: str | None
    dispersion: str | None
    start: object
    control: Control | Mapping[str, object] | None
    prior: Mapping[str, object] | None
    progress: bool | None


@overload
def fit(
    formula: str,
    data: object,
    *,
    method: Literal["REML", "ML", "ANOVA"] = "REML",
    **options: Unpack[FitOptions],
) -> Result: ...
@overload
def fit(
    formula: str,
    data: object,
    *,
    method: Literal["Bayes"],
    **options: Unpack[FitOptions],
) -> BayesResult: ...
def fit(
    formula: str,
    data: object,
    *,
    method: Literal["REML", "ML", "ANOVA", "Bayes"] = "REML",
    weights: object = None,
    offset: object = None,
    contrasts: Mapping[str, object] | None = None,
    subset: object = None,
    missing: Literal["drop", "raise"] = "drop",
    relationship: Mapping[str, object] | None = None,
    varcomp: Mapping[str, object] | None = None,
    residual: str | None = None,
    dispersion: str | None = None,
    start: object = None,
    control: Control | Mapping[str, object] | None = None,
    prior: Mapping[str, object] | None = None,
    progress: bool | None = None,
) -> Result | BayesResult:
    """Fit a linear mixed model, ``y = X beta + Z b + e``.

    Parameters
    ----------
    formula : as lme4's: ``(1 + time | id)``, ``(x || g)``, ``(1 | a/b)``; the rest is
        formulaic's with R's ``I(x^2)``, ``factor(x)``, ``offset(z)``, ``.``. Structures
        before a bracket: diag cs csh ar1 arh1 toep toeph exp fa1 rr(.., d=2), SAS's
    data : pandas, polars or pyarrow table, mapping of columns, path to CSV or Parquet
    method : "REML", "ML", "ANOVA" (mean squares), or "Bayes" (draws: `BayesResult`)
    weights, offset : column name, or a value for each row; Var(e_i) = sigma^2 / w_i
    contrasts : factor -> "treatment", "sum", "helmert", "poly", "full" or a matrix
    subset : boolean for each row, or a condition on the columns as a string
    missing : rows with missing values: "drop" (counted in the printout) or "raise"
    relationship : ``{"animal": ...}``: `Pedigree`, table of it, covariance, `genomic`,
        `loading`, `single_step`, `precision`; ``iid(1 | animal)`` ignores it
    varcomp : variances held, ``{"animal": 20.0, "residual": 40.0}``; see `ratio`
    residual : ``"us(visit | id)"``; also cs, csh, ar1, arh1, car1, toep, toeph, ante1,
        diag, exp, gau, mat; ``arm/id`` gives each arm its parameters
    dispersion : of the log residual standard deviation, ``"~ sex"``
    start, control : theta (t,) to start from; options as `Control`, `Sampling`, `Sums`
    prior : for "Bayes", ``{"Subject": [priors.half_t(3, 50), priors.lkj(2)]}``
    progress : show a bar; None after a few seconds, if tqdm is installed

    Raises
    ------
    FormulaError, DesignError, SolverError : of formula or data, or no solution

    Examples
    --------
    >>> import mixform as mf
    >>> m = mf.fit("gain ~ group", mf.datasets.load("pigs"))  # means 52.33 and 61.33
    >>> f"{m.params['group[T.Treatment]']:.4f}"
    '9.0000'
    """
    call = make_call(
        formula, data, method=method, weights=weights, offset=offset,
        contrasts=contrasts, subset=subset, missing=missing, relationship=relationship,
        varcomp=varcomp, residual=residual, dispersion=dispersion, start=start,
        control=control, prior=prior,
    )  # fmt: skip
    return fitted(call, progress)


def lm_list(
    formula: str,
    data: object,
    *,
    weights: object = None,
    subset: object = None,
    missing: Literal["drop", "raise"] = "drop",
    pool: bool = True,
    too_few: Literal["raise", "drop"] = "raise",
) -> LmList:
    """Fit a regression to each subject by least squares; nlme's lmList.

    The first of two stages of longitudinal data; the result's ``second_stage("~ trt")``
    is the second, ``single_stage("~ trt")`` the mixed model that both make.

    Parameters
    ----------
    formula : ``"y ~ time + I(time^2) | id"``, right of the bar the subject. Factors,
        poly() and the like are coded once, for all subjects
    data, weights, subset, missing : as in `fit`
    pool : one residual variance of all subjects for standard errors and tests; False
        for each subject's own
    too_few : subjects whose rows do not determine the coefficients (and with
        ``pool=False`` a variance): "raise" an error that names them, or "drop" them,
        named in the notes

    Raises
    ------
    FormulaError, DesignError : of formula or data; subjects with too few rows

    Examples
    --------
    >>> import mixform as mf
    >>> data = {"id": list("aaabbb"), "t": [0, 1, 2] * 2, "y": [0, 1, 2, 3, 3, 6]}
    >>> m = mf.lm_list("y ~ t | id", data)  # a: 0 + t exactly; b: 2.5 + 1.5 t
    >>> m.coefficients.round(9).loc["b"].tolist(), m.df_resid
    ([2.5, 1.5], 2)
    >>> f"{m.sigma**2:.4f}"  # residuals of b: 0.5, -1, 0.5; 1.5 over 2
    '0.7500'
    """
    call = make_call(formula, data, weights=weights, subset=subset, missing=missing)
    fits, notes = first_stage(call, pool=pool, too_few=too_few)
    return LmList(fits, call, notes)


def compare(
    *models: Result,
    names: Sequence[str] | None = None,
    refit: bool | None = None,
    progress: bool | None = None,
) -> ComparisonTable:
    """Compare models of the same rows, each with the next smaller one.

    Parameters
    ----------
    names : of the models; m1, m2, ... if None
    refit : by ML; None does where the fixed effects differ, since restricted
        likelihoods of different fixed effects do not compare

    Returns
    -------
    frame : ``npar, aic, bic, llf, deviance, chisq, num_df, p_value, p_mixture``

    Raises
    ------
    InferenceError : one model only; other rows, response or weights
    """
    fits = [_fit_of(model) for model in models]
    table = comparison.compare(fits, names, refit=refit, progress=progress)
    return comparison_table(*table)


def bootstrap_lrt(
    smaller: Result,
    larger: Result,
    nsim: int = 1000,
    *,
    seed: object = None,
    workers: int | Callable[..., Any] = 1,
    progress: bool | None = None,
) -> Printed:
    """Test the smaller of two nested models by the parametric bootstrap.

    The likelihood ratio is compared with those of responses simulated from the smaller
    model: no chi-square, which is wrong for variances and small samples.

    Raises
    ------
    InferenceError : other rows; the smaller model is not part of the larger one
    """
    return printed_bootstrap_test(
        bootstrap_test.bootstrap_lrt(
            _fit_of(smaller),
            _fit_of(larger),
            nsim,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    )


def scan(
    model: Result,
    markers: object,
    *,
    by: str | None = None,
    ids: object = None,
    missing: float | None = None,
) -> pd.DataFrame:
    """Test each marker as a fixed effect, given the fitted variances (EMMAX, P3D).

    Parameters
    ----------
    markers : frame or array of genotypes, a column for each marker; a row for each row
        of the data, or for each level of ``by``. Missing ones count as the marker's
        mean
    by : grouping factor whose levels the rows of ``markers`` are
    ids : labels of the rows of ``markers``, or its column that holds them; None for the
        index of a pandas frame
    missing : value that stands for a missing genotype in whole numbers, as NaN does

    Returns
    -------
    frame : by marker, ``effect, se, t_value, p_value``; NaN for markers without
        variation, which ``attrs["notes"]`` counts

    Raises
    ------
    InferenceError : no numbers; a row or level without genotypes, named
    """
    return association.scan(_fit_of(model), markers, by=by, ids=ids, missing=missing)


def load(path: str | Path) -> Result:
    """Read a model that `Result.save` wrote, with this or an earlier version.

    Raises
    ------
    MixformError : the file is none of ours, of a later format, or damaged
    """
    return Result(*storage.load(path))


def compare_lme4(
    model: Result,
    *,
    rscript: str = "Rscript",
    program_only: bool = False,
    saved: str | Path | None = None,
    timeout: float | None = 600.0,
) -> lme4.SideBySide | lme4.RProgram:
    """Fit the same model in R's lme4 and lmerTest, and set the two side by side.

    Parameters
    ----------
    rscript : the program that runs R
    program_only : return the R program and its data, and run nothing
    saved : output of that program to read instead, where there is no R
    timeout : seconds after which R is stopped

    Raises
    ------
    MixformError : R, lme4 or lmerTest is missing; the formula has no R counterpart
    """
    fit = _fit_of(model)
    if program_only:
        return lme4.r_program(fit)
    return lme4.compare_lme4(
        fit,
        model._call,
        model._coefficients,
        rscript=rscript,
        saved=saved,
        timeout=timeout,
    )


def _fit_of(model: object) -> Fit:
    if isinstance(model, BayesResult):
        refuse_model("likelihood that was maximized")
    if not isinstance(model, Result):
        raise InferenceError(
            f"A {type(model).__name__} is no fitted model.",
            hint="Give what mixform.fit() returned.",
        )
    return model._fit
