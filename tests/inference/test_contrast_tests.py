"""t and F tests of L beta = rhs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError


@pytest.fixture(scope="module")
def stools():
    """Four types of stool, nine subjects: a balanced block design, 24 df."""
    return mf.fit("effort ~ Type + (1 | Subject)", mf.datasets.load("ergoStool"))


def test_t_test_is_estimate_over_se(stools):
    row = stools.test({"Type[T.T2]": 1.0, "Type[T.T3]": -1.0}).table.iloc[0]
    estimate = stools.params["Type[T.T2]"] - stools.params["Type[T.T3]"]
    # A difference of two means of 9: SE^2 = 2 sigma^2 / 9, 3 * 8 df.
    se = stools.sigma * np.sqrt(2.0 / 9.0)
    assert row["estimate"] == pytest.approx(estimate)
    assert row["se"] == pytest.approx(se)
    assert row["t_value"] == pytest.approx(estimate / se)
    assert row["df"] == pytest.approx(24.0, rel=1e-5)
    p = 2.0 * stats.t.sf(abs(estimate / se), row["df"])
    assert row["p_value"] == pytest.approx(p)


def test_f_of_one_row_is_the_square_of_its_t(stools):
    found = stools.test("Type[T.T2] = 1")
    row = found.table.iloc[0]
    assert found.num_df == 1
    assert found.f_value == pytest.approx(row["t_value"] ** 2)
    assert found.den_df == pytest.approx(row["df"])
    assert found.p_value == pytest.approx(row["p_value"])


def test_right_hand_side_is_subtracted(stools):
    estimate, se = stools.params["Type[T.T2]"], stools.bse["Type[T.T2]"]
    row = stools.test({"Type[T.T2]": 1.0}, rhs=3.0).table.iloc[0]
    assert row["t_value"] == pytest.approx((estimate - 3.0) / se)
    assert row["estimate"] == pytest.approx(estimate)


def test_hypothesis_at_the_estimate_has_f_zero(stools):
    L = np.eye(4)[1:]
    found = stools.test(L, rhs=stools.params.to_numpy()[1:])
    assert found.f_value == pytest.approx(0.0, abs=1e-20)
    assert found.p_value == pytest.approx(1.0)


def test_joint_test_of_a_factor_is_its_f_test(stools):
    found = stools.test(np.eye(4)[1:])
    row = stools.anova().loc["Type"]
    assert found.num_df == 3
    assert found.f_value == pytest.approx(row["f_value"])
    assert found.den_df == pytest.approx(row["den_df"])
    assert found.f_value == pytest.approx(22.355641, rel=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_f_depends_on_the_space_of_the_rows_only(stools, seed):
    L = np.eye(4)[1:]
    mixed = np.random.default_rng(seed).normal(size=(3, 3)) @ L
    one, other = stools.test(L), stools.test(mixed)
    assert other.f_value == pytest.approx(one.f_value)
    assert other.den_df == pytest.approx(one.den_df, rel=1e-5)


def test_repeated_rows_count_once(stools):
    L = np.eye(4)[[1, 2, 1]]
    found, once = stools.test(L), stools.test(L[:2])
    assert found.num_df == 2
    assert found.f_value == pytest.approx(once.f_value)
    assert found.p_value == pytest.approx(once.p_value)
    assert len(found.table) == 3


def test_p_value_is_the_tail_of_f(stools):
    found = stools.test(np.eye(4)[1:3])
    tail = stats.f.sf(found.f_value, found.num_df, found.den_df)
    assert found.p_value == pytest.approx(tail)


def test_rows_that_contradict_each_other_are_refused(stools):
    L = np.eye(4)[[1, 1]]
    with pytest.raises(InferenceError, match="contradict each other"):
        stools.test(L, rhs=[0.0, 1.0])


def test_empty_hypothesis_is_refused(stools):
    with pytest.raises(InferenceError, match="every coefficient of L is zero"):
        stools.test(np.zeros((1, 4)))


def test_rows_of_any_size_count_alike(stools):
    L = np.eye(4)[1:] * np.array([[1e-8], [1.0], [1e8]])
    found = stools.test(L)
    assert found.num_df == 3
    assert found.f_value == pytest.approx(stools.anova().loc["Type", "f_value"])


def test_joint_test_does_not_depend_on_the_units_of_covariates():
    data = mf.datasets.load("sleepstudy")
    data["Z"] = np.sin(np.arange(180.0))
    base = mf.fit("Reaction ~ Days + Z + (1 | Subject)", data)
    data["Days"] *= 1e-6
    data["Z"] *= 1e6
    m = mf.fit("Reaction ~ Days + Z + (1 | Subject)", data)
    one, other = (fit.test("Days = 0, Z = 0") for fit in (base, m))
    assert other.f_value == pytest.approx(one.f_value)


def test_printed_test_states_f_its_df_and_p(stools):
    found = stools.test("Type[T.T2] = 0, Type[T.T3] = 0")
    verdict = str(found).splitlines()[-1]
    assert verdict.startswith(f"F(2, {found.den_df:.5g}) = {found.f_value:.5g}, p = ")
    assert repr(found) == str(found)


def test_value_under_the_hypothesis_is_printed(stools):
    name = "Type[T.T2]"
    given = stools.test({"two": {name: 1}, "three": {"Type[T.T3]": 1}}, rhs=[4, 0])
    assert given.rhs.to_dict() == {"two": 4.0, "three": 0.0}
    assert str(given).splitlines()[0].split() == [
        *["estimate", "se", "rhs", "df", "t_value", "p_value"]
    ]
    assert str(given).splitlines()[1].split()[3] == "4"
    assert "rhs" not in str(stools.test({name: 1}))
    pd.testing.assert_frame_equal(
        stools.test({name: 1}, rhs=4).table.reset_index(drop=True),
        stools.test(f"{name} = 4").table.reset_index(drop=True),
    )


def test_rows_of_a_frame_with_one_label_are_both_tested(stools):
    rows = [{"Type[T.T2]": 1.0}, {"Type[T.T3]": 1.0}]
    found = stools.test(pd.DataFrame(rows, index=["same", "same"]).fillna(0.0))
    assert found.num_df == 2
    assert found.f_value == stools.test("Type[T.T2] = 0, Type[T.T3] = 0").f_value
