"""Principal components of the random effects, and what to leave out of a singular fit.

As lme4's ``rePCA``: the singular value decomposition of the relative covariance factor
T of all terms of a grouping factor (Bates, Kliegl, Vasishth and Baayen 2015,
arXiv:1506.04967). Components depend on the units of the covariates; what may go is
judged on covariates of unit root mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from mixform._typing import Matrix, Vector
from mixform.design.random import RandomBlock
from mixform.design.reduce import (
    coefficient_terms,
    droppable_coefficients,
    with_coefficients,
)
from mixform.estimate import Fit
from mixform.formula.summands import random_text

#: Singular values up to this share of the largest count as zero.
RANK_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomComponents:
    """Principal components of the random effects of each grouping factor.

    Attributes
    ----------
    table : ``grp, component, sd, proportion, cumulative``; sd is relative to sigma
    loadings : grouping factor -> frame (coefficients by components) of unit columns
    suggestions : what to leave out of terms with a singular covariance
    """

    table: pd.DataFrame
    loadings: dict[str, pd.DataFrame]
    suggestions: tuple[str, ...]

    def __str__(self) -> str:
        if not len(self.table):
            return "The model has no random effects."
        text = self.table.to_string(index=False, float_format="{:.4g}".format)
        return "\n".join([text, *self.suggestions])

    __repr__ = __str__


def random_components(fit: Fit) -> RandomComponents:
    """Return the principal components of the random effects."""
    factors: dict[str, list[int]] = {}
    for j, block in enumerate(fit.design.blocks):
        factors.setdefault(block.term.group_label, []).append(j)
    tables: list[pd.DataFrame] = []
    loadings: dict[str, pd.DataFrame] = {}
    for label, own in factors.items():
        T = block_diag(*(fit.T[j] for j in own))
        names = [name for j in own for name in fit.design.blocks[j].columns]
        table, vectors = _decompose(T, names)
        table.insert(0, "grp", label)
        tables.append(table)
        loadings[label] = vectors
    columns = ["grp", "component", "sd", "proportion", "cumulative"]
    return RandomComponents(
        table=pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=columns),
        loadings=loadings,
        suggestions=tuple(_suggestion(fit, j) for j in fit.singular_terms),
    )


def _decompose(T: Matrix, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    U, sd, _ = np.linalg.svd(T)
    # The sign of a component is free: its largest loading is positive.
    largest = np.abs(U).argmax(axis=0)
    U = U * np.where(U[largest, np.arange(len(sd))] < 0.0, -1.0, 1.0)
    total = float(np.sum(sd**2))
    share = sd**2 / total if total > 0.0 else np.full(len(sd), np.nan)
    components = [f"PC{c + 1}" for c in range(len(sd))]
    table = pd.DataFrame(
        {
            "component": components,
            "sd": sd,
            "proportion": share,
            "cumulative": np.cumsum(share),
        }
    )
    return table, pd.DataFrame(U, index=names, columns=components)


def _suggestion(fit: Fit, j: int) -> str:
    """Say what a singular term could do without."""
    block, T = fit.design.blocks[j], fit.T[j]
    size = np.sqrt(np.mean(block.design**2, axis=0))
    scaled = T * size[:, None]
    source = _written(block)
    sd = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    if not np.any(sd):
        return f"{source} has no variance: the model without it fits as well; drop it."
    values = np.linalg.svd(scaled, compute_uv=False)
    rank = int(np.sum(values > RANK_TOLERANCE * values[0]))
    text = f"{source} has rank {rank}, {block.k} coefficients: "
    text += _why(block, scaled, sd)
    choices = _smaller(fit, j, sd)
    if block.term.structure == "us":
        choices.append(_written(block, "diag"))
    if not choices:
        return f"{text}."
    return f"{text}; try {' or '.join(dict.fromkeys(choices))}."


def _why(block: RandomBlock, scaled: Matrix, sd: Vector) -> str:
    """Name coefficients without variance, or two that are perfectly correlated."""
    none = [
        name
        for name, value in zip(block.columns, sd, strict=True)
        if value <= RANK_TOLERANCE * sd.max()
    ]
    if none:
        return f"{_listed(none)} {'has' if len(none) == 1 else 'have'} no variance"
    unit = scaled / sd[:, None]
    correlations = unit @ unit.T
    pairs = [
        (block.columns[a], block.columns[b], correlations[a, b])
        for a in range(block.k)
        for b in range(a)
        if 1.0 - abs(correlations[a, b]) < RANK_TOLERANCE
    ]
    if pairs:
        first, second, value = pairs[0]
        return f"{second!r} and {first!r} have correlation {np.sign(value):.0f}"
    return "a combination of its coefficients has no variance"


def _smaller(fit: Fit, j: int, sd: Vector) -> list[str]:
    """Return the term without the coefficients whose removal loses least variance."""
    block = fit.design.blocks[j]
    candidates = droppable_coefficients(block)
    terms = coefficient_terms(block)
    if block.coded is None or not candidates:
        return []
    places = {term.name: list(term.columns) for term in block.coded.terms}
    loss = {name: float(np.sum(sd[places[name]] ** 2)) for name in candidates}
    least = min(candidates, key=lambda name: loss[name])
    gone = [name for name in candidates if loss[name] <= 1e-12 * float(np.sum(sd**2))]
    kept = [name for name in terms if name not in (gone or [least])]
    if not kept:
        kept = ["1"]
    if tuple(kept) == terms:
        return []
    return [_written(with_coefficients(fit.design, j, kept).blocks[j])]


def _written(block: RandomBlock, structure: str | None = None) -> str:
    """Return one random term as text, its grouping factor alone."""
    term = block.term
    left = term.source[term.source.index("(") + 1 : term.source.index("|")].strip()
    single = "us" if block.k == 1 and term.structure == "diag" else term.structure
    return random_text(replace(term, structure=structure or single), left)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
