"""Comparing models with different residual structures."""

import numpy as np
import pytest

import mixform as mf
from mixform.inference.selection.residual_change import residual_change
from tests.residual_models import fit_of, longitudinal


def part(residual, dispersion=None):
    return fit_of(("y ~ x", residual, dispersion, None)).design


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        (None, "cs(visit | id)", "held"),
        (None, "us(visit | id)", "held"),
        (None, "car1(visit | id)", "edge"),
        ("cs(visit | id)", "cs(visit | id)", "same"),
        ("cs(visit | id)", "toep(visit | id)", "held"),
        ("cs(visit | id)", "ar1(visit | id)", "other"),
        ("ar1(visit | id)", "arh1(visit | id)", "held"),
        ("ar1(visit | id)", "toep(visit | id)", "held"),
        ("ar1(visit | id)", "us(visit | arm/id)", "held"),
        ("us(visit | arm/id)", "us(visit | id)", "other"),
        ("exp(lat + lon | site)", "exp(lat + lon | id)", "other"),
        ("diag(visit)", "us(visit | id)", "held"),
        ("toeph(visit | id)", "toep(visit | id)", "other"),
        ("exp(lat + lon)", "exp(lat + lon, nugget=True)", "edge"),
        ("exp(lat + lon, nugget=True)", "exp(lat + lon)", "other"),
        ("exp(lat + lon)", "mat(lat + lon, nu=1.5)", "other"),
    ],
)
def test_one_structure_holds_another(small, large, expected):
    one = mf.fit("y ~ x", longitudinal()).design if small is None else part(small)
    assert residual_change(one, part(large)) == expected


def test_dispersion_is_held_by_more_columns():
    one, two = part(None, "~ arm"), part(None, "~ arm + x")
    assert residual_change(one, two) == "held"
    assert residual_change(two, one) == "other"
    assert residual_change(one, part("ar1(visit | id)", "~ arm")) == "held"
    assert residual_change(one, part("ar1(visit | id)")) == "other"


def test_larger_structure_fits_no_worse():
    """Each structure of a chain holds the one before: criteria fall."""
    chain = [None, "cs(visit | id)", "toep(visit | id)", "toeph(visit | id)",
             "us(visit | id)", "us(visit | arm/id)"]  # fmt: skip
    data = longitudinal()
    fits = [mf.fit("y ~ x", data, residual=residual) for residual in chain]
    criteria = [m.criterion for m in fits]
    assert np.all(np.diff(criteria) < 1e-6)
    table = mf.compare(*fits)
    assert list(table.npar) == [3, 4, 6, 9, 12, 22]
    np.testing.assert_allclose(table.chisq.iloc[1:], -np.diff(criteria), atol=1e-6)
    assert "residual toeph(visit | id)" in str(table)
    assert "Note: m" not in str(table)


def test_p_values_to_doubt_are_named():
    data = longitudinal()
    iid = mf.fit("y ~ x", data)
    field = fit_of(("y ~ x", "exp(lat + lon | id)", None, None), data)
    text = str(mf.compare(iid, field))
    assert "m2 has a residual parameter that is at the edge of its range in m1" in text
    ar1 = fit_of(("y ~ x", "ar1(visit | id)", None, None), data)
    csh = fit_of(("y ~ x", "csh(visit | id)", None, None), data)
    assert "m2 does not hold the residual structure of m1" in str(mf.compare(ar1, csh))
    mixed = fit_of(("y ~ x + (1 | id)", "ar1(visit | id)", None, None), data)
    table = mf.compare(ar1, mixed)
    assert table.p_mixture.iloc[1] == pytest.approx(table.p_value.iloc[1] / 2.0)


def test_smaller_models_keep_the_residual_structure():
    data = longitudinal()
    m = fit_of(("y ~ x + arm + (x | site)", "ar1(visit | id)", "~ arm", None), data)
    without = fit_of(("y ~ x + arm + (1 | site)", "ar1(visit | id)", "~ arm", None))
    table = m.ranova()
    chisq = max(without.criterion - m.criterion, 0.0)
    assert table.loc["x in (x | site)", "lrt"] == pytest.approx(chisq, abs=1e-4)
    lrt = m.drop1("lrt")
    kept = ("y ~ x + (x | site)", "ar1(visit | id)", "~ arm", None)
    ml = [fit_of(model, data, method="ML") for model in (
        kept, ("y ~ x + arm + (x | site)", *kept[1:]))]  # fmt: skip
    expected = ml[0].criterion - ml[1].criterion
    assert lrt.loc["arm", "lrt"] == pytest.approx(expected, abs=1e-4)
    # arm is in the dispersion still, and the smaller model can be used.
    small = m.step(reduce_random=False, alpha_fixed=1e-9, keep=["x"]).model
    assert small.design.residual.term.structure == "ar1"
    assert small.predict(data, interval="prediction").notna().all(axis=None)
