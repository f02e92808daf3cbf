"""A fit as plain frames with the columns of R's broom.mixed (Bolker and Robinson).

`tidy` has a row for each parameter, `glance` one for the model, `augment` one for each
observation. Names of columns are broom.mixed's, dots included; names of coefficients
are those of the fit, so that the intercept is ``Intercept`` and its standard deviation
``sd__Intercept``, where R writes ``(Intercept)`` and ``sd__(Intercept)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform.design.frame import Table
from mixform.errors import DesignError, InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.diagnostics.residuals import cooks_distance
from mixform.inference.intervals import symmetric_interval
from mixform.inference.leverage import leverage
from mixform.inference.likelihood import aic, bic
from mixform.inference.natural_parameters import residual_limits
from mixform.inference.prediction import fitted
from mixform.inference.random_effects import coef, ranef
from mixform.inference.residual_structure import residual_parameters
from mixform.inference.variance_components import block_labels, varcorr

#: Columns of `tidy` in order; those that no effect asked for has are left out.
COLUMNS = (
    "effect",
    "group",
    "level",
    "term",
    "estimate",
    "std.error",
    "statistic",
    "df",
    "p.value",
    "conf.low",
    "conf.high",
)

#: scale= -> column of `varcorr`, prefix of a variance, prefix of a covariance.
SCALES = {"sdcor": ("sd", "cor"), "vcov": ("var", "cov")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Request:
    """What `tidy` was asked for, and of which fit."""

    fit: Fit
    coefficients: pd.DataFrame
    scale: str
    level: float | None
    conf_method: str


def tidy(
    fit: Fit,
    coefficients: pd.DataFrame,
    *,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    scale: str = "sdcor",
    conf_int: bool = False,
    level: float = 0.95,
    conf_method: str = "satterthwaite",
) -> pd.DataFrame:
    """Return the parameters, a row for each.

    Parameters
    ----------
    coefficients : estimate, se, df, t_value, p_value by name, as from `t_tests`
    effects : "fixed"; "ran_pars", the variance parameters, term by term in the order
        of the lower triangle, then the parameters of a residual structure with their
        errors and limits; "ran_vals", the random effects with their conditional SE;
        "ran_coefs", fixed plus random effects; or several of them
    scale : of "ran_pars": "sdcor" for standard deviations and correlations, "vcov" for
        variances and covariances
    conf_int, level : whether to add ``conf.low, conf.high``, and their level; normal
        quantiles for "ran_vals", NaN for "ran_pars" and "ran_coefs"
    conf_method : "satterthwaite" or "wald", for "fixed"

    Returns
    -------
    frame : ``effect, group, level, term, estimate, std.error, statistic, df, p.value,
        conf.low, conf.high``, those that apply; NaN where a row has no such thing

    Raises
    ------
    InferenceError : unknown effect, scale or interval method; level outside (0, 1)
    """
    asked = [effects] if isinstance(effects, str) else list(effects)
    for name, known, what in (
        *((name, EFFECTS, "effects") for name in asked),
        (scale, SCALES, "scale"),
    ):
        if name not in known:
            hint = suggest(str(name), known, what.capitalize())
            raise InferenceError(f"Unknown {what} {name!r}.", hint=hint)
    if not asked:
        raise InferenceError("No effects are asked for.", hint='Write "fixed".')
    request = _Request(
        fit=fit,
        coefficients=coefficients,
        scale=scale,
        level=level if conf_int else None,
        conf_method=conf_method,
    )
    parts = [
        EFFECTS[name](request).assign(effect=name) for name in EFFECTS if name in asked
    ]
    return _stacked(parts)


def _stacked(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all parts, and of the columns those that any of them has."""
    names = [n for n in COLUMNS if any(n in part for part in parts)]
    columns = {
        name: [
            value
            for part in parts
            for value in (part[name] if name in part else [_absent(name)] * len(part))
        ]
        for name in names
    }
    return pd.DataFrame(columns, columns=pd.Index(names))


def _absent(column: str) -> object:
    return None if column in {"group", "level"} else np.nan


def _fixed(request: _Request) -> pd.DataFrame:
    table = request.coefficients
    out = pd.DataFrame(
        {
            "group": None,
            "term": list(table.index),
            "estimate": table["estimate"].to_numpy(),
            "std.error": table["se"].to_numpy(),
            "statistic": table["t_value"].to_numpy(),
            "df": table["df"].to_numpy(),
            "p.value": table["p_value"].to_numpy(),
        }
    )
    return _with_limits(out, request, request.conf_method)


def _ran_pars(request: _Request) -> pd.DataFrame:
    own, cross = SCALES[request.scale]
    table = varcorr(request.fit)
    table = table.iloc[_by_triangle(table)]
    terms: list[str] = []
    for one, two in zip(table["var1"], table["var2"], strict=True):
        if isinstance(two, str):
            terms.append(f"{cross}__{one}.{two}")
        else:
            terms.append(f"{own}__{one if isinstance(one, str) else 'Observation'}")
    out = pd.DataFrame(
        {
            "group": table["grp"].tolist(),
            "term": terms,
            "estimate": table[request.scale].to_numpy(),
            "std.error": np.nan,
            **_no_limits(request),
        }
    )
    if request.fit.design.residual is None:
        return out
    return pd.concat([out.iloc[:-1], _residual(request)], ignore_index=True)


def _residual(request: _Request) -> pd.DataFrame:
    """Return the parameters of the residual structure, on their own scale."""
    table = residual_parameters(request.fit)
    out = pd.DataFrame(
        {
            "group": "Residual",
            "term": list(table.index),
            "estimate": table["estimate"].to_numpy(),
            "std.error": table["se"].to_numpy(),
        }
    )
    if request.level is None:
        return out
    limits = residual_limits(request.fit, table, request.level)
    return out.assign(
        **{
            "conf.low": limits["lower"].to_numpy(),
            "conf.high": limits["upper"].to_numpy(),
        }
    )


def _by_triangle(table: pd.DataFrame) -> list[int]:
    """Return the order in which each variance stands before its covariances."""
    rows = list(zip(table["grp"], table["var1"], table["var2"], strict=True))
    own = {(grp, one): i for i, (grp, one, two) in enumerate(rows) if not _named(two)}

    def place(i: int) -> tuple[int, int]:
        grp, one, _ = rows[i]
        return own[grp, one], i

    return sorted(range(len(rows)), key=place)


def _named(value: object) -> bool:
    return isinstance(value, str)


def _ran_vals(request: _Request) -> pd.DataFrame:
    fit = request.fit
    table = ranef(fit)
    groups = {
        label: block.term.group_label
        for label, block in zip(block_labels(fit), fit.design.blocks, strict=True)
    }
    out = pd.DataFrame(
        {
            "group": [groups[label] for label in table["grp"]],
            "level": table["level"].tolist(),
            "term": table["term"].tolist(),
            "estimate": table["estimate"].to_numpy(dtype=np.float64),
            "std.error": table["se"].to_numpy(dtype=np.float64),
        }
    )
    return _with_limits(out, request, "wald")


def _ran_coefs(request: _Request) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "group": group,
                "level": list(table.index),
                "term": name,
                "estimate": table[name].to_numpy(),
                **_no_limits(request),
            }
        )
        for group, table in coef(request.fit).items()
        for name in table.columns
    ]
    empty = pd.DataFrame(columns=["group", "level", "term", "estimate"])
    return pd.concat(frames, ignore_index=True) if frames else empty


#: effects= -> the function that makes its rows, in the order in which they stand.
EFFECTS: dict[str, Callable[[_Request], pd.DataFrame]] = {
    "fixed": _fixed,
    "ran_pars": _ran_pars,
    "ran_vals": _ran_vals,
    "ran_coefs": _ran_coefs,
}


def _with_limits(table: pd.DataFrame, request: _Request, method: str) -> pd.DataFrame:
    if request.level is None:
        return table
    limits = symmetric_interval(
        table["estimate"].to_numpy(),
        table["std.error"].to_numpy(),
        table["df"].to_numpy() if "df" in table else np.full(len(table), np.inf),
        level=request.level,
        method=method,
    )
    return table.assign(**{"conf.low": limits[:, 0], "conf.high": limits[:, 1]})


def _no_limits(request: _Request) -> dict[str, float]:
    return {} if request.level is None else {"conf.low": np.nan, "conf.high": np.nan}


def glance(fit: Fit) -> pd.DataFrame:
    """Return the model in one row.

    Returns
    -------
    frame : ``nobs, sigma, logLik, AIC, BIC``, ``REMLcrit`` or under ML ``deviance``,
        ``df.residual``; logLik is restricted under REML. Under ANOVA, which has no
        likelihood, ``nobs, sigma, df.residual`` only
    """
    if fit.anova is not None:
        left = fit.n - fit.n_parameters
        return pd.DataFrame(
            {"nobs": [fit.n], "sigma": [fit.sigma], "df.residual": [left]}
        )
    return pd.DataFrame(
        {
            "nobs": [fit.n],
            "sigma": [fit.sigma],
            "logLik": [fit.loglik],
            "AIC": [aic(fit)],
            "BIC": [bic(fit)],
            "REMLcrit" if fit.method == "REML" else "deviance": [fit.criterion],
            "df.residual": [fit.n - fit.n_parameters],
        }
    )


def augment(fit: Fit, data: object = None) -> pd.DataFrame:
    """Return the rows in the model, with what the fit says of each.

    Parameters
    ----------
    data : the table that the model was fitted to; its columns that are in the model
        stand first, as they are. None: as the model reads them, numbers and factors

    Returns
    -------
    frame : the columns of the data and ``.fitted, .resid, .hat, .cooksd`` (see
        `cooks_distance`), ``.fixed`` (no random effects), ``.mu`` (as .fitted),
        ``.offset, .sqrtXwt, .sqrtrwt`` (square roots of the weights), ``.weights,
        .wtres``; with the index of the data

    Raises
    ------
    DesignError : data have another number of rows than those of the fit
    """
    design = fit.design
    mean = fitted(fit, range(len(design.blocks)))
    residuals = design.y - mean
    weights = np.ones(fit.n) if design.weights is None else design.weights
    root = np.sqrt(weights)
    distance = cooks_distance(fit).to_numpy() if len(fit.beta) else np.nan
    columns = model_columns(fit) if data is None else _raw_columns(fit, data)
    return pd.DataFrame(
        {
            **columns,
            ".fitted": mean,
            ".resid": residuals,
            ".hat": leverage(fit),
            ".cooksd": distance,
            ".fixed": fitted(fit, ()),
            ".mu": mean,
            ".offset": np.zeros(fit.n) if design.offset is None else design.offset,
            ".sqrtXwt": root,
            ".sqrtrwt": root,
            ".weights": weights,
            ".wtres": root * residuals,
        }
    ).set_index(design.row_index)


def model_columns(fit: Fit) -> dict[str, object]:
    """Return the columns of the rows in the model as it reads them, by name."""
    design = fit.design
    columns: dict[str, object] = {n: s.array for n, s in design.columns.items()}
    for block in design.blocks:
        for name, labels in zip(block.term.group, block.pieces, strict=True):
            columns.setdefault(name, labels.take(block.codes).array)
    part = design.residual
    if part is not None and part.term is not None:
        for name, labels in zip(part.term.group, part.pieces, strict=True):
            columns.setdefault(name, labels.take(part.subjects).array)
        for name, values in part.coordinates.items():
            columns.setdefault(name, values.array)
    if design.weights_column is not None:
        columns.setdefault(design.weights_column, design.weights)
    return columns


def _raw_columns(fit: Fit, data: object) -> dict[str, object]:
    design = fit.design
    table = Table(data)
    if len(table) != len(design.used):
        raise DesignError(
            f"The data have {len(table)} rows, those of the fit {len(design.used)}.",
            hint="Give the table that the model was fitted to.",
        )
    groups = (name for block in design.blocks for name in block.term.group)
    arguments = (design.weights_column, design.offset_column)
    if design.residual is not None:
        arguments = (*arguments, *design.residual.columns)
    names = dict.fromkeys([*design.columns, *groups, *filter(None, arguments)])
    return {name: table.column(name).array[design.used] for name in names}
