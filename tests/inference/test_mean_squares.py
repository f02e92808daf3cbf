"""The table of mean squares, its expectations in symbols and its tests."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf

REFERENCES = Path(__file__).parents[1] / "references"
CAKE = json.loads((REFERENCES / "mean_squares_sas.json").read_text())["cake"]


@pytest.fixture(scope="module")
def cake():
    data = mf.datasets.load("cake").astype({"temperature": str})
    return mf.fit(
        "angle ~ recipe * temperature + (1 | recipe:replicate)", data, method="ANOVA"
    )


def test_table_of_sas_mixed(cake):
    table = cake.mean_squares()
    assert list(table.index) == list(CAKE["num_df"])
    for column in ("num_df", "sum_sq", "mean_sq", "den_df", "f_value", "p_value"):
        for name, printed in CAKE[column].items():
            half = 0.5 * 10.0 ** Decimal(printed).as_tuple().exponent
            assert table.loc[name, column] == pytest.approx(float(printed), abs=half)
    for name, key in (("expected", "expected"), ("errors", "errors")):
        shown = dict(zip(table.index, table.attrs[name], strict=True))
        assert shown == CAKE[key]


def test_print_has_numbers_symbols_and_stars(cake):
    text = str(cake.mean_squares())
    assert text.splitlines()[0] == "Analysis of variance by Henderson's method III"
    assert (
        "Var(Residual) + 6 Var(recipe:replicate) + Q(recipe, recipe:temperature)"
        in text
    )
    assert "<table" in cake.mean_squares()._repr_html_()
    with pytest.raises(AttributeError):
        _ = cake.mean_squares()[["num_df"]].expectations  # a selection is a plain frame


def test_standard_errors_of_balanced_variances():
    """Var(MS) = 2 MS^2 / df, mean squares independent."""
    data = mf.datasets.load("stroup")
    found = mf.fit(
        "Y ~ A * B + (1 | Block) + (1 | A:Block)", data, method="ANOVA"
    ).mean_squares()
    variance = 2.0 * found["mean_sq"] ** 2 / found["num_df"]
    block, plot, residual = variance.loc[["Block", "A:Block", "Residual"]]
    exact = np.sqrt([(block + plot) / 36.0, (plot + residual) / 4.0, residual])
    assert found.components["se"].to_numpy() == pytest.approx(exact)
    assert found.components.loc["Block", "estimate"] == pytest.approx(62.395833)
    printed = str(found).split("Estimated variances:")[1].splitlines()
    assert [line.split()[0] for line in printed[2:5]] == list(found.components.index)


def test_error_term_is_synthesized():
    rng = np.random.default_rng(8)
    n = 160
    data = pd.DataFrame(
        {
            "t": rng.choice(list("uvw"), n),
            "a": rng.integers(0, 9, n),
            "b": rng.integers(0, 7, n),
        }
    )
    data["y"] = (
        rng.normal(0, 2, 9)[data["a"]]
        + rng.normal(0, 1, 7)[data["b"]]
        + rng.normal(0, 1, n)
    )
    m = mf.fit(
        "y ~ t + (1 | a) + (1 | b)", data, method="ANOVA", control={"sums": "type1"}
    )
    table = m.mean_squares()
    E = table.expectations
    # Of type 1 the mean square of t contains the variances of a and b.
    assert np.all(E.loc["t"] > 0.0)
    c = np.linalg.solve(E.iloc[1:].T, E.loc["t"])
    parts = c * table["mean_sq"].iloc[1:].to_numpy()
    den_df = parts.sum() ** 2 / np.sum(parts**2 / table["num_df"].iloc[1:])
    F = table.loc["t", "mean_sq"] / parts.sum()
    assert table.loc["t", "den_df"] == pytest.approx(den_df)
    assert table.loc["t", "f_value"] == pytest.approx(F)
    assert table.loc["t", "p_value"] == pytest.approx(stats.f.sf(F, 2, den_df))
    assert "MS(a)" in table.attrs["errors"][0]
    assert "MS(Residual)" in table.attrs["errors"][0]


def test_covariates_are_sources_with_one_degree_of_freedom():
    data = mf.datasets.load("sleepstudy")
    table = mf.fit(
        "Reaction ~ Days + (1 | Subject)", data, method="ANOVA"
    ).mean_squares()
    # Balanced: the slope is estimated within subjects.
    assert table.loc["Days", "num_df"] == 1
    assert table.loc["Days", "den_df"] == pytest.approx(161.0)
    ols = mf.fit("Reaction ~ Days + C(Subject)", data)
    assert table.loc["Days", "f_value"] == pytest.approx(ols.tvalues["Days"] ** 2)


def test_coding_does_not_matter():
    data = mf.datasets.load("cake").astype({"temperature": str})
    formula = "angle ~ recipe * temperature + (1 | recipe:replicate)"
    one, two = (
        mf.fit(
            formula,
            data.iloc[:-7],
            method="ANOVA",
            contrasts={"recipe": kind, "temperature": kind},
        ).mean_squares()
        for kind in ("treatment", "sum")
    )
    np.testing.assert_allclose(one["mean_sq"], two["mean_sq"], rtol=1e-9)
    np.testing.assert_allclose(one.expectations, two.expectations, rtol=1e-8, atol=1e-9)


def test_linear_models_have_mean_squares_too():
    data = mf.datasets.load("pigs")
    table = mf.fit("gain ~ group", data, method="ANOVA").mean_squares()
    assert list(table.index) == ["group", "Residual"]
    assert table.loc["group", "sum_sq"] == pytest.approx(6 * 4.5**2)  # 6 pigs, 9 / 2
    assert table.attrs["expected"] == ("Var(Residual) + Q(group)", "Var(Residual)")


def test_other_fits_have_none():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    with pytest.raises(mf.InferenceError, match="A fit by REML has no mean squares"):
        m.mean_squares()


@pytest.mark.parametrize("levels", ["abcd", "dcba", "bdac"])
@pytest.mark.filterwarnings("ignore::mixform.errors.RankDeficiencyWarning")
def test_term_that_others_span_has_nothing_of_its_own(levels):
    """What is left of a by the order of its levels would be an arbitrary contrast."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {"a": rng.choice(list("abcd"), 50), "b": rng.integers(0, 5, 50)}
    )
    data["half"] = np.where(data["a"].isin(["a", "b"]), "one", "two")
    data["a"] = pd.Categorical(data["a"], categories=list(levels))
    data["y"] = rng.normal(size=50)

    def table(fixed, **control):
        formula = f"y ~ {fixed} + (1 | b)"
        m = mf.fit(formula, data, method="ANOVA", weights="w", control=control)
        return m.mean_squares()

    data["w"] = rng.uniform(0.5, 2.0, 50)
    found, alone = table("half + a"), table("a")
    assert list(found.index) == ["a", "b", "Residual"]
    assert found.loc["a", "num_df"] == 2  # within the halves
    note = "half has no degrees of freedom after the other terms."
    assert found.attrs["notes"] == (note,)
    pd.testing.assert_frame_equal(found.loc[["b"]], alone.loc[["b"]])
    by_order = table("half + a", sums="type1")
    assert by_order["num_df"].tolist()[:2] == [1, 2]
    both = table("a", sums="type1")
    total = by_order["sum_sq"].iloc[:2].sum()
    assert total == pytest.approx(both.loc["a", "sum_sq"])
