"""The compact letter display: Piepho's rules, and the same p values as the pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.means.letters import compact_letters, letter_sets

ALL = list(combinations(range(6), 2))


@given(st.sets(st.sampled_from(ALL)))
@settings(max_examples=150, deadline=None)
def test_means_share_a_letter_if_and_only_if_they_do_not_differ(different):
    letters = compact_letters(range(6), different)
    for a, b in ALL:
        share = bool(set(letters[a]) & set(letters[b]))
        assert share == ((a, b) not in different)


@given(st.sets(st.sampled_from(ALL)))
@settings(max_examples=100, deadline=None)
def test_no_letter_is_inside_another(different):
    sets = letter_sets(6, sorted(different))
    assert not any(a < b for a in sets for b in sets)
    assert len(set(sets)) == len(sets)


def test_letters_follow_the_order_given():
    letters = compact_letters([3, 1, 0, 2], [(3, 0), (3, 2), (1, 2)])
    assert letters == {3: "a", 1: "ab", 0: "bc", 2: "c"}


def test_more_sets_than_letters_stay_apart():
    m = 60
    letters = compact_letters(range(m), combinations(range(m), 2))
    assert len(set(letters.values())) == m
    assert letters[52] == ".a"


@pytest.fixture(scope="module")
def means():
    data = mf.datasets.load("ergoStool")
    return mf.fit("effort ~ Type + (1 | Subject)", data).emmeans("Type")


@pytest.mark.parametrize("adjust", ["none", "tukey", "holm", "bonferroni", "fdr"])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_letters_come_from_the_p_values_of_the_pairs(means, adjust, alpha):
    table = means.letters(alpha, adjust).set_index("Type")["letters"]
    for row in means.pairs(adjust).table.itertuples():
        first, second = row.contrast.split(" - ")
        share = bool(set(table[first]) & set(table[second]))
        assert share == (row.p_value >= alpha)


def test_the_first_letter_is_of_the_smallest_mean_or_the_largest(means):
    up = means.letters().set_index("Type")["letters"]
    down = means.letters(decreasing=True).set_index("Type")["letters"]
    smallest = means.table.set_index("Type")["emmean"].idxmin()
    largest = means.table.set_index("Type")["emmean"].idxmax()
    assert "a" in up[smallest]
    assert "a" in down[largest]
    assert "a" not in down[smallest]


def test_letters_are_given_within_groups_and_not_to_what_is_missing():
    data = mf.datasets.load("cake")
    empty = (data["recipe"] == "A") & (data["temperature"].astype(str) == "175")
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("angle ~ recipe * C(temperature) + (1 | replicate)", data[~empty])
    table = m.emmeans("temperature", by="recipe").letters(alpha=0.2)
    missing = table["letters"] == ""
    assert missing.sum() == 1
    assert np.isnan(table.loc[missing, "emmean"]).all()
    for _, group in table.groupby("recipe", observed=True):
        assert "a" in "".join(group["letters"])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5])
def test_alpha_outside_its_range(means, alpha):
    with pytest.raises(InferenceError, match=f"alpha is {alpha}, not between"):
        means.letters(alpha)
