"""The dense computation of residual_oracle against differences, R and SAS."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

import mixform as mf
from tests import residual_oracle as oracle
from tests.residual_references import HERE, SAS, data_named

STARTS = {
    "us": [4.0, 1.0, 3.0, 0.5, 0.7, 5.0, 0.2, 0.4, 1.0, 6.0],
    "diag": [4.0, 3.0, 5.0, 6.0],
    "cs": [1.0, 3.0],
    "csh": [4.0, 3.0, 5.0, 6.0, 0.3],
    "ar1": [0.5, 4.0],
    "arh1": [4.0, 3.0, 5.0, 6.0, 0.5],
    "toep": [1.0, 0.5, 0.3, 4.0],
    "toeph": [4.0, 3.0, 5.0, 6.0, 0.4, 0.2, 0.1],
    "ante1": [4.0, 3.0, 5.0, 6.0, 0.5, 0.2, -0.4],
    "car1": [0.6, 4.0],
    "exp": [1.5, 4.0],
    "gau": [1.5, 4.0, 0.2],
    "mat32": [0.8, 4.0, 0.1],
}


def small_model(structure, *, reml=True):
    """Eight subjects of up to four visits, two columns of X, weights."""
    rng = np.random.default_rng(5)
    subjects = np.repeat(np.arange(8), 4)
    where = np.tile(np.arange(4), 8)
    kept = rng.uniform(size=32) < 0.85
    n = kept.sum()
    if structure in oracle.COORDINATES:
        where = where + rng.uniform(0.0, 0.5, 32)
    scale = rng.uniform(0.7, 1.4, n)
    V = oracle.subject_covariance(
        structure, subjects[kept], where[kept], scale=scale, size=4
    )
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    return oracle.Oracle(rng.normal(size=n) * 2.0, X, V, reml)


def test_every_structure_is_tried():
    assert set(STARTS) == set(oracle.POSITIONS) | set(oracle.COORDINATES)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("structure", STARTS)
def test_gradient_and_hessian_are_those_of_the_criterion(structure, reml):
    model, phi = small_model(structure, reml=reml), np.array(STARTS[structure])
    here = oracle.at(model, phi)
    assert here.H is not None
    for k in range(len(phi)):
        h = 1e-4 * np.eye(len(phi))[k]
        up, down = oracle.at(model, phi + h, False), oracle.at(model, phi - h, False)
        slope = (up.criterion - down.criterion) / 2e-4
        assert here.g[k] == pytest.approx(slope, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(here.H[k], (up.g - down.g) / 2e-4, 1e-5, 1e-6)


def test_criterion_of_independent_rows_is_that_of_least_squares():
    model = small_model("diag")
    n = len(model.y)
    plain = oracle.Oracle(model.y, model.X, lambda phi: phi[0] * np.eye(n))
    phi = oracle.fit(plain, [2.0])
    beta, rss, *_ = np.linalg.lstsq(model.X, model.y, rcond=None)
    assert phi[0] == pytest.approx(rss[0] / (n - 2), rel=1e-12)
    _, f_value, _, df2 = oracle.kenward_roger(plain, phi, [0.0, 1.0])
    inverse = np.linalg.inv(model.X.T @ model.X)
    assert df2 == pytest.approx(n - 2, rel=1e-9)
    assert f_value == pytest.approx(beta[1] ** 2 / (phi[0] * inverse[1, 1]), rel=1e-9)
    assert oracle.satterthwaite(plain, phi, [0.0, 1.0])[2] == pytest.approx(n - 2)


# ---- lme4, lmerTest, pbkrtest --------------------------------------------------------


@cache
def lme4_tables():
    tables = json.loads((HERE / "after_fit.json").read_text())["tables"]
    models = json.loads((HERE / "lme4_models.json").read_text())["models"]
    return {t["id"]: t for t in tables}, {m["id"]: m for m in models}


@cache
def ratpup():
    """weight ~ Treatment * sex + Lsize + (1 | Litter), 322 rows, unbalanced."""
    data = data_named("RatPupWeight")
    low, high = (data["Treatment"] == t for t in ("Low", "High"))
    female = data["sex"] == "Female"
    columns = [
        low | True,
        low,
        high,
        female,
        data["Lsize"],
        low & female,
        high & female,
    ]
    X = np.column_stack(columns).astype(float)
    where = data.groupby("Litter").cumcount().to_numpy()
    V = oracle.subject_covariance("cs", data["Litter"], where)
    model = oracle.Oracle(data["weight"].to_numpy(), X, V)
    return model, oracle.fit(model, [0.1, 0.16])


@cache
def sleepstudy():
    """Reaction ~ Days + (Days | Subject)."""
    data = mf.datasets.load("sleepstudy")
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    V = oracle.total(
        (oracle.random_covariance(X, data["Subject"].astype(str)), 3),
        (lambda phi: phi[0] * np.eye(len(data)), 1),
    )
    model = oracle.Oracle(data["Reaction"].to_numpy(dtype=float), X, V)
    return model, oracle.fit(model, [600.0, 10.0, 35.0, 650.0])


CASES = {"ratpup": ratpup, "sleepstudy_slopes": sleepstudy}


@pytest.mark.parametrize("name", CASES)
def test_criterion_and_satterthwaite_of_lmertest(name):
    model, phi = CASES[name]()
    reference = lme4_tables()[1][name]
    here = oracle.at(model, phi)
    assert here.criterion == pytest.approx(float(reference["criterion"]), abs=1e-8)
    for k, row in enumerate(reference["fixed"]):
        _, _, df2 = oracle.satterthwaite(model, phi, np.eye(len(here.beta))[k])
        assert here.beta[k] == pytest.approx(float(row["estimate"]), rel=1e-8)
        assert df2 == pytest.approx(float(row["df"]), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_kenward_roger_of_pbkrtest(name):
    model, phi = CASES[name]()
    tables = lme4_tables()[0]
    for k, row in enumerate(tables[f"kr_t_{name}"]["rows"]):
        ell = np.eye(model.X.shape[1])[k]
        Phi_A, _, _, df2 = oracle.kenward_roger(model, phi, ell, information="expected")
        assert np.sqrt(Phi_A[k, k]) == pytest.approx(float(row["Std. Error"]), rel=1e-6)
        assert df2 == pytest.approx(float(row["df"]), rel=1e-6)


@pytest.mark.parametrize(
    "table",
    [
        "kr_test_ratpup_treatment",
        "kr_test_ratpup_interaction",
        "kr_test_sleepstudy_both",
    ],
)
def test_kenward_roger_of_several_rows(table):
    table = lme4_tables()[0][table]
    model, phi = CASES[table["model"]]()
    L = np.array(table["args"]["L"], dtype=float)
    _, f_value, df1, df2 = oracle.kenward_roger(model, phi, L, information="expected")
    row = table["rows"][0]
    assert f_value == pytest.approx(float(row["stat"]), rel=1e-6)
    assert df1 == float(row["ndf"])
    assert df2 == pytest.approx(float(row["ddf"]), rel=1e-6)


# ---- SAS -----------------------------------------------------------------------------

QUICK = {"ar1", "exp2"}
#: Minutes otherwise; the others are checked through mixform.
SLOW = {"csh", "ante1", "toeph", "us", "ar1_by_arm"}


def fev_model(entry, fixed):
    """The model of an entry of residual_structures_sas.json."""
    data = data_named("fev").dropna(subset="FEV1")
    structure = entry["residual"].partition("(")[0]
    if structure in oracle.POSITIONS:
        where = data["VISITN"].to_numpy() - 1
    else:
        pair = ["VISITN", "VISITN2"] if "VISITN2" in entry["residual"] else ["VISITN"]
        where = data[pair].to_numpy()
    strata = data["ARMCD"] if "/" in entry["residual"] else None
    V = oracle.subject_covariance(structure, data["USUBJID"], where, strata)
    X = np.ones((len(data), 1))
    if fixed == "ARMCD":
        X = np.column_stack([X, data["ARMCD"] == "TRT"])
    return oracle.Oracle(
        data["FEV1"].to_numpy(), X, V, entry.get("method", "REML") == "REML"
    )


def slow_unless_quick(entries):
    return [
        pytest.param(
            entry,
            id=entry["id"],
            marks=() if entry["id"] in QUICK else pytest.mark.slow,
        )
        for entry in entries
        if entry["id"] in QUICK | SLOW
    ]


def test_data_of_fev_are_those_that_sas_read():
    """SAS's criterion before the first iteration, of independent rows."""
    data = data_named("fev").dropna(subset="FEV1")
    y = data["FEV1"].to_numpy()
    one = np.ones((len(y), 1))
    arm = np.column_stack([one, data["ARMCD"] == "TRT"])
    for X, reml, printed in [
        (one, True, 3920.48098100),
        (one, False, 3920.49665323),
        (arm, True, 3891.08088197),
    ]:
        df = len(y) - (X.shape[1] if reml else 0)
        _, (rss,), *_ = np.linalg.lstsq(X, y, rcond=None)
        criterion = df * (1.0 + np.log(2.0 * np.pi * rss / df))
        if reml:
            criterion += np.linalg.slogdet(X.T @ X)[1]
        assert criterion == pytest.approx(printed, abs=6e-9)


@pytest.mark.parametrize("entry", slow_unless_quick(SAS["intercept"]))
def test_sas_fits(entry):
    model = fev_model(entry, "1")
    phi = oracle.fit(model, np.array(entry["parameters"], dtype=float))
    here = oracle.at(model, phi)
    printed = float(entry["criterion"])
    assert printed - 5e-5 < here.criterion < printed + 6e-9
    assert here.beta[0] == pytest.approx(float(entry["estimate"]), abs=1e-3)
    assert np.sqrt(here.Phi[0, 0]) == pytest.approx(float(entry["se"]), abs=1e-4)
    _, _, df2 = oracle.satterthwaite(model, phi, [1.0])
    assert df2 == pytest.approx(float(entry["df"]), abs=0.5, rel=1e-3)


@pytest.mark.parametrize("entry", slow_unless_quick(SAS["arm"]))
def test_sas_kenward_roger(entry):
    """kr has second derivatives of V, kr(linear) has not; both observed information."""
    model = fev_model(entry, "ARMCD")
    same = (
        next(e for e in SAS["intercept"] if e["id"] == entry["id"])
        if ("parameters" not in entry)
        else entry
    )
    phi = oracle.fit(model, np.array(same["parameters"], dtype=float))
    for kind, linear in [("kr", False), ("kr_linear", True)]:
        if kind not in entry:
            continue
        Phi_A, _, _, df2 = oracle.kenward_roger(model, phi, [0.0, 1.0], linear=linear)
        digits = len(entry[kind]["se"].partition(".")[2])
        se = float(entry[kind]["se"])
        assert np.sqrt(Phi_A[1, 1]) == pytest.approx(se, rel=2e-4, abs=10.0**-digits)
        whole = "." not in entry[kind]["df"]
        assert df2 == pytest.approx(
            float(entry[kind]["df"]), rel=5e-4, abs=0.5 if whole else 0.0
        )
