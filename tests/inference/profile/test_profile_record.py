"""What a profile can be asked: limits, zeta, densities, traces, frames."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import ndtr, ndtri

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.profile.parameters import list_parameters
from mixform.inference.profile.profile import profile, profile_interval

NAMES = [
    "sd(Subject: Intercept)",
    "cor(Subject: Intercept, Days)",
    "sd(Subject: Days)",
    "sigma",
    "Intercept",
    "Days",
]


@pytest.fixture(scope="module")
def sleepstudy():
    data = mf.datasets.load("sleepstudy")
    result = mf.fit("Reaction ~ Days + (Days|Subject)", data)._fit
    return result, profile(result)


def test_names_are_ours_and_lme4s(sleepstudy):
    found = list_parameters(sleepstudy[0])
    assert [p.name for p in found] == NAMES
    assert [p.lme4_name for p in found] == [
        ".sig01",
        ".sig02",
        ".sig03",
        ".sigma",
        "(Intercept)",
        "Days",
    ]


def test_lme4_numbers_terms_by_falling_number_of_levels():
    # Penicillin has 24 plates and 6 samples.
    data = mf.datasets.load("Penicillin")
    result = mf.fit("diameter ~ 1 + (1|sample) + (1|plate)", data)._fit
    found = {p.name: p.lme4_name for p in list_parameters(result)}
    assert found["sd(plate: Intercept)"] == ".sig01"
    assert found["sd(sample: Intercept)"] == ".sig02"


def test_a_coefficient_called_sigma_keeps_its_name():
    data = mf.datasets.load("sleepstudy").rename(columns={"Days": "sigma"})
    result = mf.fit("Reaction ~ sigma + (1|Subject)", data)._fit
    table = profile_interval(result, ["sigma", ".sigma"])
    assert table.loc["sigma", "estimate"] == pytest.approx(10.467286)
    assert table.loc[".sigma", "estimate"] == pytest.approx(result.sigma)


def test_limits_of_the_profile_are_those_found_directly(sleepstudy):
    result, found = sleepstudy
    for level in (0.5, 0.95):
        direct = profile_interval(result, level=level)
        by_spline = found.conf_int(level)
        assert list(by_spline.index) == list(direct.index)
        for side in ("lower", "upper"):
            assert by_spline[side].to_numpy() == pytest.approx(
                direct[side].to_numpy(), rel=2e-5
            )


def test_zeta_at_the_limits_is_the_normal_quantile(sleepstudy):
    result, found = sleepstudy
    table = profile_interval(result, level=0.9)
    for name in NAMES:
        zeta = found.zeta(name, table.loc[name, ["lower", "upper"]])
        assert zeta.to_numpy() == pytest.approx(ndtri([0.05, 0.95]), abs=1e-4)
        assert found.zeta(name, table.loc[name, "estimate"]).item() == pytest.approx(
            0.0, abs=1e-8
        )
    outside = found.zeta("sigma", [-1.0, 1e3]).to_numpy()
    assert np.isnan(outside).all()


def test_points_rise_to_the_cutoff(sleepstudy):
    result, found = sleepstudy
    frame = found.to_frame()
    columns = ["parameter", "lme4_name", "zeta", "value", "criterion", *NAMES]
    assert list(frame.columns) == columns
    assert found.cutoff == pytest.approx(np.sqrt(16.811894))  # chi-square, 6 df, 0.99
    for name, part in frame.groupby("parameter", observed=True):
        assert np.all(np.diff(part["zeta"]) > 0.0)
        assert np.all(np.diff(part["value"]) > 0.0)
        assert part["value"].to_numpy() == pytest.approx(part[name].to_numpy())
        rise = part["criterion"] - result.criterion
        assert part["zeta"].to_numpy() ** 2 == pytest.approx(rise.to_numpy(), abs=1e-9)
        if not name.startswith("cor"):
            assert part["zeta"].iloc[0] <= -found.cutoff
            assert part["zeta"].iloc[-1] >= found.cutoff


def test_density_is_the_normal_one_carried_over(sleepstudy):
    _, found = sleepstudy
    for name in NAMES:
        frame = found.density(name, 2001)
        inside = frame[np.isfinite(frame["density"])]
        total = trapezoid(inside["density"], inside["value"])
        ends = found.curve(name).zeta[[0, -1]]
        assert total == pytest.approx(np.diff(ndtr(ends)).item(), abs=2e-3)
    with pytest.raises(InferenceError, match="at least 2 points"):
        found.density("sigma", 1)


def test_traces_cross_at_the_estimates(sleepstudy):
    result, found = sleepstudy
    traces = found.pairs("Intercept", "Days")
    assert list(traces.columns) == ["along", "value_1", "value_2", "zeta_1", "zeta_2"]
    for along, part in traces.groupby("along", observed=True):
        own, other = ("1", "2") if along == "Intercept" else ("2", "1")
        middle = part[part[f"zeta_{own}"] == 0.0]
        assert middle[["value_1", "value_2"]].to_numpy()[0] == pytest.approx(
            result.beta
        )
        # Balanced data: the other coefficient is linear in this one, by regression.
        covariance = result.V_beta[0, 1] / result.V_beta[int(own) - 1, int(own) - 1]
        line = result.beta[int(other) - 1] + covariance * (
            part[f"value_{own}"] - result.beta[int(own) - 1]
        )
        near = np.abs(part[f"zeta_{own}"]) < 1.0
        assert part[f"value_{other}"][near].to_numpy() == pytest.approx(
            line[near].to_numpy(), rel=0.02
        )


def test_some_parameters_only(sleepstudy):
    result, _ = sleepstudy
    found = profile(result, parameters=[".sigma", "Days"], level=0.9)
    assert list(found.curves) == ["sigma", "Days"]
    assert list(found.conf_int().index) == ["sigma", "Days"]
    with pytest.raises(InferenceError, match="'Intercept' was not profiled"):
        found.zeta("Intercept")


def test_a_level_beyond_the_profile_is_refused(sleepstudy):
    with pytest.raises(InferenceError, match=r"needs 4\.89"):
        sleepstudy[1].conf_int(0.999999)


def test_a_profile_can_be_pickled(sleepstudy):
    again = pickle.loads(pickle.dumps(sleepstudy[1]))
    assert again.conf_int().equals(sleepstudy[1].conf_int())
    assert repr(again).startswith("<Profile of 'Reaction ~ Days + (Days|Subject)'")
