"""The compact letter display: means that share a letter do not differ.

By inserting and absorbing (Piepho 2004, J. Comput. Graph. Stat. 13, 456): each letter
is a set of means, at first of all; a pair that differs splits every set that holds both
into one without the first and one without the second; a set inside another is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase, ascii_uppercase

import numpy as np
import pandas as pd

from mixform.inference.intervals import require_alpha
from mixform.inference.means.linear_estimates import LinearEstimates, frame
from mixform.inference.means.mean_contrasts import contrast


def letter_sets(m: int, different: Iterable[tuple[int, int]]) -> list[frozenset[int]]:
    """Return the sets of means, out of 0, ..., m - 1, that share a letter.

    Examples
    --------
    >>> letter_sets(3, [(0, 2)])
    [frozenset({0, 1}), frozenset({1, 2})]
    """
    sets = [frozenset(range(m))] if m else []
    for first, second in different:
        split: list[frozenset[int]] = []
        for members in sets:
            if first in members and second in members:
                split += [members - {first}, members - {second}]
            else:
                split.append(members)
        split = list(dict.fromkeys(split))
        sets = [s for s in split if not any(s < other for other in split)]
    return sorted(sets, key=sorted)


def compact_letters(
    order: Sequence[int], different: Iterable[tuple[int, int]]
) -> dict[int, str]:
    """Return the letters of each mean.

    Parameters
    ----------
    order : the means, in the order in which letters are given out
    different : the pairs that differ

    Examples
    --------
    >>> compact_letters([2, 0, 1], [(2, 1)])
    {2: 'a', 0: 'ab', 1: 'b'}
    """
    rank = {mean: i for i, mean in enumerate(order)}
    pairs = sorted(tuple(sorted((rank[a], rank[b]))) for a, b in different)
    sets = letter_sets(len(order), [(a, b) for a, b in pairs])
    return {
        mean: "".join(_letter(j) for j, members in enumerate(sets) if i in members)
        for i, mean in enumerate(order)
    }


def _letter(j: int) -> str:
    """Return the letter of set j: a to z, A to Z, then .a to .z and so on."""
    alphabet = ascii_lowercase + ascii_uppercase
    return "." * (j // len(alphabet)) + alphabet[j % len(alphabet)]


def letters(
    estimates: LinearEstimates,
    *,
    alpha: float = 0.05,
    adjust: str | None = "tukey",
    decreasing: bool = False,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table of means with a column of letters.

    Means of one group (by=) that share a letter do not differ at level alpha. The
    letters come from the same p values as the table of pairs.

    Parameters
    ----------
    alpha : level of significance
    adjust : of the p values
    decreasing : give "a" to the largest mean, not to the smallest

    Returns
    -------
    table : as that of the means, and ``letters``; empty where a mean is not estimable
    notes : on how it was made

    Raises
    ------
    InferenceError : alpha outside (0, 1), unknown adjustment
    """
    require_alpha(alpha)
    pairs = contrast(estimates, "pairwise", adjust=adjust or "none")
    tests, pair_notes = frame(pairs, limits=False, tests=True)
    p_values = iter(tests["p_value"].tolist())
    column = [""] * len(estimates.labels)
    for rows in estimates.groups():
        known = [i for i in rows if np.isfinite(estimates.estimate[i])]
        different = [
            (int(a), int(b))
            for place, a in enumerate(rows)
            for b in rows[place + 1 :]
            if next(p_values) < alpha
        ]
        order = sorted(
            map(int, known), key=lambda i: estimates.estimate[i], reverse=decreasing
        )
        usable = set(order)
        inside = [pair for pair in different if usable.issuperset(pair)]
        for i, text in compact_letters(order, inside).items():
            column[i] = text
    table, notes = frame(estimates, limits=True, tests=False)
    table["letters"] = column
    extra = [n for n in pair_notes if n.startswith(("P value", "adjust="))]
    return table, (
        *notes,
        *extra,
        f"Significance level used: alpha = {alpha:g}",
        "Means that share a letter do not differ at this level.",
    )
