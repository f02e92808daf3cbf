"""Genomic relationships: by hand, by definition, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixform.errors import DesignError
from mixform.relationship import genomic


def simulated(seed=1, m=12, s=40):
    rng = np.random.default_rng(seed)
    M = rng.binomial(2, rng.uniform(0.2, 0.8, s), (m, s)).astype(float)
    return pd.DataFrame(M, index=[f"a{i}" for i in range(m)])


@pytest.mark.parametrize("method", ["vanraden1", "vanraden2"])
def test_relationships_are_sums_over_markers(method):
    M = simulated()
    found = genomic(M, method=method)
    p = M.mean() / 2.0
    variance = 2.0 * p * (1.0 - p)
    expected = np.zeros((len(M), len(M)))
    for marker in M:
        z = M[marker] - 2.0 * p[marker]
        share = variance.sum() if method == "vanraden1" else len(p) * variance[marker]
        expected += np.outer(z, z) / share
    np.testing.assert_allclose(found.K, expected, atol=1e-12)
    # Centered at observed frequencies, relationships add up to zero.
    np.testing.assert_allclose(found.K.sum(), 0.0, atol=1e-10)


def test_other_allele_gives_the_same_relationships():
    M = simulated()
    np.testing.assert_allclose(genomic(M).K, genomic(2.0 - M).K, atol=1e-12)


def test_missing_genotypes_count_as_the_mean():
    M = simulated()
    M.iloc[3, 5] = np.nan
    filled = M.copy()
    filled.iloc[3, 5] = M[5].mean()
    found = genomic(M)
    assert found.n_missing == 1
    np.testing.assert_allclose(found.K, genomic(filled).K, atol=1e-12)


def test_rare_and_constant_markers_are_dropped_by_name():
    M = pd.DataFrame(
        {"fixed": [2, 2, 2, 2], "rare": [0, 0, 0, 1], "common": [0, 1, 1, 2]},
        index=list("abcd"),
    )
    found = genomic(M, maf=0.2)
    assert found.dropped == ("fixed", "rare")
    assert list(found.frequencies.index) == ["common"]
    assert found.K.loc["a", "a"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("markers", "arguments", "message"),
    [
        (pd.DataFrame({"m": [0, 3]}), {}, r"Marker 'm' of '1' is 3"),
        (np.ones((2, 2)), {}, r"have no labels"),
        (np.ones((2, 2)), {"ids": ["a"]}, r"1 ids for 2 rows"),
        (np.ones((2, 2)), {"ids": ["a", "a"]}, r"'a' has more than one row"),
        (pd.DataFrame({"m": ["AA", "AB"]}), {}, r"not numeric"),
        (pd.DataFrame({"m": [0, 2]}), {"maf": 0.6}, r"No marker has"),
        (pd.DataFrame({"m": [0, 2]}), {"method": "van"}, r"Unknown method 'van'"),
        (np.ones(3), {"ids": [1, 2, 3]}, r"shape \(3,\)"),
    ],
)
def test_impossible_genotypes_are_refused(markers, arguments, message):
    with pytest.raises(DesignError, match=message):
        genomic(markers, **arguments)
