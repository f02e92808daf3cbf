"""Confidence intervals: estimate -/+ quantile * SE."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError


@pytest.fixture(scope="module")
def sleepstudy_fit():
    data = mf.datasets.load("sleepstudy")
    return mf.fit("Reaction ~ Days + (Days | Subject)", data)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_satterthwaite_interval_uses_t_quantiles(sleepstudy_fit, level):
    m = sleepstudy_fit
    quantile = stats.t.ppf(0.5 * (1.0 + level), m.ddf)
    limits = m.conf_int(level)
    np.testing.assert_allclose(limits["lower"], m.params - quantile * m.bse)
    np.testing.assert_allclose(limits["upper"], m.params + quantile * m.bse)
    assert list(limits.index) == list(m.params.index)


def test_wald_interval_uses_normal_quantiles(sleepstudy_fit):
    m = sleepstudy_fit
    limits = m.conf_int(method="wald")
    np.testing.assert_allclose(limits["lower"], m.params - 1.959963984540054 * m.bse)


def test_interval_holds_the_values_that_are_not_rejected(sleepstudy_fit):
    m = sleepstudy_fit
    for bound in m.conf_int(0.9).loc["Days"]:
        assert m.test({"Days": 1.0}, rhs=bound).p_value == pytest.approx(0.1)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, -0.1])
def test_level_outside_zero_and_one_is_refused(sleepstudy_fit, level):
    with pytest.raises(InferenceError, match="not between 0 and 1") as caught:
        sleepstudy_fit.conf_int(level)
    assert "0.95" in str(caught.value)


@pytest.mark.parametrize("level", ["Subject", None, True, [0.95]])
def test_level_that_is_no_number_is_refused(sleepstudy_fit, level):
    with pytest.raises(InferenceError, match="not a number") as caught:
        sleepstudy_fit.conf_int(level)
    assert repr(level) in str(caught.value)


def test_unknown_method_names_the_nearest(sleepstudy_fit):
    with pytest.raises(
        InferenceError, match="Unknown interval method 'walt'"
    ) as caught:
        sleepstudy_fit.conf_int(method="walt")
    assert "wald" in str(caught.value)


def test_an_error_rate_is_not_taken_for_a_level(sleepstudy_fit):
    with pytest.raises(InferenceError, match=r"Write level=0\.95 for 95 %"):
        sleepstudy_fit.conf_int(0.05)


def test_intervals_of_some_parameters_come_in_the_order_asked_for(sleepstudy_fit):
    names = ["Days", "Intercept"]
    assert list(sleepstudy_fit.conf_int(parameters=names).index) == names
    assert list(
        sleepstudy_fit.conf_int(method="profile", parameters="sigma").index
    ) == ["sigma"]
    with pytest.raises(InferenceError, match=r"no parameter 'Dayz'[\s\S]*'Days'"):
        sleepstudy_fit.conf_int(parameters="Dayz")
