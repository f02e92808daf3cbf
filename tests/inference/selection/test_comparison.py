"""Likelihood-ratio tables: closed forms, lme4's anova, invariance, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.selection.comparison import (
    compare,
    mixture_p,
    naive_p,
    random_change,
)
from mixform.report.comparison import comparison_table
from tests.comparison_references import column, fit_of, tables

COMPARE = tables("compare")


def fits(data, *formulas, **options):
    return [mf.fit(formula, data, **options)._fit for formula in formulas]


@pytest.fixture(scope="module")
def sleepstudy():
    return mf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def sleep(sleepstudy):
    return fits(
        sleepstudy,
        "Reaction ~ Days + (1 | Subject)",
        "Reaction ~ Days + (Days || Subject)",
        "Reaction ~ Days + (Days | Subject)",
    )


# Exact.


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_balanced_one_way_layout_in_closed_form(method):
    data = mf.datasets.load("Dyestuff")  # 6 batches of 5
    m, r, n = 6, 5, 30
    y = data["Yield"].to_numpy(dtype=float)
    means = data.groupby("Batch", observed=True)["Yield"].transform("mean").to_numpy()
    within, between = ((y - means) ** 2).sum(), ((means - y.mean()) ** 2).sum()
    # -2 log likelihood up to what both have: log variances of the two strata.
    strata = m - 1 if method == "REML" else m
    large = m * (r - 1) * np.log(within / (m * (r - 1)))
    large += strata * np.log(between / strata)
    rest = n - 1 if method == "REML" else n
    expected = rest * np.log((within + between) / rest) - large
    pair = fits(data, "Yield ~ 1", "Yield ~ 1 + (1 | Batch)", method=method)
    table, _, _ = compare(pair)
    row = table.loc["m2"]
    assert row["chisq"] == pytest.approx(expected, abs=1e-7)
    assert row["num_df"] == 1
    assert row["p_value"] == pytest.approx(stats.chi2.sf(expected, 1))
    assert row["p_mixture"] == pytest.approx(0.5 * stats.chi2.sf(expected, 1))


@pytest.mark.parametrize("q", [1, 2, 5])
def test_mixture_is_half_and_half(q):
    below = stats.chi2.sf(3.0, q - 1) if q > 1 else 0.0
    assert mixture_p(3.0, q) == pytest.approx(0.5 * (below + stats.chi2.sf(3.0, q)))
    assert mixture_p(3.0, q) < naive_p(3.0, q)


def test_variance_at_zero_gives_chisq_zero_and_p_one():
    pair = fits(mf.datasets.load("Dyestuff2"), "Yield ~ 1", "Yield ~ 1 + (1 | Batch)")
    row = compare(pair)[0].loc["m2"]
    assert row["chisq"] == 0.0
    assert row["p_value"] == 1.0
    assert row["p_mixture"] == 1.0


# References.


@pytest.mark.parametrize("name", COMPARE)
def test_table_is_lme4s(name):
    reference = COMPARE[name]
    models = [fit_of(f, reference["dataset"], "REML") for f in reference["formulas"]]
    table, _, _ = compare(models, refit=reference["method"] == "ML")
    pairs = {"npar": "npar", "aic": "AIC", "bic": "BIC", "llf": "logLik"}
    pairs |= {"deviance": "deviance", "chisq": "Chisq", "num_df": "Df"}
    for ours, theirs in pairs.items():
        expected = column(reference, theirs)
        np.testing.assert_allclose(table[ours], expected, rtol=1e-8, atol=1e-6)
    expected = column(reference, "Pr(>Chisq)")
    np.testing.assert_allclose(table["p_value"], expected, rtol=1e-5)


def test_published_likelihood_ratios_of_sleepstudy(sleep):
    one, bars, full = sleep
    # easystats/performance#400 and glmmTMB#686, as printed there.
    row = compare([one, full], refit=True)[0].loc["m2"]
    assert round(row["chisq"], 3) == 42.139
    assert row["num_df"] == 2
    assert f"{row['p_value']:.2e}" == "7.07e-10"
    row = compare([bars, full], refit=True)[0].loc["m2"]
    assert round(row["chisq"], 4) == 0.0639
    assert f"{row['p_value']:.4f}" == "0.8004"
    assert round(compare([one, full])[0].loc["m2", "chisq"], 3) == 42.837


def test_published_p_value_of_pastes():
    data = mf.datasets.load("Pastes")
    small, large = "strength ~ 1 + (1|batch:cask)", "strength ~ 1 + (1|batch/cask)"
    table, _, _ = compare(fits(data, small, large, method="ML"))
    # MixedModels.jl, test/pls.jl.
    assert table.loc["m2", "p_value"] == pytest.approx(0.52337680, abs=2e-7)


# What is refitted, and what is said about it.


def test_reml_is_kept_if_X_is_equal(sleep):
    table, heading, notes = compare(sleep)
    assert "by REML" in heading
    assert table.loc["m3", "deviance"] == pytest.approx(1743.628272, abs=1e-5)
    assert any("REML criteria" in note for note in notes)


def test_refits_by_ml_and_says_so_if_X_differs(sleepstudy):
    pair = fits(
        sleepstudy, "Reaction ~ 1 + (1|Subject)", "Reaction ~ Days + (1|Subject)"
    )
    table, heading, notes = compare(pair, ["without", "with"])
    assert list(table.index) == ["without", "with"]
    assert "by ML" in heading
    assert "with: Reaction ~ Days + (1|Subject)" in heading
    assert notes[0].startswith("without, with refitted by ML: the fixed effects differ")
    assert pair[0].method == "REML"


def test_methods_mixed_are_refitted_by_ml(sleepstudy, sleep):
    (by_ml,) = fits(sleepstudy, "Reaction ~ Days + (1 | Subject)", method="ML")
    table, _, notes = compare([by_ml, sleep[2]])
    assert notes[0] == "m2 refitted by ML: the others were."
    assert table.loc["m2", "chisq"] == pytest.approx(42.139, abs=5e-4)


def test_refit_false_refuses_what_is_not_comparable(sleepstudy, sleep):
    other = fits(sleepstudy, "Reaction ~ 1 + (1 | Subject)")[0]
    with pytest.raises(InferenceError, match="different fixed effects"):
        compare([other, sleep[0]], refit=False)
    (by_ml,) = fits(sleepstudy, "Reaction ~ Days + (1 | Subject)", method="ML")
    with pytest.raises(InferenceError, match="m1 by ML, m2 by REML"):
        compare([by_ml, sleep[2]], refit=False)


@pytest.mark.parametrize("weights", [None, "w"])
def test_equal_X_in_another_coding_keeps_reml_and_the_answer(sleepstudy, weights):
    data = sleepstudy.assign(
        late=np.where(sleepstudy["Days"] > 4, "yes", "no"),
        w=1.0 + sleepstudy["Days"] % 3,
    )
    small, large = "Reaction ~ {} + (1|Subject)", "Reaction ~ {} + (Days|Subject)"
    one = fits(data, small.format("Days + late"), weights=weights)
    same = fits(data, large.format("Days + late"), weights=weights)
    other = fits(
        data,
        large.format("I(3*Days - 7) + late"),
        weights=weights,
        contrasts={"late": "sum"},
    )
    (criteria,) = {fit.method for fit in (*one, *same, *other)}
    assert criteria == "REML"
    # The REML criterion itself depends on the coding; the comparison does not.
    assert abs(same[0].criterion - other[0].criterion) > 0.1
    first, _, _ = compare([*one, *same])
    second, heading, _ = compare([*one, *other])
    assert "by REML" in heading
    for name in ("aic", "bic", "llf", "deviance", "chisq", "p_value"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-8)


def test_order_of_models_and_terms_does_not_matter(sleepstudy, sleep):
    one = compare(sleep, ["a", "b", "c"])[0]
    two = compare(sleep[::-1], ["c", "b", "a"])[0]
    pd.testing.assert_frame_equal(one, two)
    turned = fits(sleepstudy, "Reaction ~ (Days | Subject) + Days")
    three = compare([*turned, sleep[0]], ["c", "a"])[0]
    four = compare([sleep[2], sleep[0]], ["c", "a"])[0]
    np.testing.assert_allclose(three, four, rtol=1e-9)


def test_refits_follow_control_and_say_if_they_are_not_certified(sleep):
    options = {"max_evaluations": 1}
    _, _, notes = compare([sleep[0], sleep[2]], refit=True, control=options)
    assert any(note.startswith("m2: the fit is not certified") for note in notes)
    _, _, notes = compare([sleep[0], sleep[2]], refit=True)
    assert not any("certified" in note for note in notes)


def test_models_with_equal_npar_have_no_p(sleepstudy):
    data = sleepstudy.assign(noise=np.sin(np.arange(180.0)))
    pair = fits(data, "Reaction ~ Days + (1|Subject)", "Reaction ~ noise + (1|Subject)")
    table, _, notes = compare(pair)
    assert table.loc["m2", "num_df"] == 0
    assert np.isnan(table.loc["m2", "p_value"])
    assert any("as many parameters as m1" in note for note in notes)


def test_models_that_are_not_nested_have_no_p(sleepstudy):
    data = sleepstudy.assign(noise=np.sin(np.arange(180.0)), more=np.arange(180.0) % 7)
    small = "Reaction ~ Days + (1|Subject)"
    table, _, notes = compare(fits(data, small, "Reaction ~ noise*more + (1|Subject)"))
    assert np.isnan(table.loc["m2", "p_value"])
    assert any("does not hold the fixed effects of m1" in note for note in notes)


# The boundary.

#: random part of the smaller and larger model -> how they differ
CHANGES = [
    ("", "(1|g)", "one"),
    ("(1|g)", "(x|g)", "one"),
    ("(1|g)", "(x||g)", "one"),
    ("(x|g)", "(x + z|g)", "one"),
    ("(x||g)", "(x|g)", "covariance"),
    ("(1|g) + (0 + x|g)", "(x|g)", "covariance"),
    ("(1|g) + (0 + x|g)", "(x||g)", "none"),
    ("(x|g)", "(I(2*x - 3)|g)", "none"),
    ("(1|g)", "(1|g) + (1|h)", "one"),
    ("", "(x|g)", "several"),
    ("(1|g)", "(x + z|g)", "several"),
    ("(1|g)", "(1|g) + (1|h) + (1|h:g)", "several"),
    ("(x||g)", "(x + z|g)", "several"),
    ("(1|g)", "(1|h) + (1|h:g)", "other"),
    ("(z|g)", "(x|g) + (1|h)", "other"),
    ("(1|h)", "(0 + h2|g)", "other"),
    ("(1|g)", "(0 + h2|g)", "one"),
]


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(2)
    n = 240
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "g": np.arange(n) % 12,
            "h": np.arange(n) // 12 % 5,
            "h2": np.where(np.arange(n) // 12 % 2, "u", "v"),
        }
    )


@pytest.mark.parametrize(("small", "large", "expected"), CHANGES)
def test_kind_of_change(crossed, small, large, expected):
    from mixform.design import build_design
    from mixform.formula import parse_formula

    designs = [
        build_design(
            parse_formula(f"y ~ x + {random}".rstrip(" +"), ("us", "diag")), crossed
        )
        for random in (small, large)
    ]
    assert random_change(*designs) == expected


def test_covariance_alone_has_no_boundary(sleep):
    table, _, notes = compare(sleep[1:])
    assert np.isnan(table.loc["m2", "p_mixture"])
    assert not any("conservative" in note for note in notes)


def test_one_variance_more_has_a_mixture(sleep):
    table, _, notes = compare([sleep[0], sleep[2]])
    chisq = table.loc["m2", "chisq"]
    expected = 0.5 * (stats.chi2.sf(chisq, 1) + stats.chi2.sf(chisq, 2))
    assert table.loc["m2", "p_mixture"] == pytest.approx(expected)
    assert any("m2 has a variance that m1 sets to zero" in note for note in notes)


def test_two_variances_more_have_no_mixture_and_a_note(sleepstudy, sleep):
    table, _, notes = compare([*fits(sleepstudy, "Reaction ~ Days"), sleep[2]])
    assert np.isnan(table.loc["m2", "p_mixture"])
    assert any("not known in closed form" in note for note in notes)


# Bad input.


def test_one_model_is_not_compared(sleep):
    with pytest.raises(InferenceError, match="at least two models"):
        compare(sleep[:1])


def test_different_rows_are_refused_and_counted(sleepstudy, sleep):
    gaps = sleepstudy.copy()
    gaps.loc[[7, 11], "Days"] = np.nan
    (fewer,) = fits(gaps, "Reaction ~ Days + (1 | Subject)")
    with pytest.raises(InferenceError) as caught:
        compare([sleep[0], fewer], ["all", "some"])
    message = str(caught.value)
    assert "all has 180 rows, some 178" in message
    assert "2 of all not in the other (the first: 7)" in message


def test_different_responses_are_refused(sleepstudy, sleep):
    (logs,) = fits(sleepstudy, "log(Reaction) ~ Days + (1 | Subject)")
    with pytest.raises(InferenceError, match="'Reaction' and 'log") as caught:
        compare([sleep[0], logs])
    assert "in 180 of 180 rows" in str(caught.value)


@pytest.mark.parametrize(("argument", "what"), [("weights", "w"), ("offset", "o")])
def test_different_weights_or_offsets_are_refused(sleepstudy, sleep, argument, what):
    data = sleepstudy.assign(w=1.0, o=0.0)
    data.loc[[1, 2, 3], ["w", "o"]] = 2.0
    (other,) = fits(data, "Reaction ~ Days + (1 | Subject)", **{argument: what})
    with pytest.raises(InferenceError, match=f"{argument.rstrip('s')}s of m1 and m2"):
        compare([sleep[0], other])


def test_weights_of_one_are_no_weights(sleepstudy, sleep):
    (ones,) = fits(
        sleepstudy, "Reaction ~ Days + (Days | Subject)", weights=np.ones(180)
    )
    assert compare([sleep[0], ones])[0].loc["m2", "chisq"] == pytest.approx(
        42.836813, abs=1e-5
    )


# The printout.


def test_printed_table(sleep):
    table = comparison_table(*compare(sleep))
    text = str(table)
    assert text.startswith("Models compared by REML:\nm1: Reaction ~ Days + (1 |")
    assert " m3    6 1755.63 1774.79 -871.81  1743.63  0.0410  1     0.8395" in text
    assert "Pr(mixture)" in text
    assert "NaN" not in text
    assert "Note: m2 has a variance that m1 sets to zero" in text
    assert "<table" in table._repr_html_()
    assert type(table[["aic"]]) is pd.DataFrame


def test_mixture_is_not_printed_where_there_is_none(sleep):
    assert "mixture" not in str(comparison_table(*compare(sleep[1:])))
