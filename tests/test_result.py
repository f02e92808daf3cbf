"""What users hold: its independence of their table, and what it accepts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    n = 120
    table = pd.DataFrame(
        {
            "a": pd.Categorical(rng.choice(list("pqr"), n)),
            "x": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
        }
    )
    effects = rng.normal(size=12)
    table["y"] = effects[table["g"]] + table["x"] + rng.normal(size=n)
    return table


def test_changing_the_table_after_the_fit_changes_nothing(data):
    expected = mf.fit("y ~ a * x + (1 | g)", data.copy()).anova()
    m = mf.fit("y ~ a * x + (1 | g)", data)
    data.loc[:, "x"] = np.arange(len(data)) ** 2.0
    data.iloc[:, 3] *= 0.0
    data["a"] = data["a"].cat.rename_categories({"p": "z"})
    pd.testing.assert_frame_equal(pd.DataFrame(m.anova()), pd.DataFrame(expected))


@pytest.mark.parametrize("shape", [pd.Series, lambda row: pd.DataFrame([row])])
def test_contrast_with_labels_is_read_by_label(data, shape):
    m = mf.fit("y ~ x + (1 | g)", data)
    test = m.test(shape({"x": 1.0, "Intercept": 0.0}))
    assert test.table["estimate"].iloc[0] == pytest.approx(m.params["x"])


@pytest.mark.parametrize(
    ("L", "rhs", "message"),
    [
        (np.eye(2), [1, 2, 3], "rhs must be"),
        (np.eye(2), [np.nan, 1.0], "rhs must be"),
        (np.eye(2), "a", "rhs is not numeric"),
        ([["a", "b"]], 0, "L is not numeric"),
        ({"x": "q"}, 0, "The number of .x. is not numeric"),
        ({"x": 1, "z": {"x": 1}}, 0, "There is no coefficient 'z'"),
    ],
)
def test_bad_contrast_is_one_clear_error(data, L, rhs, message):
    m = mf.fit("y ~ x + (1 | g)", data)
    with pytest.raises(mf.InferenceError, match=message):
        m.test(L, rhs)


def test_list_of_equations_is_tested_jointly(data):
    m = mf.fit("y ~ x + (1 | g)", data)
    assert m.test(["x = 0", "Intercept = 0"]).num_df == 2


def test_every_random_term_has_its_own_label(data):
    data = data.rename(columns={"g": "my.g"}).assign(my=np.arange(len(data)) % 7)
    data["my.1"] = np.arange(len(data)) % 5
    m = mf.fit("y ~ x + (1|my.g) + (0 + x|my.g) + (1|my) + (1|`my.1`)", data)
    groups = m.varcorr["grp"].tolist()
    assert groups == ["my.g", "my.g.1", "my", "my.1", "Residual"]


def test_evaluations_stay_within_the_number_allowed(data):
    data["z"] = np.random.default_rng(1).normal(size=len(data))
    with pytest.warns(UserWarning, match="not certified|singular"):
        m = mf.fit("y ~ x + (x + z | g)", data, control={"max_evaluations": 10})
    assert m.convergence.n_evaluations <= 16


@pytest.mark.parametrize("name", ["g:a", "a:g", "(1 | a:g)"])
def test_random_terms_are_named_in_any_order(data, name):
    m = mf.fit("y ~ x + (1 | a:g)", data)
    np.testing.assert_allclose(m.predict(random=name), m.fittedvalues)
