"""Load the reference fits of tests/references and refit them with mixform."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import mixform as mf

HERE = Path(__file__).parent / "references"
MODELS: dict[str, dict[str, Any]] = {
    model["id"]: model
    for model in json.loads((HERE / "lme4_models.json").read_text())["models"]
}


def data_of(model: dict[str, Any]) -> pd.DataFrame:
    """Return the model's data; factors are Categoricals with R's level order."""
    if model["dataset"] in mf.datasets.names():
        data = mf.datasets.load(model["dataset"])
    else:
        data = pd.read_csv(HERE / "data" / f"{model['dataset']}.csv")
    for name in model["factors"]:
        levels = model["levels"][name]
        values = data[name].astype(object).map(_label, na_action="ignore")
        data[name] = pd.Categorical(values, categories=levels)
    return data


def _label(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)  # pyright: ignore[reportArgumentType]


@cache
def fit_reference(name: str) -> mf.Result:
    """Fit a reference model once per session."""
    model = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.RankDeficiencyWarning)
        return mf.fit(
            model["mixform_formula"],
            data_of(model),
            method=model["method"],
            weights=model["weights"],
            contrasts=model["contrasts"],
        )
