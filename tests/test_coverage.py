"""Simulation: intervals and F tests in small unbalanced designs hold their level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf

REPLICATES = 2000
LEVEL = 0.05


def arms(rng):
    """Two treatments given to 9 groups of 1 to 5 rows."""
    sizes = [1, 2, 2, 3, 3, 4, 5, 5, 2]
    group = np.repeat(np.arange(9), sizes)
    trt = np.isin(group, [0, 2, 4, 6]).astype(float)
    y = rng.normal(size=9)[group] + rng.normal(size=len(group))
    return pd.DataFrame({"y": y, "g": group.astype(str), "trt": trt})


def split_plot(rng):
    """Three treatments on the plots of 6 incomplete blocks, two rows a plot."""
    block = np.repeat(np.arange(6), 6)
    trt = np.tile(np.repeat(list("abc"), 2), 6)
    kept = np.ones(36, dtype=bool)
    kept[[0, 1, 8, 15, 16, 22, 29]] = False
    plot = block * 3 + np.tile(np.repeat(np.arange(3), 2), 6)
    y = 2.0 * rng.normal(size=6)[block] + 2.0 * rng.normal(size=18)[plot]
    y = y + rng.normal(size=36)
    table = {"y": y, "block": block.astype(str), "trt": trt, "plot": plot.astype(str)}
    return pd.DataFrame(table)[kept]


def growth(rng):
    """Lines of 12 subjects in two arms, measured at 3 to 5 unequal times."""
    times = [[0, 1, 2], [0, 2, 3, 5], [0, 1, 4, 5], [1, 2, 3, 4, 5]] * 3
    subject = np.repeat(np.arange(12), [len(t) for t in times])
    time = np.concatenate(times).astype(float)
    arm = (subject % 5 < 2).astype(float)
    y = 2.0 * rng.normal(size=12)[subject] + rng.normal(size=12)[subject] * time
    y = y + rng.normal(size=len(time))
    return pd.DataFrame({"y": y, "id": subject.astype(str), "time": time, "arm": arm})


DESIGNS = {
    "arms": (arms, "y ~ trt + (1|g)", "trt"),
    "split_plot": (split_plot, "y ~ trt + (1|block) + (1|plot)", "trt"),
    "growth": (growth, "y ~ arm * time + (time|id)", "arm:time"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_kenward_roger_tests_and_intervals_hold_their_level(name):
    simulate, formula, term = DESIGNS[name]
    rng = np.random.default_rng(11)
    rejected = covered = total = 0
    for _ in range(REPLICATES):
        m = mf.fit(formula, simulate(rng))
        test = m.anova(ddf="kenward-roger").loc[term]
        rejected += test["p_value"] < LEVEL
        coefficient = next(c for c in m.params.index if c.startswith(term))
        row = m.test({coefficient: 1.0}, ddf="kenward-roger").table.iloc[0]
        width = stats.t.ppf(1.0 - LEVEL / 2.0, row["df"]) * row["se"]
        covered += abs(row["estimate"]) < width
        total += 1
    # Within three standard errors of a Monte Carlo proportion at the nominal level.
    error = 3.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / total)
    assert abs(rejected / total - LEVEL) < error
    assert abs(covered / total - (1.0 - LEVEL)) < error
