"""Mrode's examples: data, and solutions as the book prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

PRINTED = json.loads((Path(__file__).parent / "references" / "mrode.json").read_text())

#: Examples 3.1 and 5.1: weaning and post-weaning gain of five calves.
CALVES = pd.DataFrame(
    {
        "animal": [4, 5, 6, 7, 8],
        "sire": [1, 3, 1, 4, 3],
        "dam": [0, 2, 2, 5, 6],
        "sex": ["male", "female", "female", "male", "male"],
        "wwg": [4.5, 2.9, 3.9, 3.5, 5.0],
        "pwg": [6.8, 5.0, 6.8, 6.0, 7.5],
    }
)
G_CALVES = np.array([[20.0, 18.0], [18.0, 40.0]])
R_CALVES = np.array([[40.0, 11.0], [11.0, 30.0]])

#: Example 9.2: covariances of the random regressions on days in milk.
G_COWS = np.array(
    [[3.297, 0.594, -1.381], [0.594, 0.921, -0.289], [-1.381, -0.289, 1.005]]
)
P_COWS = np.array(
    [[6.872, -0.254, -1.101], [-0.254, 3.171, 0.167], [-1.101, 0.167, 2.457]]
)


def numbers(example, quantity):
    return np.array(PRINTED[example][quantity], dtype=float)


def cow_records():
    """Return the fat yields of example 9: cow, dim, htd, fat."""
    given = PRINTED["9"]
    rows = [
        (int(cow), given["dim"][j], given["first_htd"][cow] + j, float(fat))
        for cow, yields in given["fat"].items()
        for j, fat in enumerate(yields)
    ]
    return pd.DataFrame(rows, columns=["cow", "dim", "htd", "fat"])


def cows():
    """Return the pedigree of example 9."""
    return pd.DataFrame(PRINTED["9"]["pedigree"])


def rounded_covariables(dim):
    """Return phi_0 to phi_4 as the book rounds them, p0 to p4."""
    t = 2.0 * (dim - 4.0) / 306.0 - 1.0
    return {
        f"p{k}": np.polynomial.polynomial.polyval(t, c).round(4)
        for k, c in enumerate(PRINTED["9"]["rounded"].values())
    }
