"""`fit`, and what takes several models or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from mixform import lme4, storage
from mixform._typing import Matrix
from mixform.call import make_call, run, warn_of
from mixform.design import ColumnSpace, matrix_part
from mixform.errors import InferenceError
from mixform.estimate import Control, Fit
from mixform.inference import scan as association
from mixform.inference.estimability import read_contrast
from mixform.inference.estimable import Estimability, estimability, row_namer
from mixform.inference.general_linear import as_matrix, solve_general_linear
from mixform.inference.resampling import bootstrap_test
from mixform.inference.selection import comparison
from mixform.mme.matrix_level import column_names
from mixform.report.bootstrap import Printed, printed_bootstrap_test
from mixform.report.comparison import ComparisonTable, comparison_table
from mixform.report.general_linear import printed_general_linear
from mixform.result import LmList, Result
from mixform.result.stages import first_stage


def fit(
    formula: str,
    data: object,
    *,
    method: Literal["REML", "ML", "ANOVA"] = "REML",
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
    progress: bool | None = None,
) -> Result:
    """Fit a linear mixed model, ``y = X beta + Z b + e``.

    Parameters
    ----------
    formula : as lme4's: ``(1 + time | id)``, ``(x || g)``, ``(1 | a/b)``; the rest is
        formulaic's with R's ``I(x^2)``, ``factor(x)``, ``offset(z)``, ``.``. Structures
        before a bracket: diag cs csh ar1 arh1 toep toeph exp fa1 rr(.., d=2), SAS's
    data : pandas, polars or pyarrow table, mapping of columns, path to CSV or Parquet
    method : "REML", "ML" or "ANOVA" (mean squares; see `Result.mean_squares`)
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
    start, control : theta (t,) to start from; options of the search, as `Control`
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
        control=control,
    )  # fmt: skip
    record = run(call, progress)
    warn_of(record)
    return Result(record, call)


def gls(
    y: object,
    X: object,
    V: object = None,
    *,
    sigma2: float | None = None,
    solution: object = "set-to-zero",
) -> Printed:
    """Solve the general linear model of given matrices, ``y = X beta + e``.

    Parameters
    ----------
    y : (n,); X : (n, c) of any rank, an array, sparse matrix, or frame whose columns
        name the coefficients (else x1, x2, ...)
    V : Var(e) = sigma^2 V: None (ordinary least squares), a diagonal (weighted), or a
        matrix (n, n), dense or sparse (generalized)
    sigma2 : if it is known; 1 if V is Var(y) itself. None estimates RSS / (n - rank)
    solution : where X is not of full rank "set-to-zero" for columns that are
        combinations of earlier ones, "moore-penrose" (least length), or side
        conditions such as ``"x2 + x3 = 0"``

    Returns
    -------
    what prints as R's lm, with ``.params, .bse, .cov_params(), .estimable, .rss,
    .sigma2, .sigma2_ml, .rsquared, .rsquared_adj, .f_value, .p_value, .llf``,
    ``.estimate(K), .test(K, rhs), .blup(C), .pev(C, G)``

    Raises
    ------
    DesignError : shapes, values not finite, V not positive definite, side conditions
        that do not pick one solution

    Examples
    --------
    The pigs of a lecture, y = mu + delta_i: one solution, but the difference is 9.

    >>> X = [[1, 1, 0]] * 3 + [[1, 0, 1]] * 3
    >>> m = gls([53, 46, 58, 61, 66, 57], X)
    >>> m.params.round(3).tolist(), m.estimable.tolist()
    ([61.333, -9.0, 0.0], [False, False, False])
    >>> m.estimate([0, -1, 1])[0].round(9).tolist(), round(m.rss, 6)
    ([9.0], 113.333333)
    """
    record = solve_general_linear(y, X, V, sigma2=sigma2, solution=solution)
    return printed_general_linear(record)


def estimable(model: object, K: object = None) -> Estimability:
    """Tell which rows of K beta are estimable, and why.

    Parameters
    ----------
    model : what `fit`, `gls` or `MixedModelEquations.solve` returned, or X itself, a
        matrix or frame (n, c)
    K : matrix, mapping or string, as `Result.test` takes it; None for each
        coefficient by itself

    Returns
    -------
    true if all rows are; prints for each the expectations of observations that it is,
    or a change of beta that no observation tells but which changes it

    Examples
    --------
    >>> X = [[1, 1, 0], [1, 1, 0], [1, 0, 1]]
    >>> bool(estimable(X, "x2 - x3 = 0"))
    True
    >>> print(estimable(X, {"x2": 1}))
    contrast: not estimable
        adding -1 to x1 and 1 to x2, x3 leaves all fitted values as they are, but
        changes this function by 1
    """
    columns, space, name_row = _columns_of(model)
    if K is None:
        L, labels = np.eye(len(space.names)), space.names
    else:
        L, _, labels = read_contrast(K, 0, space.names)
    return estimability(columns, space, L, labels, name_row)


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


def _columns_of(model: Any) -> tuple[Matrix, ColumnSpace, Callable[[int], str]]:
    """Return X, what it determines, and how its rows are described."""
    if isinstance(model, Result):
        fixed = model._fit.design.fixed
        return fixed.coded.values, fixed.space, row_namer(model._fit)
    if hasattr(model, "space"):
        return as_matrix(model.X, "X"), model.space, _numbered
    columns = as_matrix(model, "X")
    return columns, matrix_part(columns, column_names(model)).space, _numbered


def _numbered(i: int) -> str:
    return f"row {i + 1}"


def _fit_of(model: object) -> Fit:
    if not isinstance(model, Result):
        raise InferenceError(
            f"A {type(model).__name__} is no fitted model.",
            hint="Give what mixform.fit() returned.",
        )
    return model._fit
