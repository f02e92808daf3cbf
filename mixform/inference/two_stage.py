"""Two stages estimated in every way, their tables, and the mixed model beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mixform._typing import Matrix, Stack, Vector
from mixform.design.between import Between, first_few
from mixform.errors import DesignError, InferenceError
from mixform.estimate import Fit
from mixform.estimate.second_stage import (
    Moments,
    Regression,
    generalized_least_squares,
    is_covariance,
    least_squares,
    positive_definite,
)
from mixform.estimate.subjects import SubjectFits
from mixform.inference.contrast_tests import two_sided
from mixform.inference.intervals import require_level
from mixform.inference.variance_components import covariances

#: How D is corrected for the sampling errors of the first stage.
CORRECTIONS = ("moment", "reml", "ml")

_DIFFERS = (
    "A factor is coded by all its levels where its main effect is not in the mixed "
    "model: keep the intercept in the second stage. What is computed from all values "
    "(poly, scale, bs) differs where subjects lack covariates: make it a column."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoStage:
    """The second stage of m subjects with k coefficients, as estimated.

    Attributes
    ----------
    fits : the first stage
    between : the covariates
    S : (m, k, k) sampling covariances of the coefficients
    moments : least squares, D naive and by moments
    D : (k, k) the covariance that generalized least squares uses
    source : where D comes from: "moment", "reml", "ml" or "given"
    gls : None where a subject's covariance is not positive definite
    """

    fits: SubjectFits
    between: Between
    S: Stack
    moments: Moments
    D: Matrix
    source: str
    gls: Regression | None

    @property
    def index(self) -> pd.MultiIndex:
        """Pairs of coefficient and covariate, (q,)."""
        pairs = [
            (name, covariate)
            for name, covariates in zip(
                self.fits.names, self.between.names, strict=True
            )
            for covariate in covariates
        ]
        return pd.MultiIndex.from_tuples(pairs, names=["coefficient", "covariate"])

    @property
    def m(self) -> int:
        """Number of subjects in the second stage."""
        return len(self.S)


def sampling_covariances(
    fits: SubjectFits, between: Between, sigma: float | None
) -> Stack:
    """Return sigma_i^2 (Z_i' Z_i)^-1 of the subjects in the second stage, (m, k, k).

    Parameters
    ----------
    sigma : residual standard deviation of all subjects, in place of the estimated one

    Raises
    ------
    InferenceError : sigma is no positive number; no degrees of freedom to estimate it
    """
    if sigma is not None and not (np.isfinite(sigma) and sigma >= 0.0):
        raise InferenceError(
            f"sigma is {sigma}, not a residual standard deviation.",
            hint="Give a number that is not negative.",
        )
    if sigma is None and np.isnan(fits.variances).any():
        raise InferenceError(
            "No subject has more rows than coefficients: the residual variance, and "
            "so the sampling errors of the first stage, cannot be estimated.",
            hint="Give sigma=, or use fewer coefficients.",
        )
    variances = fits.variances if sigma is None else np.full(fits.m, sigma**2)
    return variances[between.kept, None, None] * fits.unscaled[between.kept]


def second_stage(
    fits: SubjectFits,
    between: Between,
    S: Stack,
    D: Matrix | None = None,
    source: str = "moment",
) -> TwoStage:
    """Estimate the second stage.

    Parameters
    ----------
    S : from `sampling_covariances`
    D : (k, k), in place of the estimate by moments
    source : where D comes from
    """
    coefficients = fits.coefficients[between.kept]
    moments = least_squares(coefficients, S, between)
    used = moments.D if D is None else D
    return TwoStage(
        fits=fits,
        between=between,
        S=S,
        moments=moments,
        D=used,
        source=source,
        gls=generalized_least_squares(coefficients, S, between, used),
    )


def given_covariance(D: object, names: tuple[str, ...]) -> Matrix:
    """Return D as the user gave it, (k, k), a frame by its labels.

    Raises
    ------
    InferenceError : not k x k, not symmetric, not finite; other labels
    """
    if isinstance(D, pd.DataFrame):
        if set(D.index) != set(names) or set(D.columns) != set(names):
            raise InferenceError(
                "The labels of D are not the coefficients of the first stage.",
                hint=f"Coefficients: {', '.join(names)}.",
            )
        D = D.loc[list(names), list(names)].to_numpy()
    try:
        values = np.asarray(D, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    k = len(names)
    if values.shape != (k, k) or not np.isfinite(values).all():
        raise InferenceError(
            f"D is not a covariance of {k} coefficients.",
            hint=f"Give {k} x {k} numbers, in the order {', '.join(names)}.",
        )
    if not np.allclose(values, values.T, rtol=1e-8, atol=0.0):
        raise InferenceError("D is not symmetric.", hint="Give D = D'.")
    return 0.5 * (values + values.T)


def coefficient_table(record: TwoStage, estimate: Regression | None) -> pd.DataFrame:
    """Return ``estimate, se, df, t_value, p_value`` by coefficient and covariate.

    The degrees of freedom are m - q_c, exact for least squares where all subjects have
    the same times. NaN without an estimate.
    """
    q = record.between.width
    beta, se = np.full(q, np.nan), np.full(q, np.nan)
    if estimate is not None:
        beta, se = estimate.beta, np.sqrt(np.diag(estimate.V_beta))
    ranks = record.between.ranks
    den_df = np.repeat([float(record.m - rank) for rank in ranks], ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = beta / se
    return pd.DataFrame(
        {
            "estimate": beta,
            "se": se,
            "df": den_df,
            "t_value": t_values,
            "p_value": two_sided(t_values, den_df),
        },
        index=record.index,
    )


def limits_table(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return ``lower, upper`` of a `coefficient_table`.

    Raises
    ------
    InferenceError : level outside (0, 1)
    """
    require_level(level)
    width = stdtrit(table["df"], 0.5 * (1.0 + level)) * table["se"]
    estimate = table["estimate"]
    return pd.DataFrame({"lower": estimate - width, "upper": estimate + width})


def covariance_frame(D: Matrix, fits: SubjectFits) -> pd.DataFrame:
    """Return a covariance of the coefficients, (k, k), with their names."""
    return pd.DataFrame(D, index=list(fits.names), columns=list(fits.names))


def notes_of(record: TwoStage) -> list[str]:
    """Return what a reader must know besides the numbers."""
    notes: list[str] = []
    if record.between.missing:
        lost = record.between.missing
        notes.append(
            f"{len(lost)} subject{'s' if len(lost) > 1 else ''} dropped for missing "
            f"covariates: {first_few(lost)}."
        )
    if not is_covariance(record.D, record.moments.D_naive):
        notes.append(f"{_indefinite(record)}, and is shown as it is.")
    if record.gls is None:
        short = ~positive_definite(record.D + record.S)
        labels = record.fits.levels[record.between.kept][short]
        notes.append(
            f"no generalized least squares: D + S is not positive definite for "
            f"{len(labels)} of {record.m} subjects ({first_few(labels)})."
        )
    return notes


def _indefinite(record: TwoStage) -> str:
    """Say in which way D is no covariance matrix."""
    what = {"moment": "the corrected D", "given": "the given D"}
    start = what.get(record.source, f"D by {record.source.upper()}")
    variances = dict(zip(record.fits.names, np.diag(record.D), strict=True))
    negative = [f"{n} {v:.4g}" for n, v in variances.items() if v < 0.0]
    if negative:
        return f"{start} has negative variances ({', '.join(negative)})"
    return f"{start} has variances but correlations that no covariance matrix has"


def single_stage_columns(fit: Fit, record: TwoStage) -> list[int]:
    """Return for each coefficient and covariate its column of the mixed model.

    Raises
    ------
    DesignError : the columns of the mixed model are not Z_i W_i
    """
    names = list(fit.design.fixed.names)
    expected = expected_columns(record)
    X, places = fit.design.fixed.coded.values, list[int]()
    for j, (coefficient, covariate) in enumerate(record.index):
        name = product_name(coefficient, covariate)
        place = names.index(name) if name in names else -1
        column = expected[:, j]
        same = place >= 0 and X.shape[0] == len(column)
        scale = float(np.max(np.abs(column), initial=0.0))
        if not same or np.max(np.abs(X[:, place] - column)) > 1e-10 * scale:
            raise DesignError(
                f"The column {name!r} of the mixed model is not the product of "
                f"{coefficient!r} and {covariate!r} in two stages.",
                hint=_DIFFERS,
            )
        places.append(place)
    if len(places) != len(names):
        raise DesignError(
            f"The mixed model has {len(names)} coefficients, the two stages "
            f"{len(places)}.",
            hint=_DIFFERS,
        )
    return places


def expected_columns(record: TwoStage) -> Matrix:
    """Return Z_i W_i of the rows of the subjects in the second stage, (n', q)."""
    design, between = record.fits.design, record.between
    codes = design.blocks[0].codes
    rows = between.kept[codes]
    place = np.cumsum(between.kept) - 1
    subject = place[codes[rows]]
    Z = design.fixed.coded.values[rows]
    columns = [
        Z[:, [c]] * between.columns[c][subject] for c in range(len(between.names))
    ]
    return np.concatenate(columns, axis=1)


def product_name(coefficient: str, covariate: str) -> str:
    """Return the name of a product of columns.

    Examples
    --------
    >>> product_name("time", "trt[T.b]"), product_name("time", "Intercept")
    ('time:trt[T.b]', 'time')
    """
    if coefficient == "Intercept":
        return covariate
    return coefficient if covariate == "Intercept" else f"{coefficient}:{covariate}"


def three_ways(
    record: TwoStage, fit: Fit, mixed: tuple[Vector, Vector]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set two stages and one beside each other.

    Parameters
    ----------
    fit : the mixed model
    mixed : (q,) estimates and standard errors of the mixed model, in this order

    Returns
    -------
    fixed : ``naive, naive_se, gls, gls_se, mixed, mixed_se``
    variances : ``naive, gls, mixed`` by pair of coefficients, and the residual variance
    """
    naive = coefficient_table(record, record.moments.naive)
    gls = coefficient_table(record, record.gls)
    fixed = pd.DataFrame(
        {
            "naive": naive["estimate"],
            "naive_se": naive["se"],
            "gls": gls["estimate"],
            "gls_se": gls["se"],
            "mixed": mixed[0],
            "mixed_se": mixed[1],
        },
        index=record.index,
    )
    names = record.fits.names
    r, c = np.tril_indices(len(names))
    order = np.lexsort((r, c, r != c))
    r, c = r[order], c[order]
    pairs = [(names[j], names[i]) for i, j in zip(r, c, strict=True)]
    residual = record.fits.pooled_variance
    columns = {
        "naive": [*record.moments.D_naive[r, c], residual],
        "gls": [*record.D[r, c], residual],
        "mixed": [*covariances(fit)[0][r, c], fit.sigma**2],
    }
    index = pd.MultiIndex.from_tuples(
        [*pairs, ("Residual", "")], names=["var1", "var2"]
    )
    return fixed, pd.DataFrame(columns, index=index)
