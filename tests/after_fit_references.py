"""Load the tables of tests/references/after_fit.json and fit the models behind them."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mixform as mf

from .reference_models import data_of

_LOADED = json.loads(
    (Path(__file__).parent / "references" / "after_fit.json").read_text()
)
MODELS: dict[str, dict[str, Any]] = {m["id"]: m for m in _LOADED["models"]}
TABLES: dict[str, dict[str, Any]] = {t["id"]: t for t in _LOADED["tables"]}


def of_kind(*kinds: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the ids of the tables of some kinds, in order."""
    return [
        name
        for name, table in TABLES.items()
        if table["kind"] in kinds and name not in without
    ]


@cache
def model(name: str) -> mf.Result:
    """Fit the model of a table once per session."""
    spec = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.RankDeficiencyWarning)
        return mf.fit(
            spec["mixform_formula"],
            data_of(spec),
            method=spec["method"],
            weights=spec["weights"],
            contrasts=spec["contrasts"],
        )


def read(name: str) -> tuple[mf.Result, dict[str, Any], list[dict[str, Any]]]:
    """Return a table's fitted model, arguments (without None) and rows."""
    table = TABLES[name]
    args = {k: v for k, v in (table["args"] or {}).items() if v is not None}
    return model(table["model"]), args, table["rows"]


def numbers(rows: list[dict[str, Any]], *keys: str) -> np.ndarray:
    """Return a column as floats, by the first of the keys that rows have."""
    key = next((key for key in keys if key in rows[0]), None)
    assert key is not None, f"no column {keys} in {list(rows[0])}"
    return np.array([np.nan if r[key] is None else float(r[key]) for r in rows])


def assert_close(ours: Any, theirs: Any, rtol: float = 1e-3, atol: float = 0.0) -> None:
    """Compare arrays; NaN in the same places."""
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def norm(term: str) -> str:
    """Name a term alike in R's and formulaic's spelling, whatever the order."""
    term = term.replace(" ", "").replace("C(", "factor(").replace("**", "^")
    return ":".join(sorted(term.replace("`", "").split(":")))


def level_of(value: object) -> str:
    """Write a level or number alike in R and Python."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)
