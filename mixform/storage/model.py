"""What of a fit is kept, and the fit from what was kept."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Vector
from mixform._version import __version__
from mixform.call import Call, design_of, make_call, table_of
from mixform.design import Design, same_residuals
from mixform.design.frame import Table, aligned_values
from mixform.errors import MixformError, MixformWarning
from mixform.estimate import Control, Fit, resolve_control
from mixform.estimate.anova import Sums, estimate_anova, resolve_sums
from mixform.estimate.certificate import Certificate
from mixform.estimate.criterion import evaluate
from mixform.estimate.known import Ratio, ratio, read_variances
from mixform.estimate.problem import Problem, build_problem
from mixform.estimate.reml import record, scaled_start
from mixform.mme import few_threads
from mixform.storage.archive import Arrays, read_archive, write_archive
from mixform.storage.columns import (
    describe_index,
    describe_series,
    restore_index,
    restore_series,
)
from mixform.storage.related import describe_relationship, restore_relationship

#: By how much the criterion of a fit that is read may differ from the one stored.
TOLERANCE = 1e-6

#: Options of the search that a file keeps: those that are numbers or names.
OPTIONS = ("tolerance", "max_evaluations", "backend", "certified_decrease")


def save(fit: Fit, call: Call | None, path: str | Path) -> None:
    """Write a fit to a file that `load` reads, in this and later versions.

    The file holds the columns that the model uses, in all rows of the data, with the
    arguments and the estimates. An existing file of the name is replaced.

    Parameters
    ----------
    call : what `fit` was asked for

    Raises
    ------
    MixformError : the file cannot be written; a column holds what a file cannot keep;
        the data were changed after the fit
    """
    if call is None:
        raise MixformError(
            "This result does not know the data it was fitted to.",
            hint="Save one that fit() or update() returned.",
        )
    table = Table(table_of(call))
    arrays = Arrays()
    kept = _kept_call(call, _kept_frame(fit, call, table), table)
    header: dict[str, Any] = {
        "mixform": __version__,
        "made_with": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pandas": pd.__version__,
        },
        "call": _describe_call(kept, arrays),
        "data": _describe_frame(cast("pd.DataFrame", kept.data), arrays),
        "response": _own_response(fit, kept, arrays),
        "estimates": {
            "criterion": None if np.isnan(fit.criterion) else fit.criterion,
            "theta": fit.theta.tolist(),
            "rho": _in_units_of_columns(fit.evaluation.problem, fit.rho, -1).tolist(),
            "sigma": fit.sigma,
            "beta": fit.beta.tolist(),
            "names": [fit.design.fixed.names[j] for j in fit.design.fixed.kept],
        },
        "convergence": _described(asdict(fit.convergence)),
    }
    newer = fit.design.residual is not None or fit.anova is not None
    write_archive(Path(path), header, arrays, written=2 if newer else 1)


def load(path: str | Path) -> tuple[Fit, Call]:
    """Read a fit that `save` wrote: no search, one solution at the stored parameters.

    Raises
    ------
    MixformError : the file is none of ours, of a later format, or damaged

    Warns
    -----
    MixformWarning : the criterion is not the stored one, to 1e-6
    """
    header, arrays = read_archive(Path(path))
    call = _restore_call(header, arrays)
    design = design_of(call)
    if header["response"] is not None:
        design = replace(design, y=arrays[header["response"]])
    fit = _fit_at(design, call, header)
    stored = header["estimates"]["criterion"]
    if stored is not None and not abs(fit.criterion - stored) <= max(
        TOLERANCE, 10.0 * fit.evaluation.noise
    ):
        warnings.warn(
            MixformWarning(
                f"The criterion of the model in '{path}' is {fit.criterion:.9g} in "
                f"mixform {__version__}; it was {stored:.9g} in mixform "
                f"{header['mixform']}, which saved it."
            ),
            stacklevel=3,
        )
    return fit, call


def _fit_at(design: Design, call: Call, header: Mapping[str, Any]) -> Fit:
    """Solve at the stored theta; how the search ended is as stored."""
    if call.method == "ANOVA":
        return estimate_anova(design, resolve_sums(call.control))
    control = resolve_control(call.control)
    problem = build_problem(
        design,
        reml=call.method == "REML",
        backend=control.backend,
        given=None if call.varcomp is None else read_variances(design, call.varcomp),
    )
    estimates = header["estimates"]
    rho = np.array(estimates.get("rho", []), dtype=np.float64)
    rho = _in_units_of_columns(problem, rho, 1)
    theta = scaled_start(problem, estimates["theta"], rho)
    ended = header["convergence"]
    lowest = ended["smallest_eigenvalue"]
    certificate = Certificate(
        predicted_decrease=ended["predicted_decrease"],
        smallest_eigenvalue=np.inf if lowest is None else lowest,
        direction=None,
    )
    with few_threads(problem.equations):
        here = evaluate(problem, theta)
    found = (theta, here, certificate, ended["n_evaluations"])
    return record(design, call.method, found, control)


def _in_units_of_columns(problem: Problem, rho: Vector, power: int) -> Vector:
    """Return rho with coefficients of dispersion columns, times their units^power."""
    if problem.rows is None:
        return rho
    model, out = problem.rows.model, rho.copy()
    out[model.delta] *= model.dispersion_unit**power
    return out


def _kept_frame(fit: Fit, call: Call, table: Table) -> pd.DataFrame:
    """Return the columns that the model uses, in the order of the data."""
    design = fit.design
    used = set(design.columns) | {n for b in design.blocks for n in b.term.group}
    used |= {name for name in (call.weights, call.offset) if isinstance(name, str)}
    if design.residual is not None:
        used |= set(design.residual.columns)
    if isinstance(call.subset, str):
        used |= {name for name in table.names if name in call.subset}
    columns = {n: table.column(n).array for n in table.names if n in used}
    return pd.DataFrame(columns, index=table.index, copy=False)


def _kept_call(call: Call, frame: pd.DataFrame, table: Table) -> Call:
    """Return the call on the kept columns, its values by row in the order of the data.

    What only says where the data came from is left out.
    """
    by_row: dict[str, object] = {}
    for name in ("weights", "offset", "subset"):
        value = getattr(call, name)
        if value is not None and not isinstance(value, str):
            value = aligned_values(value, table, name)[0].to_numpy()
            value = value.astype(bool if name == "subset" else np.float64)
        by_row[name] = value
    return replace(call, data=frame, start=None, file=None, **cast("Any", by_row))


def _own_response(fit: Fit, kept: Call, arrays: Arrays) -> str | None:
    """Return where the response stands, if it is not that of the data.

    Raises
    ------
    MixformError : the kept columns give another model: they were changed
    """
    old, new = fit.design, design_of(kept)
    same = (
        np.array_equal(old.used, new.used)
        and np.array_equal(old.fixed.coded.values, new.fixed.coded.values)
        and _equal(old.weights, new.weights)
        and _equal(old.offset, new.offset)
        and all(
            np.array_equal(one.codes, two.codes)
            and np.array_equal(one.design, two.design)
            for one, two in zip(old.blocks, new.blocks, strict=True)
        )
        and same_residuals(old.residual, new.residual)
    )
    if not same:
        raise MixformError(
            "The data were changed after the model was fitted.",
            hint="Fit the model again, then save it.",
        )
    return None if np.array_equal(old.y, new.y) else arrays.add(old.y)


def _equal(one: AnyArray | None, two: AnyArray | None) -> bool:
    if one is None or two is None:
        return one is two
    return np.array_equal(one, two)


def _describe_frame(frame: pd.DataFrame, arrays: Arrays) -> dict[str, Any]:
    return {
        "index": describe_index(frame.index, "index", arrays),
        "columns": [
            {"name": name, **describe_series(frame[name], str(name), arrays)}
            for name in frame.columns
        ],
    }


def _restore_frame(
    record: Mapping[str, Any], arrays: Mapping[str, AnyArray]
) -> pd.DataFrame:
    columns = {
        column["name"]: restore_series(column, arrays).array
        for column in record["columns"]
    }
    index = restore_index(record["index"], arrays)
    return pd.DataFrame(columns, index=index, copy=False)


def _describe_call(call: Call, arrays: Arrays) -> dict[str, Any]:
    if call.method == "ANOVA":
        control, usual, names = resolve_sums(call.control), Sums(), ("sums", "backend")
    else:
        control, usual, names = resolve_control(call.control), Control(), OPTIONS
    options = {name: getattr(control, name) for name in names}
    return {
        "formula": call.formula,
        "method": call.method,
        "missing": call.missing,
        **{
            name: _describe_argument(getattr(call, name), arrays)
            for name in ("weights", "offset", "subset")
        },
        "contrasts": None
        if call.contrasts is None
        else {
            factor: _describe_argument(contrast, arrays)
            for factor, contrast in call.contrasts.items()
        },
        "residual": call.residual,
        "dispersion": call.dispersion,
        "relationship": describe_relationship(call.relationship, arrays),
        "varcomp": _describe_variances(call.varcomp),
        "control": {n: v for n, v in options.items() if v != getattr(usual, n)},
    }


def _describe_variances(varcomp: Mapping[str, object] | None) -> Any:
    """Return variances as numbers and lists; a ratio and a frame as a mapping."""
    if varcomp is None:
        return None
    return {str(name): _describe_variance(value) for name, value in varcomp.items()}


def _describe_variance(value: object) -> Any:
    if isinstance(value, Ratio):
        return {"ratio": _describe_variance(value.value)}
    if isinstance(value, pd.DataFrame):
        labels = {"rows": value.index, "columns": value.columns}
        found = {n: [str(label) for label in index] for n, index in labels.items()}
        return {"values": value.to_numpy(dtype=np.float64).tolist(), **found}
    if isinstance(value, Mapping):
        return {"strata": _describe_variances(cast("Mapping[str, object]", value))}
    return np.asarray(value, dtype=np.float64).tolist()


def _restore_variances(given: Any) -> Any:
    if given is None:
        return None
    return {name: _restore_variance(value) for name, value in given.items()}


def _restore_variance(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    parts = cast("dict[str, Any]", value)
    if "ratio" in parts:
        return ratio(_restore_variance(parts["ratio"]))
    if "strata" in parts:
        return _restore_variances(parts["strata"])
    return pd.DataFrame(parts["values"], parts["rows"], parts["columns"])


def _describe_argument(value: object, arrays: Arrays) -> dict[str, str] | str | None:
    """Return a name as it is, and values as the array that holds them."""
    if value is None or isinstance(value, str):
        return value
    return {"values": arrays.add(np.asarray(value))}


def _restore_argument(value: Any, arrays: Mapping[str, AnyArray]) -> object:
    return arrays[value["values"]] if isinstance(value, dict) else value


def _restore_call(header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Call:
    given = header["call"]
    contrasts = given["contrasts"]
    if contrasts is not None:
        contrasts = {n: _restore_argument(c, arrays) for n, c in contrasts.items()}
    return make_call(
        given["formula"],
        _restore_frame(header["data"], arrays),
        method=given["method"],
        missing=given["missing"],
        contrasts=contrasts,
        control=given["control"] or None,
        varcomp=_restore_variances(given.get("varcomp")),
        residual=given.get("residual"),
        dispersion=given.get("dispersion"),
        relationship=restore_relationship(given.get("relationship"), arrays),
        **{
            name: _restore_argument(given[name], arrays)
            for name in ("weights", "offset", "subset")
        },
    )


def _described(convergence: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict with null for infinity, which JSON does not have."""
    lowest = convergence["smallest_eigenvalue"]
    return {**convergence, "smallest_eigenvalue": None if np.isinf(lowest) else lowest}
