"""Residual structures against nlme, glmmTMB and SAS; see references/README.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests import residual_oracle as oracle
from tests.residual_references import (
    MODELS,
    SAS,
    data_named,
    fit_reference,
    fit_sas,
    implied_covariance,
)

#: Slower than a second: 224 rows that are all correlated; Matern's smoothness.
SLOW = {name for name in MODELS if name.startswith("wheat2")} | {"field_mat"}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in MODELS
]
#: glmmTMB keeps a residual variance of 1.5e-8 beside the structure.
SLACK = 1e-5
#: Where the likelihood is flat (Matern's range against smoothness): all of it.
FLAT = {"field_mat": 0.02}


def standard_errors(model: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: float(row["se"]) for row in model["fixed"]}


@pytest.mark.parametrize("name", NAMES)
def test_criterion_is_no_worse_and_the_same(name):
    expected = float(MODELS[name]["criterion"])
    criterion = fit_reference(name).criterion
    assert criterion <= expected + SLACK
    assert criterion == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_fit_is_certified(name):
    assert fit_reference(name).convergence.converged


@pytest.mark.parametrize("name", NAMES)
def test_counts(name):
    m, model = fit_reference(name), MODELS[name]
    assert m.nobs == model["n"]
    assert len(m.params) == model["p"]


@pytest.mark.parametrize("name", NAMES)
def test_fixed_effects_are_within_a_thousandth_of_their_se(name):
    params = fit_reference(name).params
    for row in MODELS[name]["fixed"]:
        estimate, se = float(row["estimate"]), float(row["se"])
        assert params[row["name"]] == pytest.approx(estimate, abs=1e-3 * se)


@pytest.mark.parametrize("name", NAMES)
def test_standard_errors(name):
    """From (X'V^-1X)^-1 at the estimates, without nlme's n / (n - p) under ML."""
    bse = fit_reference(name).bse
    relative = FLAT.get(name, 2e-4)
    for label, se in standard_errors(MODELS[name]).items():
        assert bse[label] == pytest.approx(se, rel=relative)


@pytest.mark.parametrize("name", NAMES)
def test_residual_covariance(name):
    model = MODELS[name]
    expected = np.array(model["covariance"]["matrix"], dtype=float)
    found = implied_covariance(fit_reference(name), model)
    sd = np.sqrt(np.diag(expected))
    scale = np.outer(sd, sd)
    np.testing.assert_allclose(
        found / scale, expected / scale, rtol=0, atol=FLAT.get(name, 1e-3)
    )


@pytest.mark.parametrize("name", [k for k, v in MODELS.items() if v["random"]])
def test_random_effect_variances(name):
    table = fit_reference(name).varcorr
    variances = {
        (row["grp"], row["var1"]): float(row["vcov"])
        for row in MODELS[name]["random"]
        if row["var2"] is None
    }
    for row in MODELS[name]["random"]:
        same = (table["grp"] == row["grp"]) & (table["var1"] == row["var1"])
        other = table["var2"]
        same &= other.isna() if row["var2"] is None else other == row["var2"]
        scale = math.sqrt(
            variances[row["grp"], row["var1"]]
            * variances[row["grp"], row["var2"] or row["var1"]]
        )
        (found,) = table.loc[same, "vcov"]
        assert found == pytest.approx(float(row["vcov"]), abs=2e-3 * scale)


# ---- SAS -----------------------------------------------------------------------------


def half_unit(printed: str) -> float:
    """Half a unit in the last digit that was printed."""
    digits = len(printed.partition(".")[2])
    return 0.5 * 10.0**-digits


def implied_by_sas(entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the covariance at SAS's parameters, by stratum, of a complete subject."""
    structure = entry["residual"].partition("(")[0]
    values = np.array(entry["parameters"], dtype=float)
    strata = ["PBO", "TRT"] if "/" in entry["residual"] else [""]
    out = {}
    for stratum, phi in zip(strata, np.split(values, len(strata)), strict=True):
        if structure in oracle.POSITIONS:
            out[stratum] = oracle.POSITIONS[structure](phi, 4)
            continue
        data = data_named("fev")
        columns = ["VISITN", "VISITN2"] if "VISITN2" in entry["residual"] else "VISITN"
        where = data.loc[data["USUBJID"] == "PT8", columns].to_numpy()
        out[stratum] = oracle.COORDINATES[structure](phi, where)
    return out


INTERCEPT = {entry["id"]: entry for entry in SAS["intercept"]}
ARM = {entry["id"]: entry for entry in SAS["arm"]}


@pytest.mark.parametrize("entry", INTERCEPT.values(), ids=INTERCEPT)
def test_sas_fits(entry):
    """SAS stops at a relative decrease below 1e-8, 1e-5 above its minimum."""
    m = fit_sas("1", entry["residual"], entry["method"])
    expected = float(entry["criterion"])
    assert m.criterion <= expected + 1e-6
    assert m.criterion == pytest.approx(expected, abs=5e-5)
    se = float(entry["se"])
    slack = half_unit(entry["estimate"])
    assert m.params["Intercept"] == pytest.approx(
        float(entry["estimate"]), abs=slack + 1e-3 * se
    )
    assert m.bse["Intercept"] == pytest.approx(se, abs=half_unit(entry["se"]) + 1e-4)
    assert m.ddf["Intercept"] == pytest.approx(float(entry["df"]), abs=0.5, rel=1e-3)


@pytest.mark.parametrize("entry", INTERCEPT.values(), ids=INTERCEPT)
def test_sas_parameters(entry):
    m = fit_sas("1", entry["residual"], entry["method"])
    structure = entry["residual"].partition("(")[0]
    for stratum, expected in implied_by_sas(entry).items():
        if structure in oracle.POSITIONS:
            table = (
                m.residual_covariance(stratum) if stratum else m.residual_covariance()
            )
        else:
            table = m.residual_covariance(subject="PT8")
        sd = np.sqrt(np.diag(expected))
        scale = np.outer(sd, sd)
        np.testing.assert_allclose(table / scale, expected / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("entry", ARM.values(), ids=ARM)
def test_sas_kenward_roger(entry):
    """W is the inverse of the observed information, phi are SAS's parameters."""
    m = fit_sas("ARMCD", entry["residual"], "REML")
    name = "ARMCD[T.TRT]"
    se = float(entry["kr"]["se"])
    rounding = half_unit(entry["kr"]["se"])
    assert m.params[name] == pytest.approx(float(entry["estimate"]), abs=1e-3 * se)
    V = m.cov_params("kenward-roger-observed")
    found = math.sqrt(float(V.loc[name, name]))  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx(se, rel=3e-4, abs=rounding)
    test = m.test(f"{name} = 0", ddf="kenward-roger-observed")
    printed = entry["kr"]["df"]
    rounding = half_unit(printed) if "." not in printed else 0.0
    assert test.den_df == pytest.approx(float(printed), rel=1e-3, abs=rounding)


@pytest.mark.parametrize(
    "entry", [e for e in ARM.values() if "satterthwaite" in e], ids=lambda e: e["id"]
)
def test_sas_satterthwaite(entry):
    m = fit_sas("ARMCD", entry["residual"], "REML")
    expected = entry["satterthwaite"]
    assert m.bse["ARMCD[T.TRT]"] == pytest.approx(float(expected["se"]), abs=6e-5)
    assert m.ddf["ARMCD[T.TRT]"] == pytest.approx(float(expected["df"]), abs=0.5)
