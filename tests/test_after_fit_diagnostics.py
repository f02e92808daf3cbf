"""Reference: profiles, predictions and diagnostics against lme4 and the packages
around it (performance, clubSandwich, broom.mixed, glmmTMB).

The tables and the R program behind them are described in tests/references/README.md.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

from .after_fit_references import (
    TABLES,
    assert_close,
    level_of,
    model,
    numbers,
    of_kind,
    read,
)
from .test_lme4 import key_of, level_key


def coefficient(name: str) -> str:
    """Name a coefficient alike in R's and formulaic's spelling."""
    for old, new in (("(Intercept)", "Intercept"), ("T.", ""), ("[", ""), ("]", "")):
        name = name.replace(old, new)
    return name


def parameter_key(name: str) -> tuple[str, ...]:
    """Name a parameter of a profile alike: sd_x|g and sd(g: x)."""
    ours = re.fullmatch(r"(sd|cor)\((.*): (.*)\)", name)
    theirs = re.fullmatch(r"(sd|cor)_(.*)\|(.*)", name)
    if ours:
        kind, group, inside = ours.groups()
        variables = inside.split(", ")
    elif theirs:
        kind, inside, group = theirs.groups()
        variables = inside.split(".") if kind == "cor" else [inside]
    else:
        return (coefficient(name),)
    group = ":".join(sorted(group.split(":")))
    return (kind, group, *sorted(coefficient(v) for v in variables))


# Profiles.

#: lme4's profile of sigma breaks down on the boundary ("non-monotonic"): limits 0, Inf.
BROKEN = {("dyestuff2_ml", ("sigma",))}


@pytest.mark.parametrize("name", of_kind("profile_interval", "limits_by_hand"))
def test_profile_intervals(name):
    m, args, rows = read(name)
    ours = m.conf_int(args["level"], "profile", progress=False)
    ours.index = [parameter_key(label) for label in ours.index]
    lower, upper = [k for k in rows[0] if k not in ("row", "parameter")]
    for row in rows:
        key = parameter_key(row.get("row") or row["parameter"])
        if (TABLES[name]["model"], key) in BROKEN:
            continue
        found = ours.loc[[key]].iloc[0]
        width = float(row[upper] or np.nan) - float(row[lower] or 0.0)
        for bound, their in (("lower", row[lower]), ("upper", row[upper])):
            at_zero = bound == "lower" and key[0] == "sd" and their in (None, "0")
            if at_zero:
                assert np.isnan(found[bound]) or found[bound] == 0.0
                assert found["reason"]
            elif their is None:
                assert np.isnan(found[bound])
                assert found["reason"]
            else:
                assert found[bound] == pytest.approx(float(their), abs=1e-3 * width)


def test_what_was_fitted_is_profiled_not_ml():
    m, _, rows = read("profile_reml_by_ml")
    ours = m.conf_int(method="profile", progress=False)
    theirs = {parameter_key(row["row"]): row for row in rows}
    for label in ("sd(Subject: Intercept)", "sd(Subject: Days)", "Days"):
        width = ours.loc[label, "upper"] - ours.loc[label, "lower"]
        row = theirs[parameter_key(label)]
        assert width > 1.01 * (float(row["97.5 %"]) - float(row["2.5 %"]))


@cache
def profile_of(name: str):
    return model(name).profile(level=0.999, progress=False)


@pytest.mark.parametrize("name", of_kind("profile_by_hand", "profile_zeta"))
def test_profile_zeta(name):
    _, _, rows = read(name)
    profile = profile_of(TABLES[name]["model"])
    by_key = {parameter_key(label): label for label in profile.parameters}
    for row in rows:
        label = row.get("parameter") or row[".par"]
        value = float(row["value"] if "value" in row else row[row[".par"]])
        zeta = float(row.get("zeta") or row[".zeta"])
        found = profile.zeta(by_key[parameter_key(label)], [value]).iloc[0]
        assert found == pytest.approx(zeta, rel=1e-3, abs=2e-3)


# Predictions and random effects.


@pytest.mark.parametrize("name", of_kind("predict"))
def test_predictions(name):
    m, args, rows = read(name)
    newdata = args.get("newdata")
    if newdata is not None:
        newdata = pd.DataFrame(newdata)
    found = m.predict(newdata, random=args["random"], new_levels=args["new_levels"])
    theirs = numbers(rows, "value")
    assert_close(found.to_numpy()[: len(theirs)], theirs, 1e-4)


@pytest.mark.parametrize("name", of_kind("prediction_se"))
def test_standard_errors_of_fitted_values(name):
    m, _, rows = read(name)
    found = m.predict(se=True)
    found = found.iloc[[int(row["observation"]) - 1 for row in rows]]
    assert_close(found["estimate"], numbers(rows, "fit"), 1e-3)
    assert_close(found["se"], numbers(rows, "se"), 1e-3)


@pytest.mark.parametrize("name", of_kind("condvar"))
def test_conditional_variances(name):
    m, _, rows = read(name)
    table = m.ranef()
    ours = {
        (*key_of(g, t, None), level_key(g, level)): se
        for g, t, level, se in table[["grp", "term", "level", "se"]].itertuples(
            index=False
        )
    }
    for row in rows:
        if row["var1"] != row["var2"]:
            continue
        key = key_of(row["grp"], row["var1"], None)
        se = ours[(*key, level_key(row["grp"], row["level"]))]
        assert se == pytest.approx(float(row["cov"]) ** 0.5, rel=1e-3, abs=1e-5)


#: lme4 adds the random MachineB (the worker's value on B) to the fixed MachineB (B - A)
#: because they are spelt alike; see the test after the next.
SPELT_ALIKE = "coef_machines_vector"


@pytest.mark.parametrize("name", of_kind("coef", without=(SPELT_ALIKE,)))
def test_coefficients_by_level(name):
    m, _, rows = read(name)
    ours = {
        (
            key_of(group, "", None)[0],
            level_key(group, level),
            coefficient(column),
        ): value
        for group, frame in m.coef().items()
        for column, values in frame.items()
        for level, value in values.items()
    }
    for row in rows:
        group = key_of(row["grp"], "", None)[0]
        key = (group, level_key(row["grp"], row["level"]), coefficient(row["name"]))
        assert ours[key] == pytest.approx(float(row["value"]), rel=1e-3, abs=1e-3)


def test_random_and_fixed_coefficients_of_other_meaning_are_not_added():
    m, _, rows = read(SPELT_ALIKE)
    frame = m.coef()["Worker"]
    for row in rows:
        if row["name"] == "MachineB":
            found = frame.loc[row["level"], ["Machine[T.B]", "Machine[B]"]].sum()
            assert found == pytest.approx(float(row["value"]), abs=1e-3)


@pytest.mark.parametrize("name", of_kind("varcorr"))
def test_variance_components(name):
    m, _, rows = read(name)
    ours = {
        key_of(g, a, b): (v, s) for g, a, b, v, s in m.varcorr.itertuples(index=False)
    }
    for row in rows:
        vcov, sdcor = ours[key_of(row["grp"], row["var1"], row["var2"])]
        atol = 1e-3 * m.sigma  # a variance near zero is known to that
        assert vcov == pytest.approx(float(row["vcov"]), rel=2e-3, abs=atol * m.sigma)
        assert sdcor == pytest.approx(float(row["sdcor"]), rel=1e-3, abs=atol)


# Observations and groups.


@pytest.mark.parametrize("name", of_kind("observations"))
def test_observations(name):
    m, _, rows = read(name)
    n = len(rows)
    ours = {
        "fitted": m.fittedvalues,
        "hat": m.leverage(),
        "cook": m.cooks_distance(),
        "scaled": m.residuals("scaled"),
        "student": m.residuals("studentized"),
    }
    for key, values in ours.items():
        theirs = numbers(rows, key)
        scale = float(np.abs(theirs).max())
        assert_close(values.to_numpy()[:n], theirs, 1e-3, 1e-4 * scale)
    pearson = m.residuals("scaled").to_numpy()[:n] * m.sigma  # not divided by sigma
    assert_close(pearson, numbers(rows, "pearson"), 1e-3, 1e-4 * m.sigma)


def test_sum_of_leverages_and_residuals():
    m, _, rows = read("observations_summed")
    theirs = {row["row"]: float(row["value"]) for row in rows}
    assert m.leverage().sum() == pytest.approx(theirs["hat"], rel=1e-5)
    assert m.cooks_distance().sum() == pytest.approx(theirs["cook"], rel=1e-4)


@pytest.mark.parametrize("name", of_kind("left_out", "influence"))
def test_groups_left_out(name):
    m, args, rows = read(name)
    found = m.influence(args["group"], refit=True, progress=False)
    levels = [row.get("level") or row["row"] for row in rows]
    position = {level_of(label): i for i, label in enumerate(found.table.index)}
    order = [position[level_of(level)] for level in levels]
    table, dfbeta = found.table.iloc[order], found.dfbeta.iloc[order]
    se = m.bse.to_numpy()
    p, k = len(se), len(rows)
    names = [coefficient(name) for name in rows[0]]
    for j, column in enumerate(dfbeta.columns):
        key = list(rows[0])[names.index(coefficient(column))]
        assert_close(dfbeta[column], numbers(rows, key), 1e-3, 1e-4 * se[j])
    # lme4's distance has a factor (k - p) / k that Cook's has not.
    theirs = numbers(rows, "cook_lme4", "cook") * k / (k - p)
    assert_close(table["cook"], theirs, 1e-3, 1e-6)
    if "sigma" in rows[0]:
        assert_close(table["sigma"], numbers(rows, "sigma"))


@pytest.mark.parametrize("name", of_kind("pca"))
def test_principal_components(name):
    m, _, rows = read(name)
    ours = m.pca().table
    for group in {row["grp"] for row in rows}:
        theirs = [row for row in rows if row["grp"] == group]
        own = ours[ours["grp"] == group]
        sd = numbers(theirs, "sdev")
        assert_close(own["sd"], sd, 1e-3, 1e-3 * sd.max())
        assert_close(own["proportion"], numbers(theirs, "proportion"), 1e-3, 1e-4)


# The packages around lme4.


@pytest.mark.parametrize("name", of_kind("r2"))
def test_r2(name):
    m, _, rows = read(name)
    found = m.r2()
    theirs = numbers(rows, "value")
    assert_close([found.marginal, found.conditional], theirs, 1e-4, 1e-12)


@pytest.mark.parametrize("name", of_kind("icc"))
def test_icc(name):
    m, _, rows = read(name)
    found = m.icc()
    assert_close([found.adjusted, found.unadjusted], numbers(rows, "value"), 1e-4)


@pytest.mark.parametrize("name", of_kind("robust_vcov"))
def test_cluster_robust_covariance(name):
    m, args, rows = read(name)
    theirs = np.array([[float(v) for k, v in r.items() if k != "row"] for r in rows])
    ours = m.robust(args["cluster"], kind=args["type"]).V_beta
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    assert_close(ours / scale, theirs / scale, 0.0, 1e-4)


@pytest.mark.parametrize("name", of_kind("robust_t"))
def test_cluster_robust_t_tests(name):
    m, args, rows = read(name)
    table = m.robust(args["cluster"], kind=args["type"]).table
    assert_close(table["se"], numbers(rows, "SE"))
    assert_close(table["df"], numbers(rows, "df_Satt"))
    assert_close(table["t_value"], numbers(rows, "tstat"))
    assert_close(table["p_value"], numbers(rows, "p_Satt"), 5e-3, 1e-12)


@pytest.mark.parametrize("name", of_kind("tidy"))
def test_tidy(name):
    m, args, rows = read(name)
    # broom.mixed's "Wald" limits are of the t distribution with Satterthwaite's df.
    ours = m.tidy(args["effects"], conf_int="conf_int" in args)
    assert list(rows[0]) == [c for c in ours.columns if c in rows[0]]
    keys = [k for k in ("group", "level", "term") if k in rows[0]]
    place = {
        tuple(tidy_key(row[k]) for k in keys): i
        for i, (_, row) in enumerate(ours.iterrows())
    }
    order = [place[tuple(tidy_key(row[k]) for k in keys)] for row in rows]
    ours = ours.iloc[order]
    for key in rows[0]:
        if key not in ("effect", *keys):
            atol = 1e-4 if key in ("estimate", "std.error") else 1e-8
            assert_close(ours[key], numbers(rows, key), 2e-3, atol)


def tidy_key(value: str) -> str:
    """Name a term alike; correlations in either order."""
    value = coefficient(value)
    head, _, tail = value.partition("__")
    return head + "__" + ".".join(sorted(tail.split("."))) if tail else value


@pytest.mark.parametrize("name", of_kind("glance", "augment"))
def test_glance_and_augment(name):
    m, _, rows = read(name)
    ours = m.glance() if TABLES[name]["kind"] == "glance" else m.augment()
    ours = ours.head(len(rows))
    assert set(rows[0]) <= set(ours.columns)
    for key in rows[0]:
        try:
            theirs = numbers(rows, key)
        except ValueError:
            continue
        if np.isnan(theirs).all():
            continue
        assert_close(ours[key].astype(float), theirs, 1e-4, 1e-4)
