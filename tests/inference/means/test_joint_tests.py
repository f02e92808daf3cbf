"""Joint tests of marginal means against the analysis of variance and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError


@pytest.fixture(scope="module")
def oats():
    data = mf.datasets.load("Oats")
    return mf.fit("yield ~ C(nitro) * Variety + (1 | Block / Variety)", data)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "asymptotic"])
def test_joint_tests_are_type_three_where_no_cell_is_empty(oats, ddf):
    rng = np.random.default_rng(1)
    data = mf.datasets.load("Oats")
    some = data[rng.random(len(data)) > 0.15]
    m = mf.fit("yield ~ C(nitro) * Variety + (1 | Block)", some)
    joint = m.joint_tests(ddf=ddf).set_index("term")
    table = m.anova(3, ddf=ddf)
    for term, name in (("nitro", "C(nitro)"), ("Variety", "Variety")):
        assert joint.loc[term, "num_df"] == table.loc[name, "num_df"]
        # The Kenward-Roger F and the df depend a little on the rows of L.
        assert joint.loc[term, "f_value"] == pytest.approx(
            table.loc[name, "f_value"], rel=1e-3 if ddf == "kenward-roger" else 1e-7
        )
        assert joint.loc[term, "den_df"] == pytest.approx(
            table.loc[name, "den_df"], rel=0.05
        )


def test_covariates_are_tested_too():
    m = mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))
    row = m.joint_tests().iloc[0]
    assert row["term"] == "Days"
    assert row["f_value"] == pytest.approx(m.tvalues["Days"] ** 2)
    assert row["den_df"] == pytest.approx(17.0, rel=1e-5)


def test_tests_within_groups_are_those_of_the_pairs(oats):
    joint = oats.joint_tests(by="Variety")
    assert list(joint["term"]) == ["nitro"] * 3
    means = oats.emmeans("nitro", by="Variety").joint_tests()
    assert joint["f_value"].to_numpy() == pytest.approx(means["f_value"].to_numpy())
    # Balanced: (estimate of the four means' variance) * 6 / sigma^2.
    table = pd.DataFrame(oats.emmeans("nitro", by="Variety").table)
    spread = table.groupby("Variety", observed=True)["emmean"].var()
    want = 6.0 * spread / oats.sigma**2
    assert means["f_value"].to_numpy() == pytest.approx(want.to_numpy(), rel=1e-7)


def test_empty_cells_cost_degrees_of_freedom_and_say_so():
    data = mf.datasets.load("Oats")
    empty = (data["Variety"] == "Victory") & (data["nitro"] == 0.6)
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("yield ~ C(nitro) * Variety + (1 | Block)", data[~empty])
    joint = m.joint_tests()
    table = joint.set_index("term")
    assert table["num_df"].to_dict() == {"nitro": 2, "Variety": 1, "nitro:Variety": 5}
    assert "num_df is smaller" in str(joint)
    # The one comparison of varieties that has all its cells.
    two = m.emmeans("Variety").pairs("none").table.dropna()
    assert table.loc["Variety", "f_value"] == pytest.approx(two["t_value"].iloc[0] ** 2)
    within = m.emmeans("nitro", by="Variety").joint_tests()
    assert within["num_df"].tolist() == [3, 3, 2]


def test_nested_factors_are_compared_within():
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"a": np.repeat(["p", "q"], 12), "y": rng.normal(size=24)})
    data["b"] = data["a"] + np.tile(["1", "2", "3"], 8)
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("y ~ a / b", data)
    table = m.joint_tests().set_index("term")
    assert table["num_df"].to_dict() == {"a": 1, "a:b": 4}
    anova = m.anova(1)
    assert table.loc["a:b", "f_value"] == pytest.approx(anova.loc["a:b", "f_value"])


def test_nothing_to_test(oats):
    with pytest.raises(InferenceError, match="nothing to test"):
        oats.joint_tests(by=["Variety", "nitro"])
    with pytest.raises(InferenceError, match="no variable 'Varieti'"):
        oats.joint_tests(by="Varieti")
