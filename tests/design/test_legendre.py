"""Legendre polynomials: orthonormality, Mrode's cows, new data, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.design.legendre import legendre_basis
from mixform.errors import FormulaError, MixformError, RankDeficiencyWarning
from tests.mrode import (
    G_COWS,
    P_COWS,
    cow_records,
    cows,
    numbers,
    rounded_covariables,
)

RANDOM = "0 + legendre(dim, 2, intercept=True)"
FIXED = "C(htd, contr.treatment(base=10)) + legendre(dim, 4)"


def example_9_2(formula, data):
    return mf.fit(
        formula,
        data,
        relationship={"cow": mf.Pedigree(cows())},
        varcomp={"cow": G_COWS, "cow.1": P_COWS, "residual": 3.710},
    )


def simulated(n=200, seed=2):
    rng = np.random.default_rng(seed)
    g, x = rng.integers(0, 25, n), rng.uniform(20.0, 80.0, n)
    b = rng.normal(size=(25, 2))
    y = 5.0 + 0.1 * x + b[g, 0] + b[g, 1] * (x - 50.0) / 30.0 + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g, "sex": np.where(g % 2, "m", "f")})


def test_polynomials_are_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    basis = legendre_basis(nodes, 8)
    gram = basis.T @ (weights[:, None] * basis)
    np.testing.assert_allclose(gram, np.eye(9), atol=1e-13)


def test_closed_forms_over_the_range_of_the_data():
    data = simulated()
    a, b = data["x"].min(), data["x"].max()
    t = 2.0 * (data["x"] - a) / (b - a) - 1.0
    X = mf.fit("y ~ legendre(x, 3) + (1 | g)", data).design.X
    assert list(X.columns) == ["Intercept"] + [
        f"legendre(x, 3)[{k}]" for k in (1, 2, 3)
    ]
    closed = [t, (3.0 * t**2 - 1.0) / 2.0, (5.0 * t**3 - 3.0 * t) / 2.0]
    for k, P in enumerate(closed, start=1):
        np.testing.assert_allclose(X.iloc[:, k], np.sqrt(k + 0.5) * P, atol=1e-13)
    whole = mf.fit("y ~ 0 + legendre(x, 3, intercept=True) + (1 | g)", data).design.X
    np.testing.assert_allclose(whole.iloc[:, 0], np.sqrt(0.5))
    np.testing.assert_array_equal(whole.iloc[:, 1:], X.iloc[:, 1:])
    fixed = mf.fit("y ~ legendre(x, degree=1, bounds=(0, 100)) + (1 | g)", data)
    np.testing.assert_allclose(
        fixed.design.X.iloc[:, 1], np.sqrt(1.5) * (data["x"] / 50.0 - 1.0)
    )


@pytest.mark.parametrize(
    ("formula", "example", "width"),
    [
        (f"fat ~ {FIXED} + ({RANDOM} | cow) + iid({RANDOM} | cow)", "9.2", 3),
        (f"fat ~ {FIXED} + (1 | cow) + iid(1 | cow)", "9.1", 1),
    ],
)
def test_mrode_random_and_fixed_regression(formula, example, width):
    Sigma = (G_COWS, P_COWS) if width == 3 else (5.521, 8.470)
    m = mf.fit(
        formula,
        cow_records(),
        relationship={"cow": mf.Pedigree(cows())},
        varcomp={"cow": Sigma[0], "cow.1": Sigma[1], "residual": 3.710},
    )
    # The book's polynomials have 4 decimals; beta_0 is of phi_0 = sqrt(1/2).
    beta = np.append(np.sqrt(2.0) * m.params.iloc[0], m.params.iloc[10:])
    close = {"rtol": 0.0, "atol": 2e-4}
    np.testing.assert_allclose(beta, numbers(example, "regression"), **close)
    np.testing.assert_allclose(m.params.iloc[1:10], numbers(example, "htd"), **close)
    table = m.ranef().set_index("grp")["estimate"]
    for label, quantity in (("cow", "animal"), ("cow.1", "pe")):
        u = table[label].to_numpy().reshape(width, -1).T
        np.testing.assert_allclose(u, numbers(example, quantity), **close)
    if width == 3:
        u = table["cow"].to_numpy().reshape(3, 8).T
        days = 2.0 * (np.arange(6.0, 311.0) - 4.0) / 306.0 - 1.0
        total = u @ legendre_basis(days, 2).sum(axis=0)
        printed = numbers("9.2", "305-day breeding values")
        np.testing.assert_allclose(total, printed, atol=0.03)  # 305 times the rounding


def test_mrode_9_2_with_the_books_rounding_to_the_printed_digit():
    data = cow_records()
    data = data.assign(**rounded_covariables(data["dim"]))
    own, htd = "0 + p0 + p1 + p2", "C(htd, contr.treatment(base=10))"
    formula = f"fat ~ 0 + p0 + p1 + p2 + p3 + p4 + {htd} + ({own}|cow) + iid({own}|cow)"
    with pytest.warns(RankDeficiencyWarning):
        m = example_9_2(formula, data)
    digits = m.params.round(4)
    np.testing.assert_array_equal(digits.iloc[:5], numbers("9.2", "regression"))
    np.testing.assert_array_equal(digits.iloc[5:14], numbers("9.2", "htd"))
    table = m.ranef().set_index("grp")["estimate"].round(4)
    for label, quantity in (("cow", "animal"), ("cow.1", "pe")):
        u = table[label].to_numpy().reshape(3, -1).T
        np.testing.assert_array_equal(u, numbers("9.2", quantity))


def test_the_constant_does_not_change_the_model():
    data = cow_records()
    one = example_9_2(f"fat ~ {FIXED} + ({RANDOM} | cow) + iid({RANDOM} | cow)", data)
    # b_0 phi_0 is an intercept of sqrt(1/2) b_0
    S = np.diag([np.sqrt(0.5), 1.0, 1.0])
    m = mf.fit(
        f"fat ~ {FIXED} + (legendre(dim, 2) | cow) + iid(legendre(dim, 2) | cow)",
        data,
        relationship={"cow": mf.Pedigree(cows())},
        varcomp={"cow": S @ G_COWS @ S, "cow.1": S @ P_COWS @ S, "residual": 3.710},
    )
    assert m.criterion == pytest.approx(one.criterion, abs=1e-9)
    np.testing.assert_allclose(m.fittedvalues, one.fittedvalues)


def test_new_data_are_coded_over_the_range_of_the_fit():
    data = simulated()
    m = mf.fit("y ~ legendre(x, 2) * sex + (legendre(x, 1) | g)", data)
    some = data.iloc[[5, 17, 40]]
    np.testing.assert_allclose(m.predict(some), m.fittedvalues.iloc[[5, 17, 40]])
    few = m.emmeans("x", at={"x": [30.0, 60.0]}).table
    poly = mf.fit("y ~ (x + I(x^2)) * sex + (x | g)", data)
    same = poly.emmeans("x", at={"x": [30.0, 60.0]}).table
    assert m.criterion == pytest.approx(
        poly.criterion - np.log(np.linalg.det(poly.design.X.T @ poly.design.X))
        + np.log(np.linalg.det(m.design.X.T @ m.design.X)),
        abs=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(few.iloc[:, 1], same.iloc[:, 1], rtol=1e-5)
    np.testing.assert_allclose(few["se"], same["se"], rtol=1e-4)
    slope = m.slopes("x", at={"x": 40.0}).table.iloc[:, 1]
    expected = poly.slopes("x", at={"x": 40.0}).table.iloc[:, 1]
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    assert np.isfinite(m.slopes("x", at={"x": data["x"].max()}).table.iloc[0, 1])


def test_a_saved_model_predicts_the_same(tmp_path):
    data = simulated()
    m = mf.fit("y ~ legendre(x, 2) + (legendre(x, 1) | g)", data)
    m.save(tmp_path / "m.mixform")
    again = mf.load(tmp_path / "m.mixform")
    new = pd.DataFrame({"x": [25.0, 50.0], "g": [3, 4]})
    np.testing.assert_allclose(again.predict(new), m.predict(new))
    assert list(again.params.index) == list(m.params.index)


def test_rows_with_missing_values_do_not_count_for_the_range():
    data = simulated()
    wide = pd.concat([data, data.iloc[:2].assign(x=[0.0, np.nan], y=[np.nan, 1.0])])
    m = mf.fit("y ~ legendre(x, 2) + (1 | g)", data)
    n = mf.fit("y ~ legendre(x, 2) + (1 | g)", wide.reset_index(drop=True))
    np.testing.assert_array_equal(n.params, m.params)


def test_a_column_named_legendre_is_a_column():
    data = simulated().rename(columns={"x": "legendre"})
    m = mf.fit("y ~ legendre(legendre, 2) + (legendre | g)", data)
    same = mf.fit("y ~ legendre(x, 2) + (x | g)", simulated())
    np.testing.assert_array_equal(m.params, same.params)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("legendre(x, 0)", "degree 0 has no columns(.|\n)*1 or more"),
        ("legendre(x, 1.5)", "degree 1.5"),
        ("legendre(x, True)", "degree True"),
        ("legendre(x, 2, bounds=(3, 3))", r"bounds=\(3, 3\)\) is no range"),
        ("legendre(x, 2, bounds=5)", "bounds=5"),
        ("legendre(x, 2, bounds=(0, 50))", "from 0 to 50; .* is outside"),
        ("legendre(sex, 2)", "one numeric column"),
        ("legendre(poly(x, 2), 2)", "one numeric column"),
        ("legendre(one, 2)", "without variation"),
    ],
)
def test_what_is_refused(term, message):
    data = simulated().assign(one=1.0)
    with pytest.raises(FormulaError, match=message) as caught:
        mf.fit(f"y ~ {term} + (1 | g)", data)
    assert "legendre" in str(caught.value).splitlines()[1]


def test_values_outside_the_range_of_the_fit_are_refused():
    m = mf.fit("y ~ legendre(x, 2) + (legendre(x, 1) | g)", simulated())
    new = pd.DataFrame({"x": [50.0, 99.0], "g": [1, 1]})
    with pytest.raises(MixformError, match=r"99 is outside(.|\n)*bounds=\(a, b\)"):
        m.predict(new)
    with pytest.raises(MixformError, match="90 is outside"):
        m.emmeans("x", at={"x": [50.0, 90.0]})
    wide = mf.fit("y ~ legendre(x, 2, bounds=(0, 100)) + (1 | g)", simulated())
    assert np.isfinite(wide.predict(new)).all()
