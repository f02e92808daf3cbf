"""Reference: tests after the fit against lmerTest, pbkrtest and lme4.

The tables and the R program behind them are described in tests/references/README.md.
"""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf

from .after_fit_references import (
    MODELS,
    TABLES,
    assert_close,
    model,
    norm,
    numbers,
    of_kind,
    read,
)
from .reference_models import data_of

P_TOLERANCE = {"rtol": 2e-3, "atol": 1e-10}


# Kenward-Roger: 1e-4.


@pytest.mark.parametrize("name", of_kind("t_tests"))
def test_kenward_roger_t_tests(name):
    m, args, rows = read(name)
    p = len(rows)
    table = m.test(np.eye(p), ddf=args["ddf"]).table
    se = numbers(rows, "Std. Error")
    assert_close(table["se"], se, 1e-4)
    assert_close(table["df"], numbers(rows, "df"), 1e-4)
    assert_close(table["t_value"], numbers(rows, "t value"), 1e-4, 1e-5)
    assert_close(table["p_value"], numbers(rows, "Pr(>|t|)"), **P_TOLERANCE)


@pytest.mark.parametrize("name", of_kind("vcov"))
def test_kenward_roger_covariance(name):
    m, args, rows = read(name)
    theirs = np.array([[float(v) for k, v in r.items() if k != "row"] for r in rows])
    ours = m.cov_params(ddf=args["ddf"]).to_numpy()
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    assert_close(ours / scale, theirs / scale, 0.0, 1e-4)


@pytest.mark.parametrize("name", of_kind("anova"))
def test_kenward_roger_anova(name):
    m, args, rows = read(name)
    ours = m.anova(args["type"], ddf=args["ddf"])
    ours.index = [norm(term) for term in ours.index]
    ours = ours.loc[[norm(row["row"]) for row in rows]]
    assert_close(ours["num_df"], numbers(rows, "NumDF"))
    assert_close(ours["f_value"], numbers(rows, "F value"), 1e-4, 1e-6)
    assert_close(ours["den_df"], numbers(rows, "DenDF"), 1e-4)
    assert_close(ours["p_value"], numbers(rows, "Pr(>F)"), **P_TOLERANCE)


def test_weights_are_not_ignored_as_in_pbkrtest():
    m, _, rows = read("kr_t_weights_as_pbkrtest")
    ours = m.test(np.eye(2), ddf="kenward-roger").table["df"]
    assert numbers(rows, "df")[1] > 400.0  # of 136 rows
    assert ours.iloc[1] < 136.0


# Contrasts of the coefficients.


@pytest.mark.parametrize("name", of_kind("f_test"))
def test_f_tests_of_L(name):
    m, args, rows = read(name)
    found = m.test(args["L"], args.get("rhs", 0), ddf=args["ddf"])
    row = rows[0]  # pbkrtest's second row is the F without its scale factor
    keys = ("stat", "ndf", "ddf", "p.value")
    if "stat" not in row:
        keys = ("F value", "NumDF", "DenDF", "Pr(>F)")
    f_value, num_df, den_df, p = (float(row[key]) for key in keys)
    rtol = 1e-4 if args["ddf"] == "kenward-roger" else 1e-3
    assert found.num_df == num_df
    assert found.f_value == pytest.approx(f_value, rel=rtol)
    assert found.den_df == pytest.approx(den_df, rel=rtol)
    assert found.p_value == pytest.approx(p, rel=5e-3, abs=1e-12)


@pytest.mark.parametrize("name", of_kind("t_contrasts"))
def test_t_tests_of_L(name):
    m, args, rows = read(name)
    table = m.test(args["L"], ddf=args["ddf"]).table
    assert_close(table["estimate"], numbers(rows, "Estimate"))
    assert_close(table["se"], numbers(rows, "Std. Error"))
    assert_close(table["df"], numbers(rows, "df"))
    assert_close(table["p_value"], numbers(rows, "Pr(>|t|)"), **P_TOLERANCE)


@pytest.mark.parametrize("name", of_kind("wald_interval"))
def test_wald_intervals(name):
    m, args, rows = read(name)
    ours = m.conf_int(args["level"], method="wald")
    columns = [key for key in rows[0] if key != "row"]
    for ours_name, key in zip(("lower", "upper"), columns, strict=True):
        assert_close(ours[ours_name], numbers(rows, key), 1e-3, 1e-3)


# Random and fixed terms left out.


def reduced(label: str) -> tuple[str, str]:
    """Name what is left out by coefficient and group: (1 | g), x in (x | g)."""
    coefficient, _, rest = label.replace(" ", "").rpartition("in(")
    group = rest.split("of(")[0] if "of(" in rest else rest.split("|")[-1]
    coefficient = "" if coefficient == "1" else coefficient
    return coefficient, norm(group.strip("()"))


@pytest.mark.parametrize("name", of_kind("ranova"))
def test_ranova(name):
    m, args, rows = read(name)
    ours = m.ranova(reduce_terms=args.get("reduce_terms", True), progress=False)
    assert len(ours) == len(rows)
    theirs = {reduced(row["row"]): row for row in rows}
    for label, row in ours.iterrows():
        their = theirs[reduced(label)]
        assert row["npar"] == float(their["npar"])
        assert row["llf"] == pytest.approx(float(their["logLik"]), abs=1e-4)
        assert row["aic"] == pytest.approx(float(their["AIC"]), abs=2e-4)
        if their["LRT"] is not None:
            assert row["lrt"] == pytest.approx(float(their["LRT"]), rel=1e-3, abs=1e-4)
            assert row["num_df"] == float(their["Df"])
            p = float(their["Pr(>Chisq)"])
            # A fall of the deviance within the slack of the searches is none.
            slack = 1e-3 if row["lrt"] == 0.0 else 1e-12
            assert row["p_value"] == pytest.approx(p, rel=2e-3, abs=slack)


@pytest.mark.parametrize("name", of_kind("drop1"))
def test_drop1(name):
    m, args, rows = read(name)
    ours = m.drop1(ddf=args["ddf"], progress=False)
    ours.index = [norm(term) for term in ours.index]
    ours = ours.loc[[norm(row["row"]) for row in rows]]
    rtol = 1e-4 if args["ddf"] == "kenward-roger" else 1e-3
    assert_close(ours["num_df"], numbers(rows, "NumDF"))
    assert_close(ours["den_df"], numbers(rows, "DenDF"), rtol)
    assert_close(ours["f_value"], numbers(rows, "F value"), rtol, 1e-6)
    assert_close(ours["mean_sq"], numbers(rows, "Mean Sq"))
    assert_close(ours["p_value"], numbers(rows, "Pr(>F)"), **P_TOLERANCE)


@pytest.mark.parametrize("name", of_kind("drop1_lrt"))
def test_drop1_by_likelihood_ratio(name):
    m, _, rows = read(name)
    ours = m.drop1("lrt", progress=False)
    ours.index = [norm(term) for term in ours.index]
    ours = ours.loc[[norm(row["row"]) for row in rows]]
    assert_close(ours["aic"], numbers(rows, "AIC"), 0.0, 1e-4)
    assert_close(ours["lrt"], numbers(rows, "LRT"), 1e-3, 1e-4)
    assert_close(ours["p_value"], numbers(rows, "Pr(Chi)"), **P_TOLERANCE)


@pytest.mark.parametrize("name", of_kind("step"))
def test_step(name):
    m, args, rows = read(name)
    found = m.step(**args, progress=False)
    for part, ours in (("random", found.random), ("fixed", found.fixed)):
        theirs = [row for row in rows if row["part"] == part]
        assert len(ours) == len(theirs)
        name_of = reduced if part == "random" else norm
        by_name = {name_of(row["row"]): row for row in theirs}
        key = "Pr(>Chisq)" if part == "random" else "Pr(>F)"
        for label, row in ours.iterrows():
            their = by_name[name_of(str(label))]
            if their["Eliminated"] is not None:
                assert row["eliminated"] == float(their["Eliminated"])
            if their[key] is not None:
                p = float(their[key])
                assert row["p_value"] == pytest.approx(p, rel=2e-3, abs=1e-5)
    final = next(row["row"] for row in rows if row["part"] == "final")
    spec = MODELS[TABLES[name]["model"]]
    same = mf.fit(final, data_of(spec), method=spec["method"])
    assert found.model.criterion == pytest.approx(same.criterion, abs=1e-6)
    assert found.model.npar == same.npar


@pytest.mark.parametrize("name", of_kind("compare"))
def test_likelihood_ratio_tables(name):
    _, args, rows = read(name)
    fits = [model(one) for one in args["models"]]
    ours = mf.compare(*fits, refit=args["refit"])
    assert_close(ours["npar"], numbers(rows, "npar"))
    assert_close(ours["llf"], numbers(rows, "logLik"), 0.0, 1e-4)
    assert_close(ours["deviance"], numbers(rows, "deviance"), 0.0, 2e-4)
    assert_close(ours["aic"], numbers(rows, "AIC"), 0.0, 2e-4)
    assert_close(ours["bic"], numbers(rows, "BIC"), 0.0, 2e-4)
    assert_close(ours["chisq"], numbers(rows, "Chisq"), 1e-3, 2e-4)
    assert_close(ours["num_df"], numbers(rows, "Df"))
    assert_close(ours["p_value"], numbers(rows, "Pr(>Chisq)"), 2e-3, 1e-10)


def test_there_are_as_many_tables_as_promised():
    assert len(TABLES) >= 300
    assert len({table["data"] for table in TABLES.values()}) >= 20
