"""Pedigrees: published ones, the tabular method, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mixform.errors import DesignError
from mixform.relationship import Pedigree, pedigree


def tabular(sire, dam):
    """Return A by the tabular method (Emik and Terrill 1949), parents first."""
    m = len(sire)
    A = np.zeros((m, m))
    for i in range(m):
        s, t = sire[i], dam[i]
        for j in range(i):
            row = 0.5 * (A[s, j] if s >= 0 else 0.0)
            A[i, j] = A[j, i] = row + 0.5 * (A[t, j] if t >= 0 else 0.0)
        A[i, i] = 1.0 + (0.5 * A[s, t] if s >= 0 and t >= 0 else 0.0)
    return A


def random_pedigree(seed, m=60, unknown=0.2):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(m):
        older = np.arange(i)
        sires, dams = older[older % 2 == 0], older[older % 2 == 1]
        sire = 0 if rng.random() < unknown or not len(sires) else rng.choice(sires) + 1
        dam = 0 if rng.random() < unknown or not len(dams) else rng.choice(dams) + 1
        rows.append((i + 1, sire, dam))
    return pd.DataFrame(rows, columns=["animal", "sire", "dam"])


def test_inverse_of_the_pedigree_of_mrode_is_as_printed():
    family = Pedigree([4, 5, 6, 7, 8], [1, 3, 1, 4, 3], [0, 2, 2, 5, 6])
    inverse = pd.DataFrame(
        family.A_inverse().todense(), index=family.labels, columns=family.labels
    )
    # Single Trait Animal Model in R (package pedigree): diagonal for animals 1 to 8
    printed = [1.83333, 2.0, 2.0, 1.83333, 2.5, 2.5, 2.0, 2.0]
    order = list("12345678")
    np.testing.assert_allclose(np.diag(inverse.loc[order, order]), printed, atol=0.5e-5)
    assert inverse.loc["1", "4"] == pytest.approx(-2.0 / 3.0)
    assert inverse.loc["6", "8"] == pytest.approx(-1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("compiled", [False, True])
def test_inbreeding_inverse_and_columns_are_those_of_the_tabular_method(
    seed, compiled, monkeypatch
):
    monkeypatch.setattr(pedigree, "COMPILE_FROM", 0 if compiled else 10**9)
    family = Pedigree(random_pedigree(seed))
    A = tabular(family.sire, family.dam)
    np.testing.assert_allclose(family.diagonal, np.diag(A), atol=1e-12)
    np.testing.assert_allclose(family.A(), A, atol=1e-12)
    np.testing.assert_allclose(
        family.A_inverse().todense(), np.linalg.inv(A), atol=1e-9
    )
    assert family.logdet == pytest.approx(np.linalg.slogdet(A)[1])


def test_order_of_rows_does_not_matter():
    rows = random_pedigree(7)
    one, two = Pedigree(rows), Pedigree(rows.sample(frac=1.0, random_state=1))
    pd.testing.assert_series_equal(
        one.inbreeding.sort_index(), two.inbreeding.sort_index()
    )
    labels = one.labels
    pd.testing.assert_frame_equal(one.A(), two.A(labels).loc[labels], atol=1e-14)


@pytest.mark.parametrize("unknown", [0, "0", np.nan, None, ""])
def test_unknown_parents_may_be_written_in_many_ways(unknown):
    family = Pedigree(
        pd.DataFrame({"id": ["x", "y"], "father": [unknown, "x"], "mother": unknown})
    )
    assert list(family.labels) == ["x", "y"]
    assert family.sire.tolist() == [-1, 0]
    assert family.dam.tolist() == [-1, -1]


def test_columns_may_come_in_any_order_and_from_polars():
    table = pl.DataFrame({"Dam": [2], "animal": [3], "SIRE": [1]})
    family = Pedigree(table)
    assert list(family.labels) == ["1", "2", "3"]
    assert (family.sire[2], family.dam[2]) == (0, 1)


def test_selfing_gives_half_when_it_is_allowed():
    family = Pedigree(["b"], ["a"], ["a"], hermaphrodite=True)
    assert family.inbreeding["b"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((["a", "a"], [0, 0], [0, 0]), r"'a' has more than one row"),
        ((["a", "b"], ["b", "a"], [0, 0]), r"loop: a <- b <- a"),
        ((["a"], ["a"], [0]), r"loop: a <- a"),
        ((["a", "b"], ["x", "y"], ["y", 0]), r"'y' is both sire and dam"),
        ((["a", None], [0, 0], [0, 0]), r"Row 2 of the pedigree has no animal"),
        ((["a"], ["b"], None), r"needs sire and dam"),
        ((["a"], ["b", "c"], ["d"]), r"not have the same length"),
    ],
)
def test_impossible_pedigree_is_refused_by_name(rows, message):
    with pytest.raises(DesignError, match=message):
        Pedigree(*rows)


def test_stranger_is_named():
    with pytest.raises(DesignError, match=r"'zz' is not in the pedigree"):
        Pedigree(["b"], ["a"], [0]).A(["zz"])
