"""Reference: marginal means, contrasts, slopes and letters against emmeans, multcomp.

The tables and the R program behind them are described in tests/references/README.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .after_fit_references import (
    assert_close,
    level_of,
    norm,
    numbers,
    of_kind,
    read,
)

LOWER = ("lower.CL", "asymp.LCL")
UPPER = ("upper.CL", "asymp.UCL")
T = ("t.ratio", "z.ratio")
NOT_ESTIMATES = {"SE", "df", "null", *LOWER, *UPPER, *T, "p.value", "row", ".group"}

#: emmeans' name of a contrast -> ours and its options.
METHODS = {"trt.vs.ctrlk": ("trt.vs.ctrl", {"ref": -1})}


def estimate_of(rows: list[dict[str, Any]], labels: list[str]) -> np.ndarray:
    """Return the column of estimates: the first that is nothing else."""
    names = (key for key in rows[0] if key not in NOT_ESTIMATES and key not in labels)
    return numbers(rows, next(names))


def in_their_order(table, rows, labels):
    """Return our rows in the order of theirs, matched by their labels."""
    keys = [tuple(level_of(value) for value in row) for row in table[labels].to_numpy()]
    place = {key: i for i, key in enumerate(keys)}
    assert len(place) == len(rows)
    return table.iloc[[place[tuple(level_of(row[k]) for k in labels)] for row in rows]]


def estimates(table) -> np.ndarray:
    """Return the column left of the standard errors."""
    return table.iloc[:, list(table.columns).index("se") - 1].to_numpy(dtype=float)


def compare_estimates(table, rows, labels, rtol=1e-3, *, limits=True, p_atol=1e-8):
    ours, theirs = estimates(table), estimate_of(rows, labels)
    se = numbers(rows, "SE")
    smallest = float(np.min(se[~np.isnan(se)], initial=np.inf))
    if not np.isfinite(smallest):  # nothing is estimable
        assert np.isnan(ours).all()
        return
    assert_close(ours, theirs, rtol, smallest * 1e-4)
    assert_close(table["se"], se, rtol)
    finite = ~np.isnan(se)
    assert_close(table["df"][finite], numbers(rows, "df")[finite], rtol)
    assert_close(table["t_value"], numbers(rows, *T), rtol, 1e-4)
    p = numbers(rows, "p.value")
    assert_close(table["p_value"], p, 5e-3, p_atol)
    assert_close(table["p_value"], p, 0.0, 1e-4)
    if limits:
        atol = 1e-3 * smallest
        assert_close(table["lower"], numbers(rows, *LOWER), rtol, atol)
        assert_close(table["upper"], numbers(rows, *UPPER), rtol, atol)


def means_of(m, args, **more):
    options = {k: args[k] for k in ("by", "at", "weights", "type", "ddf") if k in args}
    return m.emmeans(args["specs"], **options, **more)


@pytest.mark.parametrize("name", of_kind("emmeans"))
def test_emmeans(name):
    m, args, rows = read(name)
    more = {k: args[k] for k in ("level", "adjust") if k in args}
    found = means_of(m, args, **more)
    labels = [*args["specs"], *args.get("by", [])]
    table = in_their_order(found.to_frame(), rows, labels)
    compare_estimates(table, rows, labels, 1e-4 if args["ddf"][0] == "k" else 1e-3)


@pytest.mark.parametrize("name", of_kind("slopes"))
def test_slopes(name):
    m, args, rows = read(name)
    options = {k: args[k] for k in ("by", "at", "ddf") if k in args}
    specs = args["specs"]
    found = m.slopes(args["var"], specs, **options).to_frame()
    labels = [] if specs == ["1"] else [*specs, *args.get("by", [])]
    table = in_their_order(found, rows, labels) if labels else found
    compare_estimates(table, rows, labels or ["1"])


@pytest.mark.parametrize("name", of_kind("slope_pairs"))
def test_pairs_of_slopes(name):
    m, args, rows = read(name)
    found = m.slopes(args["var"], args["specs"], ddf=args["ddf"]).pairs().to_frame()
    compare_estimates(found, rows, ["contrast"])


def contrast_of(m, args):
    method, options = METHODS.get(str(args["method"]), (args["method"], {}))
    options = dict(options)
    means = means_of(m, args)
    if options.get("ref") == -1:
        options["ref"] = means.table[args["specs"][0]].iloc[-1]
    if "ref" in (args.get("options") or {}):
        options["ref"] = means.table[args["specs"][0]].iloc[args["options"]["ref"] - 1]
    if "adjust" in args:
        options["adjust"] = args["adjust"]
    return means.contrast(method, **options)


@pytest.mark.parametrize("name", of_kind("contrast"))
def test_contrasts(name):
    m, args, rows = read(name)
    found = contrast_of(m, args)
    table = found.to_frame()
    labels = ["contrast", *args.get("by", [])]
    if args["joint"]:  # one family over the groups
        table["p_value"] = found.test(by=[])["p_value"]
        limits = found.conf_int(by=[])
        table["lower"], table["upper"] = limits["lower"], limits["upper"]
    approximate = str(args["method"]).startswith("trt") and "adjust" not in args
    if approximate:  # emmeans approximates Dunnett's distribution; see test_dunnett
        table["p_value"] = numbers(rows, "p.value")
    # emmeans rounds the df of Tukey's p to whole numbers where a mean is missing:
    # 7.440e-05 instead of 7.424e-05 in contrast_empty_a.
    compare_estimates(table, rows, labels, limits=not approximate, p_atol=1e-6)


@pytest.mark.parametrize("name", of_kind("mvt"))
def test_dunnett(name):
    m, args, rows = read(name)
    found = means_of(m, args).contrast(args["method"], "dunnett")
    p = found.to_frame()["p_value"]
    assert_close(p, numbers(rows, "mvt"), 0.0, 1e-4)


# emmeans takes the smallest df of its rows for a test of several; ours are those of
# lmerTest and pbkrtest, which the next two tests compare.


@pytest.mark.parametrize("name", of_kind("joint_tests"))
def test_joint_tests(name):
    m, args, rows = read(name)
    options = {k: args[k] for k in ("by", "at") if k in args}
    found = m.joint_tests(**options, ddf=args["ddf"])
    labels = ["term", *args.get("by", [])]
    rows = [{**row, "term": row["model term"]} for row in rows]
    rows = [row for row in rows if row["term"] != "(confounded)"]
    found["term"] = [term.replace("factor(nitro)", "nitro") for term in found["term"]]
    found = in_their_order(found, rows, labels)
    assert_close(found["num_df"], numbers(rows, "df1"))
    assert_close(found["f_value"], numbers(rows, "F.ratio"), 1e-3, 6e-4)
    one = numbers(rows, "df1") == 1
    assert_close(found["den_df"][one], numbers(rows, "df2")[one], 1e-3)
    assert_close(found["p_value"][one], numbers(rows, "p.value")[one], 5e-3, 1e-12)


@pytest.mark.parametrize("name", of_kind("joint_df"))
def test_df_of_joint_tests(name):
    m, args, rows = read(name)
    found = m.joint_tests(by=args.get("by"), ddf=args["ddf"])
    found = found[[norm(term) == norm(args["term"]) for term in found["term"]]]
    found = in_their_order(found, rows, args["by"]) if "by" in args else found
    rtol = 1e-4 if args["ddf"] == "kenward-roger" else 1e-3
    assert_close(found["num_df"], numbers(rows, "NumDF"))
    assert_close(found["den_df"], numbers(rows, "DenDF"), rtol)
    assert_close(found["f_value"], numbers(rows, "F value"), rtol)
    assert_close(found["p_value"], numbers(rows, "Pr(>F)"), 2e-3)


@pytest.mark.parametrize("name", of_kind("letters"))
def test_letters(name):
    m, args, rows = read(name)
    found = means_of(m, args).letters(alpha=args["alpha"], adjust=args["adjust"])
    labels = [*args["specs"], *args.get("by", [])]
    ours = list(in_their_order(found, rows, labels)["letters"])
    assert [text.replace(" ", "") for text in ours] == [
        row[".group"].replace(" ", "") for row in rows
    ]


@pytest.mark.parametrize("name", of_kind("glht"))
def test_simultaneous_inference_as_multcomp(name):
    m, args, rows = read(name)
    infinite = args["ddf"] == "Inf"
    means = m.emmeans(args["specs"], ddf="asymptotic" if infinite else "satterthwaite")
    method = "revpairwise" if args["method"] == "Tukey" else "trt.vs.ctrl"
    found = means.contrast(method, "dunnett").to_frame()
    found = in_their_order(found, rows, ["contrast"])
    assert_close(found["estimate"], numbers(rows, "estimate"), 1e-3, 1e-8)
    assert_close(found["se"], numbers(rows, "SE"))
    if infinite or np.allclose(found["df"], float(args["ddf"]), rtol=1e-4):
        assert_close(found["p_value"], numbers(rows, "p"), 0.0, 1e-4)


@pytest.mark.parametrize("name", of_kind("ls_means"))
def test_least_squares_means(name):
    m, args, rows = read(name)
    by_term: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_term.setdefault(row["term"], []).append(row)
    for term, own in by_term.items():
        table = m.emmeans(term, ddf=args["ddf"]).to_frame()
        factors = term.split(":")
        own = [{**row, **split_levels(row, factors)} for row in own]
        table = in_their_order(table, own, factors)
        assert_close(estimates(table), numbers(own, "Estimate"))
        assert_close(table["se"], numbers(own, "Std. Error"))
        assert_close(table["df"], numbers(own, "df"))
        assert_close(table["lower"], numbers(own, "lower"))
        assert_close(table["upper"], numbers(own, "upper"))


def split_levels(row, factors):
    return dict(zip(factors, row["levels"].split(":"), strict=True))


@pytest.mark.parametrize("name", of_kind("ls_means_pairs"))
def test_differences_of_least_squares_means(name):
    m, args, rows = read(name)
    means = m.emmeans(args["which"], ddf=args["ddf"])
    table = means.pairs(adjust="none").to_frame()
    assert_close(estimates(table), numbers(rows, "Estimate"), 1e-3, 1e-8)
    assert_close(table["se"], numbers(rows, "Std. Error"))
    assert_close(table["df"], numbers(rows, "df"))
    assert_close(table["p_value"], numbers(rows, "Pr(>|t|)"), 5e-3, 1e-12)
