"""mf.estimable: which functions of beta are, and the reason in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

import mixform as mf
from mixform.errors import DesignError, InferenceError

PIGS = pd.DataFrame({"mu": 1.0, "d1": [1.0, 1, 1, 0, 0, 0], "d2": [0.0, 0, 0, 1, 1, 1]})


def pigs():
    return mf.fit("gain ~ group", mf.datasets.load("pigs"), contrasts={"group": "full"})


def test_difference_of_cells_is_estimable_as_one():
    answer = mf.estimable(pigs(), "group[Treatment] - group[Control] = 0")
    assert answer
    assert answer.combinations == ({"group = Treatment": 1.0, "group = Control": -1.0},)
    assert str(answer) == (
        "group[Treatment] - group[Control] = 0: estimable\n"
        "    E(y | group = Treatment) - E(y | group = Control)"
    )


def test_solutions_by_themselves_are_not_and_the_direction_is_named():
    answer = mf.estimable(pigs())
    assert not answer
    assert not answer.table["estimable"].any()
    assert answer.table.loc["group[Control]", "reason"] == (
        "adding -1 to Intercept and 1 to every group[...] leaves all fitted values as "
        "they are, but changes this function by 1"
    )
    assert answer.combinations == ({}, {}, {})


def test_m_test_refuses_with_the_same_reason():
    m = pigs()
    reason = mf.estimable(m, {"group[Control]": 1}).table["reason"].iloc[0]
    with pytest.raises(InferenceError) as caught:
        m.test({"group[Control]": 1})
    assert reason in str(caught.value)


MODELS = {
    "X frame": PIGS,
    "X array": PIGS.to_numpy(),
    "X sparse": csr_array(PIGS.to_numpy()),
    "gls": mf.gls([53.0, 46, 58, 61, 66, 57], PIGS),
    "Henderson": mf.MixedModelEquations(
        [53.0, 46, 58, 61, 66, 57], PIGS, np.eye(6), G=np.eye(6)
    ).solve(),
    "Henderson, cg": mf.MixedModelEquations(
        [53.0, 46, 58, 61, 66, 57], csr_array(PIGS.to_numpy()), np.eye(6), G=np.eye(6)
    ).solve("cg"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_all_that_has_an_x_is_taken(model):
    answer = mf.estimable(model, [[1, 1, 0], [0, 1, 0], [1, 0.5, 0.5], [0, 0, 0]])
    assert answer.table["estimable"].tolist() == [True, False, True, True]
    assert answer.combinations[0] == {"row 1": 1.0}
    halves = answer.combinations[2]
    assert halves == pytest.approx({"row 1": 0.5, "row 4": 0.5})
    assert answer.table["reason"].iloc[3] == "zero whatever the coefficients are"


def random_design(seed):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "a": rng.choice(list("pqr"), 25),
            "b": rng.choice(list("uvw"), 25),
            "x": rng.normal(size=25),
            "y": rng.normal(size=25),
        }
    )
    data = data[~((data["a"] == "p") & (data["b"] == "v"))]
    return mf.fit("y ~ a * b + x", data, contrasts={"a": "full", "b": "full"})


@pytest.mark.parametrize("seed", range(3))
def test_combinations_of_rows_make_the_function(seed):
    with pytest.warns(mf.RankDeficiencyWarning):
        m = random_design(seed)
    X = m.design.X.to_numpy()
    rng = np.random.default_rng(seed)
    L = rng.normal(size=(3, len(X))) @ X
    answer = mf.estimable(m, L)
    assert answer
    # Each row of these data is a cell of its own, by its x.
    named = {f"{x:.6g}": row for x, row in zip(m.design.X["x"], X, strict=True)}
    for ell, combination in zip(L, answer.combinations, strict=True):
        made = sum(
            weight * named[name.split("x = ")[1]]
            for name, weight in combination.items()
        )
        np.testing.assert_allclose(made, ell, atol=1e-8)
    N = m.design.fixed.space.null_space
    np.testing.assert_allclose(X @ N, 0.0, atol=1e-10)
    assert N.shape[1] == X.shape[1] - np.linalg.matrix_rank(X)


def test_size_of_the_change_is_that_of_the_direction_told():
    answer = mf.estimable(PIGS, "3*d1 - d2 = 0")
    assert (
        answer.table["reason"]
        .iloc[0]
        .endswith(
            "adding -1 to mu and 1 to d1, d2 leaves all fitted values as they are, but "
            "changes this function by 2"
        )
    )


def test_regression_names_values_of_covariates():
    data = pd.DataFrame({"y": [1.0, 3, 2, 5], "x": [0.0, 1, 2, 4]})
    m = mf.fit("y ~ x", data)
    assert str(mf.estimable(m, "x = 0")).endswith("E(y | x = 1) - E(y | x = 0)")
    assert str(mf.estimable(m, "Intercept = 0")).endswith("E(y | x = 0)")
    assert mf.estimable(mf.fit("y ~ 1", data)).combinations == ({"row 0": 1.0},)


def test_sparse_rows_are_rows():
    rows = csr_array([[0.0, 1.0, -1.0]])
    assert str(mf.estimable(PIGS, rows)) == str(mf.estimable(PIGS, rows.toarray()))


def test_long_lists_of_names_are_cut():
    X = np.column_stack([np.ones(20), np.eye(20)])
    reason = mf.estimable(X, {"x1": 1}).table["reason"].iloc[0]
    assert "x13, ... (8 more) leaves all fitted values" in reason


def test_bad_input_is_told():
    with pytest.raises(InferenceError, match="There is no coefficient 'd3'"):
        mf.estimable(PIGS, {"d3": 1})
    for nothing in ([], {}, "", np.ones((0, 3))):
        with pytest.raises(InferenceError, match="L has no rows"):
            mf.estimable(PIGS, nothing)
    with pytest.raises(InferenceError, match=r"'d1' has .*, not one number"):
        mf.estimable(PIGS, {"d1": [1, 2]})
    with pytest.raises(InferenceError, match=r"L has shape \(1, 1, 3\)"):
        mf.estimable(PIGS, [[[1, 1, 0]]])
    growth = mf.lm_list("distance ~ age | Subject", mf.datasets.load("Orthodont"))
    for many in (growth, growth.second_stage()):
        with pytest.raises(InferenceError, match="is not one model with one X"):
            mf.estimable(many)
    with pytest.raises(InferenceError, match="L has 2 columns"):
        mf.estimable(PIGS, [[1, 2]])
    with pytest.raises(DesignError, match=r"X has shape \(3,\)"):
        mf.estimable([1.0, 2, 3])
    with pytest.raises(DesignError, match="X is not numeric"):
        mf.estimable("model")


def test_posterior_has_the_columns_of_its_model():
    pytest.importorskip("nutpie")
    data = mf.datasets.load("pigs")
    control = {"draws": 20, "tune": 50, "chains": 1, "seed": 1}
    with pytest.warns(mf.ConvergenceWarning):
        posterior = mf.fit(
            "gain ~ group",
            data,
            contrasts={"group": "full"},
            method="Bayes",
            control=control,
        )
    assert str(mf.estimable(posterior)) == str(mf.estimable(pigs()))
