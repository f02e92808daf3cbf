"""Adjusted p values and limits: closed forms, and where methods stand in for others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.means.adjustment import ADJUSTMENTS

#: Methods that are never stricter than Bonferroni's nor laxer than none.
BETWEEN = [a for a in ADJUSTMENTS if a not in {"none", "scheffe", "fdr_by"}]


@pytest.fixture(scope="module")
def means():
    data = mf.datasets.load("ergoStool")
    return mf.fit("effort ~ Type + (1 | Subject)", data).emmeans("Type")


def p_of(means, adjust, method="pairwise"):
    return means.contrast(method, adjust).table["p_value"].to_numpy()


def test_closed_forms(means):
    p = p_of(means, "none")
    assert p_of(means, "bonferroni") == pytest.approx(np.minimum(6 * p, 1.0))
    assert p_of(means, "sidak") == pytest.approx(1.0 - (1.0 - p) ** 6)
    fdr = stats.false_discovery_control(p)
    assert p_of(means, "fdr") == pytest.approx(fdr)
    assert p_of(means, "bh") == pytest.approx(fdr)
    by = stats.false_discovery_control(p, method="by")
    assert p_of(means, "fdr_by") == pytest.approx(by)


def test_holm_by_hand(means):
    p = p_of(means, "none")
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(6, 0, -1))
    assert p_of(means, "holm")[order] == pytest.approx(np.minimum(steps, 1.0))


def test_tukey_in_a_balanced_design_is_the_studentized_range_test(means):
    table = means.pairs().table
    want = stats.studentized_range.sf(np.sqrt(2) * np.abs(table["t_value"]), 4, 24)
    assert table["p_value"].to_numpy() == pytest.approx(want, abs=1e-5)
    # Dunnett's method on all pairs is the same there.
    assert p_of(means, "dunnett") == pytest.approx(want, abs=1e-4)


def test_scheffe_is_the_f_test_of_the_worst_contrast(means):
    table = means.pairs("none").table
    want = stats.f.sf(table["t_value"] ** 2 / 3, 3, table["df"])
    assert p_of(means, "scheffe") == pytest.approx(want)


@pytest.mark.parametrize("adjust", BETWEEN)
@pytest.mark.parametrize("method", ["pairwise", "trt.vs.ctrl", "eff"])
def test_adjusted_p_are_between_unadjusted_and_bonferroni(means, adjust, method):
    p = p_of(means, "none", method)
    found = p_of(means, adjust, method)
    assert np.all(found >= p - 1e-9)
    assert np.all(found <= p_of(means, "bonferroni", method) + 2e-5)


@pytest.mark.parametrize(
    "adjust", ["tukey", "dunnett", "sidak", "bonferroni", "scheffe", "none"]
)
def test_limits_exclude_zero_where_p_is_below_alpha(means, adjust):
    pairs = means.pairs(adjust)
    p = pairs.table["p_value"].to_numpy()
    # At the level at which one p value is just significant, a limit is zero.
    for i in np.flatnonzero(p < 1.0)[:2]:
        limits = pairs.conf_int(1.0 - p[i]).iloc[i]
        nearer = min(abs(limits["lower"]), abs(limits["upper"]))
        assert nearer == pytest.approx(0.0, abs=2e-3)


def test_tukey_elsewhere_is_sidak_and_says_so(means):
    found = means.contrast("eff", "tukey")
    assert p_of(means, "tukey", "eff") == pytest.approx(p_of(means, "sidak", "eff"))
    assert 'adjust="tukey" was changed to "sidak"' in str(found)
    assert "was changed" in str(means.conf_int(adjust="tukey"))
    assert "was changed" not in str(means.pairs())


def test_stepwise_limits_are_bonferroni_and_say_so(means):
    holm, bonferroni = (means.pairs(a).conf_int() for a in ("holm", "bonferroni"))
    assert holm["lower"].to_numpy() == pytest.approx(bonferroni["lower"].to_numpy())
    assert "Conf-level adjustment: bonferroni method for 6 estimates" in str(holm)


def test_families_are_the_groups_unless_asked_otherwise():
    data = mf.datasets.load("Oats")
    m = mf.fit("yield ~ C(nitro) * Variety + (1 | Block / Variety)", data)
    means = m.emmeans("nitro", by="Variety")
    pairs = means.pairs("bonferroni")
    plain = means.pairs("none").table["p_value"].to_numpy()
    p = pairs.table["p_value"].to_numpy()
    assert p == pytest.approx(np.minimum(6 * plain, 1.0))
    together = pairs.test(by=[])["p_value"].to_numpy()
    assert together == pytest.approx(np.minimum(18 * plain, 1.0))
    # Tukey's method is for one set of means.
    assert "was changed" in str(means.pairs().test(by=[]))


def test_one_contrast_is_not_adjusted():
    data = mf.datasets.load("Machines")
    m = mf.fit("score ~ Machine + (1 | Worker)", data)
    means = m.emmeans("Machine", at={"Machine": ["A", "B"]})
    plain = means.pairs("none").table["p_value"].to_numpy()
    for adjust in ADJUSTMENTS:
        found = means.pairs(adjust)
        assert found.table["p_value"].to_numpy() == pytest.approx(plain), adjust


def test_what_is_not_estimable_counts_in_the_family(means):
    data = mf.datasets.load("cake")
    data = data[~((data["recipe"] == "A") & (data["temperature"].astype(str) == "175"))]
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("angle ~ recipe * C(temperature) + (1 | replicate)", data)
    pairs = m.emmeans("recipe", by="temperature", at={"temperature": [175]})
    plain = pairs.pairs("none").table["p_value"].to_numpy()
    for adjust in ("bonferroni", "holm"):
        found = pairs.pairs(adjust).table["p_value"].to_numpy()
        assert np.isnan(found).tolist() == [True, True, False]
        assert found[2] == pytest.approx(min(3 * plain[2], 1.0))


@pytest.mark.parametrize("adjust", ["turkey", "", 5])
def test_unknown_adjustment(means, adjust):
    with pytest.raises(InferenceError, match=f"Unknown adjustment {adjust!r}"):
        means.pairs(adjust)


def test_unknown_family_and_null(means):
    with pytest.raises(InferenceError, match="by='Typ' is no column"):
        means.pairs().test(by="Typ")
    with pytest.raises(InferenceError, match="null value is nan"):
        means.test(null=float("nan"))
