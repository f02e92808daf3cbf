"""Load the reference fits with residual structures, and refit them with mixform."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixform as mf

HERE = Path(__file__).parent / "references"
MODELS: dict[str, dict[str, Any]] = {
    model["id"]: model
    for model in json.loads((HERE / "residual_structures.json").read_text())["models"]
}
SAS: dict[str, Any] = json.loads((HERE / "residual_structures_sas.json").read_text())


@cache
def data_named(name: str) -> pd.DataFrame:
    """Return a data set as its CSV file has it, row for row."""
    if name in mf.datasets.names():
        return mf.datasets.load(name)
    return pd.read_csv(HERE / "data" / f"{name}.csv")


def data_of(model: dict[str, Any]) -> pd.DataFrame:
    """Return the model's data, with derived columns and R's factor levels."""
    data = data_named(model["data"]).copy()
    for name, code in (model["derived"] or {}).items():
        data[name] = data.eval(code, engine="python")
        if (data[name] == data[name].round()).all():
            data[name] = data[name].astype(int)
    for name, levels in model["factors"].items():
        data[name] = pd.Categorical(data[name].astype(str), categories=levels)
    return data


def fit_reference(name: str) -> mf.Result:
    """Fit a model of `MODELS`, once per session."""
    return _fit_reference(name)


@cache
def _fit_reference(name: str) -> mf.Result:
    model = MODELS[name]
    return mf.fit(
        model["formula"],
        data_of(model),
        residual=model["residual"],
        dispersion=model["dispersion"],
        weights=model["weights"],
        method=model["method"],
    )


@cache
def fit_sas(fixed: str, residual: str, method: str) -> mf.Result:
    """Fit a model that SAS fitted to fev, once per session."""
    data = data_named("fev")
    return mf.fit(f"FEV1 ~ {fixed}", data, residual=residual, method=method)


def implied_covariance(m: mf.Result, model: dict[str, Any]) -> np.ndarray:
    """Return the covariance of the residuals of the reference's rows, units of y^2."""
    data = data_of(model)
    rows = model["covariance"]["rows"]
    subject = model["covariance"]["subject"]
    residual = model["residual"]
    if residual is None:
        return np.diag(_independent(m, data.iloc[rows], model["weights"]))
    if "|" not in residual:
        # All rows are one subject.
        whole = m.residual_covariance(subject=_only_subject(m))
        return whole.to_numpy()[np.ix_(rows, rows)]
    if "/" in residual:
        stratum = re.search(r"\|\s*(\w+)\s*/", residual)
        assert stratum is not None
        return m.residual_covariance(data[stratum[1]].iloc[rows[0]]).to_numpy()
    table = m.residual_covariance(subject=subject)
    labels = data.index[rows]
    return table.loc[labels, labels].to_numpy()


def _only_subject(m: mf.Result) -> object:
    part = m._fit.design.residual  # pyright: ignore[reportPrivateUsage]
    assert part is not None
    return part.labels[0]


def _independent(m: mf.Result, data: pd.DataFrame, weights: str | None) -> np.ndarray:
    """Variances of independent residuals, from the table of their parameters."""
    table = m.residual_parameters()["estimate"]
    log_sd = np.full(len(data), np.log(table["sd"]))
    for name, value in table.items():
        if str(name).startswith("log sd: "):
            column = str(name).removeprefix("log sd: ")
            level = re.fullmatch(r"(\w+)\[T?\.?(.*)\]", column)
            chosen = data[column] if level is None else data[level[1]] == level[2]
            log_sd += value * chosen.to_numpy(dtype=float)
    w = 1.0 if weights is None else data[weights].to_numpy(dtype=float)
    return np.exp(2.0 * log_sd) / w
