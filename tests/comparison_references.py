"""Load the tables of tests/references/comparison.json and the models behind them."""

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
TABLES: list[dict[str, Any]] = json.loads((HERE / "comparison.json").read_text())[
    "tables"
]
FACTORS = {
    "ham": ["Consumer", "Product", "Information", "Gender"],
    "carrots": ["Consumer", "Frequency", "Homesize", "Income", "Product"],
    "TVbo": ["Assessor", "TVset", "Picture", "Repeat"],
}


def tables(kind):
    """Return the reference tables of one kind by their id."""
    return {table["id"]: table for table in TABLES if table["kind"] == kind}


@cache
def data_of(name: str) -> pd.DataFrame:
    """Return the data as comparison.R reads them."""
    if name not in FACTORS:
        return mf.datasets.load(name)
    data = pd.read_csv(HERE / "data" / f"{name}.csv")
    if name == "carrots":
        data = data.dropna(subset=["Income", "Homesize"])
    for factor in FACTORS[name]:
        values = data[factor]
        whole = values.astype(int) if values.dtype == float else values
        data[factor] = whole.astype(str).astype("category")
    return data


@cache
def fit_of(formula: str, dataset: str, method: str):
    return mf.fit(formula, data_of(dataset), method=method)._fit


def column(table, name):
    """Return a column of the reference as numbers, NaN where R has NA."""
    values = table["columns"][name]
    return np.array([np.nan if v is None else float(v) for v in values])


def canonical(label):
    """Return a row's label as both programs would write it, without spaces."""
    nested = re.fullmatch(r"(\S+) of \((.*)\|.*\)", label)
    if nested:
        label = f"({nested[2]}|{nested[1]})"

    def group(match):
        return "|" + ":".join(sorted(match[1].split(":"))) + ")"

    return re.sub(r"\|([\w.:]+)\)", group, label.replace(" ", ""))
