"""Subjects and positions: what is refused, and where the message points."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, FormulaError


def table():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(list("abcdefgh"), 3), "visit": [1, 2, 3] * 8})
    frame["time"] = frame.visit + rng.uniform(0, 0.5, 24)
    frame["site"] = np.repeat([1, 2, 3, 4], 6)
    frame["sex"] = np.where(frame.id < "e", "f", "m")
    frame["lat"], frame["x"], frame["y"] = rng.normal(size=(3, 24))
    return frame


REFUSED = {
    "us(visit | who)": (FormulaError, "Unknown column 'who' in residual", "who"),
    "us(visti | id)": (FormulaError, "Unknown column 'visti' in residual", "visti"),
    "us(visit)": (DesignError, "'us' needs the subject", "us(visit)"),
    "us(visit + time | id)": (DesignError, "position column, got visit, time", None),
    "us(visit | site)": (
        DesignError, "site '1' has two residuals at visit 1", "us(visit | site)",
    ),
    "ar1(time | id)": (DesignError, "'time' in residual is not whole numbers", "time"),
    "exp(sex | id)": (DesignError, "'sex' in residual is not numeric", "sex"),
    "exp(visit | site)": (
        DesignError, "site '1' has two residuals at visit 1", "exp(visit | site)",
    ),
    "ar1(visit)": (DesignError, "The data have two residuals at visit 1", "ar1(visit)"),
    "car1(visit | site)": (
        DesignError, "site '1' has two residuals at visit 1", "car1(visit | site)",
    ),
    "us(visit | id, nugget=True)": (DesignError, "'us' has no option nugget", "nugget"),
    "exp(time | id, nugget=2)": (DesignError, "'exp' has no option nugget=2", "nugget"),
    "mat(time | id, nu=-1)": (DesignError, "'mat' has no option nu=-1", "nu"),
}  # fmt: skip


@pytest.mark.parametrize("residual", REFUSED)
def test_refused_structures(residual):
    error, message, underlined = REFUSED[residual]
    with pytest.raises(error, match=message) as caught:
        mf.fit("y ~ x", table(), residual=residual)
    if underlined is not None:
        start, end = caught.value.span
        assert residual[start:end] == underlined
    assert caught.value.hint


def test_one_position_is_refused():
    data = table()
    with pytest.raises(DesignError, match="one position only, '2'"):
        mf.fit("y ~ x", data[data.visit == 2], residual="us(visit | id)")


def test_one_position_of_a_stratum_is_named():
    data = table()
    data = data[(data.sex == "f") | (data.visit == 2)]
    with pytest.raises(DesignError, match="one position only of stratum 'm', '2'"):
        mf.fit("y ~ x", data, residual="us(visit | sex/id)")


def test_subjects_with_one_residual_each_are_refused():
    data = table()
    data["row"] = range(24)
    with pytest.raises(DesignError, match="No 'row' has two residuals"):
        mf.fit("y ~ x", data, residual="exp(time | row)")


def test_infinite_coordinates_are_refused():
    data = table()
    data.loc[3, "lat"] = np.inf
    with pytest.raises(DesignError, match=r"A coordinate in residual.* is infinite"):
        mf.fit("y ~ x", data, residual="exp(lat | id)")


def test_a_nugget_allows_two_residuals_at_one_place():
    m = mf.fit("y ~ x", table(), residual="exp(visit | site, nugget=True)")
    assert list(m.rho.index) == ["range", "nugget"]


def test_rows_with_a_missing_position_are_dropped_and_counted():
    data = table()
    data["visit"] = data.visit.astype(float)
    data.loc[[0, 5], "visit"] = np.nan
    m = mf.fit("y ~ x", data, residual="us(visit | id)")
    assert m.nobs == 22
    assert "2 of 24 rows dropped for missing values (visit 2)" in str(m)
    assert data.visit.isna().sum() == 2


def test_diag_takes_positions_several_times():
    m = mf.fit("y ~ x", table(), residual="diag(sex)")
    assert list(m.residual_parameters().index) == ["sd(f)", "sd(m)"]


DISPERSION = {
    "sex": "starts with '~'",
    "~ seks": "Unknown column 'seks' in dispersion",
    "~ 1": "does not vary",
    "~ x + I(2 * x)": "combinations of each other",
    "~ (1 | id)": "cannot be read",
}


@pytest.mark.parametrize("dispersion", DISPERSION)
def test_refused_dispersion(dispersion):
    with pytest.raises((FormulaError, DesignError), match=DISPERSION[dispersion]):
        mf.fit("y ~ x", table(), dispersion=dispersion)


def test_the_data_are_not_changed():
    data = table()
    before = data.copy(deep=True)
    mf.fit("y ~ x", data, residual="csh(visit | id)", dispersion="~ sex")
    pd.testing.assert_frame_equal(data, before)
