"""The table of variances, covariances and correlations."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf


@pytest.fixture(scope="module")
def sleepstudy():
    return mf.datasets.load("sleepstudy")


def test_variances_come_before_covariances_and_the_residual_last(sleepstudy):
    m = mf.fit("Reaction ~ Days + (Days | Subject)", sleepstudy)
    table = m.varcorr
    assert list(table.columns) == ["grp", "var1", "var2", "vcov", "sdcor"]
    names = table[["grp", "var1", "var2"]].itertuples(index=False, name=None)
    rows = [tuple(x if isinstance(x, str) else None for x in row) for row in names]
    assert rows == [
        ("Subject", "Intercept", None),
        ("Subject", "Days", None),
        ("Subject", "Intercept", "Days"),
        ("Residual", None, None),
    ]


def test_covariance_is_sigma2_times_T_T_transposed(sleepstudy):
    m = mf.fit("Reaction ~ Days + (Days | Subject)", sleepstudy)
    T = np.array([[m.theta[0], 0.0], [m.theta[1], m.theta[2]]])
    Sigma = m.sigma**2 * T @ T.T
    vcov = m.varcorr["vcov"].to_numpy()
    expected = [Sigma[0, 0], Sigma[1, 1], Sigma[1, 0], m.sigma**2]
    np.testing.assert_allclose(vcov, expected)


def test_sdcor_is_a_standard_deviation_or_a_correlation(sleepstudy):
    table = mf.fit("Reaction ~ Days + (Days | Subject)", sleepstudy).varcorr
    v0, v1, cov, residual = table["vcov"]
    expected = [np.sqrt(v0), np.sqrt(v1), cov / np.sqrt(v0 * v1), np.sqrt(residual)]
    np.testing.assert_allclose(table["sdcor"], expected)


def test_diagonal_term_has_no_covariances(sleepstudy):
    table = mf.fit("Reaction ~ Days + (Days || Subject)", sleepstudy).varcorr
    assert table["var2"].isna().all()
    assert len(table) == 3


def test_covariances_of_three_coefficients_follow_the_lower_triangle():
    m = mf.fit("score ~ 1 + (0 + Machine | Worker)", mf.datasets.load("Machines"))
    pairs = m.varcorr.dropna(subset="var2")[["var1", "var2"]].to_numpy().tolist()
    a, b, c = m.varcorr["var1"][:3]
    assert pairs == [[a, b], [a, c], [b, c]]


def test_correlation_with_a_zero_variance_is_missing(sleepstudy):
    m = mf.fit("Reaction ~ Days + (Days | g)", sleepstudy.assign(g=np.arange(180) % 9))
    assert min(m.varcorr["vcov"][:2]) == 0.0
    assert np.isnan(m.varcorr["sdcor"][2])


def test_terms_of_one_group_are_numbered(sleepstudy):
    m = mf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleepstudy)
    assert m.varcorr["grp"].tolist() == ["Subject", "Subject.1", "Residual"]


def test_model_without_random_terms_has_the_residual_only():
    table = mf.fit("gain ~ group", mf.datasets.load("pigs")).varcorr
    assert table["grp"].tolist() == ["Residual"]
