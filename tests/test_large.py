"""The sparse backend: equal to the dense one, and to lmerTest on InstEval."""

from __future__ import annotations

import json
import re
import warnings
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import MixformWarning

from .reference_models import HERE, MODELS, data_of, fit_reference

MIXED = sorted(name for name, m in MODELS.items() if "|" in m["mixform_formula"])
#: references/insteval.R and its output
INSTEVAL = {
    model["id"]: model
    for model in json.loads((HERE / "insteval.json").read_text())["models"]
}


@pytest.mark.parametrize("name", MIXED)
def test_sparse_backend_gives_the_dense_fit(name):
    model, dense = MODELS[name], fit_reference(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        sparse = mf.fit(
            model["mixform_formula"],
            data_of(model),
            method=model["method"],
            weights=model["weights"],
            contrasts=model["contrasts"],
            control={"backend": "sparse"},
        )
    assert sparse.convergence.backend == "sparse"
    assert sparse.criterion == pytest.approx(dense.criterion, abs=1e-9)
    np.testing.assert_allclose(sparse.ddf, dense.ddf, rtol=1e-5)
    se = dense.ranef()["se"].to_numpy()
    np.testing.assert_allclose(sparse.ranef()["se"], se, rtol=1e-4, atol=1e-6)


@lru_cache(maxsize=1)
def insteval():
    return pd.read_csv(
        HERE / "data" / "InstEval.csv.gz",
        dtype={"y": float} | dict.fromkeys(("s", "d", "service", "dept"), str),
    )


@lru_cache(maxsize=2)
def fit_insteval(name):
    data = insteval()
    levels = [str(level) for level in sorted(map(int, data["dept"].unique()))]
    dept = pd.Categorical(data["dept"], categories=_order_of_r(name, levels))
    return mf.fit(INSTEVAL[name]["formula"], data.assign(dept=dept))


def _order_of_r(name, levels):
    """R's level order of dept: 15 comes first, as the names of its dummies show."""
    named = [row["name"] for row in INSTEVAL["insteval_factorial"]["fixed"]]
    shown = [m[1] for n in named if (m := re.fullmatch(r"dept(\d+)", n))]
    return [*(level for level in levels if level not in shown), *shown]


@pytest.mark.parametrize("name", INSTEVAL)
def test_insteval_agrees_with_lmertest(name):
    m, theirs = fit_insteval(name), INSTEVAL[name]
    assert m.convergence.backend == "sparse"
    assert m.criterion <= float(theirs["criterion"]) + 1e-6
    assert m.sigma == pytest.approx(float(theirs["sigma"]), rel=1e-5)
    for ours, key in ((m.params, "estimate"), (m.bse, "se"), (m.ddf, "df")):
        values = [float(row[key]) for row in theirs["fixed"]]
        tolerance = 1e-3 * min(m.bse) if key == "estimate" else 0.0
        np.testing.assert_allclose(ours, values, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("kind", ["I", "II", "III"])
@pytest.mark.parametrize("name", INSTEVAL)
def test_insteval_f_tests_agree_with_lmertest(name, kind):
    table = fit_insteval(name).anova(kind)
    rows = {row["term"]: row for row in INSTEVAL[name]["anova"][kind]}
    for term, ours in table.iterrows():
        theirs = rows[term]
        assert ours["num_df"] == float(theirs["NumDF"])
        assert ours["f_value"] == pytest.approx(float(theirs["F"]), rel=1e-3)
        assert ours["den_df"] == pytest.approx(float(theirs["DenDF"]), rel=1e-3)


def test_insteval_reaches_the_published_optimum():
    # lme4's REML log-likelihood of the three crossed factors
    assert fit_insteval("insteval_crossed").llf == pytest.approx(
        -118866.917064, abs=1e-5
    )


def test_more_random_effects_than_memory_are_refused_before_the_work():
    rng = np.random.default_rng(0)
    n, m = 400_000, 150_000
    data = {
        "y": rng.normal(size=n),
        "a": rng.integers(0, m, n),
        "b": rng.integers(0, m, n),
    }
    with pytest.raises(mf.SolverError, match=r"need .* GB; this machine has"):
        mf.fit("y ~ 1 + (1 | a) + (1 | b)", data)


@pytest.mark.parametrize("formula", ["y ~ x + (1|g)", "y ~ x + (x|g)"])
def test_one_group_of_many_rows_beside_many_groups_is_as_dense(formula):
    rng = np.random.default_rng(1)
    n = 5_000
    g = np.where(np.arange(n) < n // 2, 0, rng.integers(1, 300, n))
    data = pd.DataFrame({"x": rng.normal(size=n), "g": g})
    b = rng.normal(size=(300, 2)) * [1.0, 0.5]
    data["y"] = b[g, 0] + b[g, 1] * data["x"] + rng.normal(size=n)
    dense, sparse = (
        mf.fit(formula, data, control={"backend": backend})
        for backend in ("dense", "sparse")
    )
    assert sparse.converged
    assert sparse.criterion == pytest.approx(dense.criterion, abs=1e-9)
    np.testing.assert_allclose(sparse.theta, dense.theta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sparse.bse, dense.bse, rtol=1e-8)


def test_result_does_not_depend_on_the_number_of_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rng = np.random.default_rng(3)
    n = 30_000
    data = pd.DataFrame(
        {
            "a": rng.integers(0, 900, n),
            "b": rng.integers(0, 700, n),
            "x": rng.normal(size=n),
        }
    )
    data["y"] = rng.normal(size=900)[data["a"]] + rng.normal(size=n) + data["x"]
    fits = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            fits.append(mf.fit("y ~ x + (1 | a) + (1 | b)", data))
    one, two = fits
    assert one.criterion == pytest.approx(two.criterion, rel=1e-10)
    np.testing.assert_allclose(one.params, two.params, rtol=1e-10)
    np.testing.assert_allclose(one.bse, two.bse, rtol=1e-10)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-7, atol=1e-9)
