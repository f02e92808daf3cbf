"""TABLES -> FIGURES: each function draws what others computed and returns its axes.

matplotlib, the extra ``plot``, is imported when a figure is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform.errors import MixformError

#: matplotlib's Axes, or an array of them.
Axes = Any

POINTS = {"s": 14.0, "alpha": 0.7, "linewidths": 0.0}
LINE = {"color": "0.5", "linewidth": 0.8}


def draw_residuals(fitted: pd.Series, residuals: pd.Series, ax: Axes = None) -> Axes:
    """Draw residuals (n,) against fitted values (n,)."""
    ax = _axes(1)[0] if ax is None else ax
    ax.axhline(0.0, **LINE)
    ax.scatter(fitted, residuals, **POINTS)
    ax.set_xlabel("fitted values")
    ax.set_ylabel("residuals")
    return ax


def draw_qq(values: pd.Series, ax: Axes = None) -> Axes:
    """Draw ordered values (n,) against normal quantiles, with a line by quartiles."""
    ax = _axes(1)[0] if ax is None else ax
    ordered = np.sort(values.dropna().to_numpy())
    quantiles = ndtri((np.arange(len(ordered)) + 0.5) / len(ordered))
    low, high = np.quantile(ordered, [0.25, 0.75])
    slope = (high - low) / (ndtri(0.75) - ndtri(0.25))
    ax.axline((0.0, (low + high) / 2.0), slope=slope, **LINE)
    ax.scatter(quantiles, ordered, **POINTS)
    ax.set_xlabel("normal quantiles")
    ax.set_ylabel("residuals")
    return ax


def draw_caterpillar(table: pd.DataFrame, *, middle: str = "zero") -> Axes:
    """Draw effects of levels with their limits, a panel for each coefficient.

    Parameters
    ----------
    table : ``grp, term, level, estimate, lower, upper, rank``
    middle : what the line is at: "zero" or the "mean" of the estimates
    """
    parts = list(table.groupby(["grp", "term"], sort=False, observed=True))
    axes = _axes(len(parts), height=0.5 + 0.16 * _most([part for _, part in parts]))
    for ax, ((group, term), part) in zip(axes, parts, strict=True):
        ax.axvline(0.0 if middle == "zero" else part["estimate"].mean(), **LINE)
        ax.hlines(part["rank"], part["lower"], part["upper"], linewidth=1.0)
        ax.scatter(part["estimate"], part["rank"], s=12.0)
        if len(part) <= 80:
            ax.set_yticks(part["rank"], part["level"], fontsize=7)
        else:
            ax.set_yticks([])
        ax.set_title(f"{group}: {term}", fontsize=9)
    return axes


def draw_zeta(frame: pd.DataFrame, limits: pd.DataFrame) -> Axes:
    """Draw zeta against the parameter, a panel for each; a line if the shape is normal.

    Parameters
    ----------
    frame : ``parameter, value, zeta``
    limits : ``lower, upper`` by parameter
    """
    parts = list(frame.groupby("parameter", sort=False, observed=True))
    axes = _axes(len(parts))
    for ax, (name, part) in zip(axes, parts, strict=True):
        ax.axhline(0.0, **LINE)
        for limit in limits.loc[[name], ["lower", "upper"]].to_numpy(float).ravel():
            if np.isfinite(limit):
                ax.axvline(limit, linestyle=":", **LINE)
        ax.plot(part["value"], part["zeta"])
        ax.set_title(str(name), fontsize=9)
        ax.set_ylabel("zeta")
    return axes


def draw_densities(
    names: Sequence[str], density: Callable[[str], pd.DataFrame]
) -> Axes:
    """Draw the density that each profile carries over: ``value, density`` by name."""
    axes = _axes(len(names))
    for ax, name in zip(axes, names, strict=True):
        table = density(name)
        ax.plot(table["value"], table["density"])
        ax.set_ylim(bottom=0.0)
        ax.set_title(name, fontsize=9)
    return axes


def draw_pairs(names: Sequence[str], pairs: Callable[[str, str], pd.DataFrame]) -> Axes:
    """Draw the profile traces of every two parameters: ``along, value_1, value_2``."""
    pyplot = _pyplot()
    k = len(names) - 1
    if k < 1:
        raise MixformError("A plot of pairs needs at least two parameters.")
    _, axes = pyplot.subplots(k, k, figsize=(2.2 * k, 2.2 * k), squeeze=False)
    for i in range(k):
        for j in range(k):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            table = pairs(names[j], names[i + 1])
            for _, trace in table.groupby("along", sort=False, observed=True):
                ax.plot(trace["value_1"], trace["value_2"], linewidth=1.0)
            if i == k - 1:
                ax.set_xlabel(names[j], fontsize=8)
            if j == 0:
                ax.set_ylabel(names[i + 1], fontsize=8)
            ax.tick_params(labelsize=7)
    return axes


def draw_means(
    table: pd.DataFrame, columns: Sequence[str], by: Sequence[str], ax: Axes = None
) -> Axes:
    """Draw estimates with limits, side by side for the groups.

    Parameters
    ----------
    table : label columns, then the estimate, ``lower, upper``
    columns : labels of what is compared; by : labels of the groups
    """
    ax = _axes(1)[0] if ax is None else ax
    inner = [column for column in columns if column not in by]
    label = table[inner].astype(str).agg(", ".join, axis=1) if inner else None
    names = ["mean"] if label is None else list(dict.fromkeys(label))
    groups = (
        [("", table)]
        if not by
        else list(table.groupby(list(by), sort=False, observed=True))
    )
    shifts = np.linspace(-0.15, 0.15, len(groups)) if len(groups) > 1 else [0.0]
    value = next(str(c) for c in table.columns if c not in columns)
    for shift, (group, part) in zip(shifts, groups, strict=True):
        places = [names.index(label[i]) if label is not None else 0 for i in part.index]
        x = np.asarray(places) + shift
        center = part[value].to_numpy(float)
        arms = np.abs(part[["lower", "upper"]].to_numpy(float).T - center)
        text = ", ".join(map(str, group)) if isinstance(group, tuple) else str(group)
        ax.errorbar(x, center, yerr=arms, fmt="o", capsize=3.0, label=text)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel(", ".join(inner))
    ax.set_ylabel(value)
    if by:
        ax.legend(title=", ".join(by), frameon=False)
    return ax


def _most(parts: Sequence[pd.DataFrame]) -> int:
    return max((min(len(part), 80) for part in parts), default=1)


def _axes(n: int, height: float = 3.0) -> Axes:
    """Return n axes of a new figure, three to a row."""
    if n == 0:
        raise MixformError("There is nothing to draw: the model has no such effects.")
    pyplot = _pyplot()
    columns = min(n, 3)
    rows = -(-n // columns)
    height = max(height, 2.4)
    _, axes = pyplot.subplots(
        rows, columns, figsize=(3.4 * columns, height * rows), squeeze=False
    )
    flat = axes.ravel()
    for ax in flat[n:]:
        ax.set_axis_off()
    flat[0].figure.set_layout_engine("tight")
    return flat[:n]


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - an extra
    except ImportError:
        raise MixformError(
            "Figures need matplotlib, which is not installed.",
            hint='Install it with: pip install "mixform[plot]"',
        ) from None
    return pyplot
