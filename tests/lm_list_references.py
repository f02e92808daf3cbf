"""Read what R prints of regressions by subject: references/lm_list.txt."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mixform as mf

HERE = Path(__file__).parent / "references"


@cache
def printed() -> dict[str, np.ndarray]:
    """Return the printed numbers by name."""
    tables: dict[str, list[float]] = {}
    for block in (HERE / "lm_list.txt").read_text().split("\nCall:")[0].split("# ")[1:]:
        name, _, numbers = block.partition("\n")
        if not name.startswith("R version"):
            tables[name.strip()] = [float(number) for number in numbers.split()]
    return {name: np.array(numbers) for name, numbers in tables.items()}


@cache
def regressions(name: str) -> Any:
    """Return the regressions that a name in the output stands for."""
    if name == "Orthodont":
        data = mf.datasets.load("Orthodont")
        return mf.lm_list("distance ~ age | Subject", data)
    data = mf.datasets.load("sleepstudy")
    if name == "unbalanced":
        data = data[(np.arange(len(data)) + 1) % 5 != 0]
        return mf.lm_list("Reaction ~ Days + I(Days^2) | Subject", data)
    return mf.lm_list(
        "Reaction ~ Days | Subject",
        data.assign(w=1 + data["Days"] % 3),
        weights="w" if name == "weighted" else None,
        pool=name != "weighted",
    )
