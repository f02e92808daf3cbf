"""Load tests/references/diagnostics.json, and small models for the dense oracles."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mixform as mf
from mixform.errors import MixformWarning
from tests import dense_oracle as oracle

HERE = Path(__file__).parent / "references"
MODELS: dict[str, dict[str, Any]] = {
    model["id"]: model
    for model in json.loads((HERE / "diagnostics.json").read_text())["models"]
}


def data_of(model):
    """Return the data as diagnostics.R reads them."""
    data = mf.datasets.load(model["data"])
    if "Sex" in data:
        data["Sex"] = data["Sex"].astype(str)  # R's order of levels: Female, Male
    return data[np.arange(1, len(data) + 1) % 7 != 0] if model["unbalanced"] else data


@cache
def reference_fit(name):
    """Fit a reference model once per session."""
    model = MODELS[name]
    data = data_of(model)
    weights = None if model["weights"] is None else 1.0 + data[model["weights"]]
    return mf.fit(model["formula"], data, weights=weights)._fit


def numbers(values):
    """Return printed numbers as an array; a lone one is an array of one."""
    values = [values] if isinstance(values, str) else values
    return np.array([np.nan if v is None else float(v) for v in values])


def matrix(table):
    """Return the values of a recorded table."""
    return np.array([[float(v) for v in row] for row in table["values"]])


@cache
def random_fit(seed, reml=True, p=None, backend="auto"):
    """Fit a random small model; return the oracle's record of it, and the fit."""
    model, data, formula, keywords = oracle.random_model(seed, reml=reml, p=p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        m = mf.fit(formula, data, control={"backend": backend}, **keywords)
    return model, m._fit


def oracle_of(fit):
    """Return the oracle's record of a fit."""
    design = fit.design
    terms = tuple(
        oracle.Term(b.codes, b.design, b.term.structure == "diag")
        for b in design.blocks
    )
    weights = np.ones(fit.n) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    return oracle.Model(y, design.fixed.X, terms, weights, fit.method == "REML")


def dense(model, fit):
    """Return V relative to sigma^2, X, and y less offset, of the fit's rows."""
    return model.relative_V(fit.theta), fit.design.fixed.X, model.y
