"""Contrasts among means: their coefficients, labels and what cannot be asked."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.means.contrast_methods import METHODS, orthogonal_polynomials

#: Fisher and Yates, Table XXIII: orthogonal polynomials for 5, 6 and 7 values.
TABLE = {
    5: [[-2, -1, 0, 1, 2], [2, -1, -2, -1, 2], [-1, 2, 0, -2, 1], [1, -4, 6, -4, 1]],
    6: [[-5, -3, -1, 1, 3, 5], [5, -1, -4, -4, -1, 5], [-5, 7, 4, -4, -7, 5]],
    7: [[-3, -2, -1, 0, 1, 2, 3], [5, 0, -3, -4, -3, 0, 5], [-1, 1, 1, 0, -1, -1, 1]],
}


@pytest.fixture(scope="module")
def means():
    data = mf.datasets.load("ergoStool")
    return mf.fit("effort ~ Type + (1 | Subject)", data).emmeans("Type")


def coefficients(found, means):
    """Return C with L of the contrasts = C L of the means."""
    return np.linalg.lstsq(means.L.T, found.L.T, rcond=None)[0].T


@pytest.mark.parametrize("m", TABLE)
def test_polynomials_are_those_of_the_tables(m):
    assert orthogonal_polynomials(m, len(TABLE[m])) == TABLE[m]


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("trt.vs.ctrl", {"T2 - T1": [-1, 1, 0, 0], "T4 - T1": [-1, 0, 0, 1]}),
        ("treatment-control", {"T3 - T1": [-1, 0, 1, 0]}),
        ("consec", {"T2 - T1": [-1, 1, 0, 0], "T4 - T3": [0, 0, -1, 1]}),
        ("poly", {"linear": [-3, -1, 1, 3], "cubic": [-1, 3, -3, 1]}),
        ("eff", {"T1 effect": [0.75, -0.25, -0.25, -0.25]}),
        ("del.eff", {"T1 effect": [1, -1 / 3, -1 / 3, -1 / 3]}),
        (
            "mean_chg",
            {"T1|T2": [-1, 1 / 3, 1 / 3, 1 / 3], "T2|T3": [-0.5, -0.5, 0.5, 0.5]},
        ),
        ("pairwise", {"T1 - T4": [1, 0, 0, -1]}),
        ("revpairwise", {"T4 - T1": [-1, 0, 0, 1]}),
        ({"late": [-1, -1, 1, 1]}, {"late": [-1, -1, 1, 1]}),
        ({"T1": 1, "T3": -1}, {"contrast": [1, 0, -1, 0]}),
        ({"d": {"T1": 1, "T3": -1}}, {"d": [1, 0, -1, 0]}),
        ([1, 0, 0, -1], {"contrast 1": [1, 0, 0, -1]}),
        (np.eye(4)[:2], {"contrast 2": [0, 1, 0, 0]}),
    ],
)
def test_coefficients(means, method, rows):
    found = means.contrast(method)
    C = coefficients(found, means)
    labels = list(found.table["contrast"])
    for label, want in rows.items():
        assert C[labels.index(label)] == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_contrasts_of_the_means(means, method):
    found = means.contrast(method)
    C = coefficients(found, means)
    assert C.sum(axis=1) == pytest.approx(0.0, abs=1e-10)
    estimate = means.table["emmean"].to_numpy()
    assert found.table["estimate"].to_numpy() == pytest.approx(C @ estimate)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_mean_has_few_contrasts(method):
    m = mf.fit("effort ~ Type", mf.datasets.load("ergoStool"))
    one = m.emmeans("Type", at={"Type": ["T2"]})
    found = one.contrast(method)
    assert len(found.table) == (1 if "eff" in method else 0)
    assert str(found)


def test_any_level_can_be_the_control(means):
    found = means.contrast("trt.vs.ctrl", ref="T3").table
    assert list(found["contrast"]) == ["T1 - T3", "T2 - T3", "T4 - T3"]


def test_labels_that_hold_signs_are_bracketed_and_numbers_named():
    data = mf.datasets.load("Oats").astype({"Variety": str})
    m = mf.fit("yield ~ C(nitro) + Variety", data.replace("Victory", "A-1"))
    labels = list(m.emmeans("Variety").pairs().table["contrast"])
    assert labels[0] == "(A-1) - Golden Rain"
    assert m.emmeans("nitro").pairs().table["contrast"][0] == "nitro0 - nitro0.2"
    both = m.emmeans(["Variety", "nitro"])
    cells = both.contrast({("A-1", 0.0): 1, "Marvellous 0.2": -1})
    C = coefficients(cells, both)
    assert cells.table["estimate"].iloc[0] == pytest.approx(
        both.table["emmean"].iloc[0] - both.table["emmean"].iloc[5]
    )
    assert C.shape == (1, 12)


def test_contrasts_of_contrasts_are_interactions():
    data = mf.datasets.load("Oats")
    m = mf.fit("yield ~ C(nitro) * Variety", data)
    by = m.emmeans("Variety", by="nitro").pairs()
    twice = by.pairs(by="contrast")
    assert list(twice.table.columns[:2]) == ["contrast1", "contrast"]
    estimate = by.table["estimate"].to_numpy()
    assert twice.table["estimate"].iloc[0] == pytest.approx(estimate[0] - estimate[3])
    # Differences of differences of a saturated model: the interaction's F test.
    row = m.anova().loc["C(nitro):Variety"]
    joint = m.joint_tests().set_index("term").loc["nitro:Variety"]
    assert joint["f_value"] == pytest.approx(row["f_value"], rel=1e-8)
    assert joint["num_df"] == row["num_df"]


def test_by_can_be_removed():
    data = mf.datasets.load("Oats")
    m = mf.fit("yield ~ C(nitro) * Variety", data)
    means = m.emmeans("nitro", by="Variety", at={"nitro": [0, 0.2]})
    assert len(means.pairs().table) == 3
    assert len(means.pairs(by=[]).table) == 15
    assert len(means.pairs(by="nitro").table) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "pairs"}, ["Unknown contrast method 'pairs'", "'pairwise'"]),
        ({"method": [1, -1]}, ["2 coefficients, but there are 4", "T1, T2, T3, T4"]),
        ({"method": {"d": [1, -1]}}, ["2 coefficients, but there are 4"]),
        ({"method": {"T9": 1, "T1": -1}}, ["no mean for the level 'T9'", "T1, T2"]),
        ({"method": {}}, ["no coefficients"]),
        ({"method": {"d": ["x", 0, 0, 0]}}, ["finite numbers"]),
        ({"method": [np.nan, 0, 0, 0]}, ["finite numbers"]),
        ({"method": object()}, ["not numeric"]),
        ({"method": "trt.vs.ctrl", "ref": "T9"}, ["no mean for the level 'T9'"]),
        ({"method": "consec", "ref": "T1"}, ["comparisons with a control only"]),
        ({"method": "pairwise", "ref": "T1"}, ["comparisons with a control only"]),
        ({"method": "eff", "by": "Tipe"}, ["by='Tipe' is no column", "'Type'"]),
        ({"method": "eff", "adjust": "no"}, ["Unknown adjustment 'no'"]),
        ({"method": "eff", "level": 2.0}, ["level is 2.0"]),
    ],
)
def test_bad_input_is_named(means, options, words):
    with pytest.raises(InferenceError) as caught:
        means.contrast(**options)
    for word in words:
        assert word in str(caught.value)
