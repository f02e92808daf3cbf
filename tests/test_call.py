"""What a fit remembers of its call, and how it is changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.call import make_call, run
from mixform.errors import DesignError, FormulaError


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    n = 90
    table = pd.DataFrame(
        {
            "a": pd.Categorical(rng.choice(list("pqr"), n)),
            "x": rng.normal(size=n),
            "g": rng.integers(0, 9, n),
            "w": rng.uniform(1, 2, n),
        }
    )
    table["y"] = rng.normal(size=9)[table["g"]] + table["x"] + rng.normal(size=n)
    return table


def criterion(call):
    return run(call, progress=False).criterion


def test_changed_call_gives_the_fit_that_was_meant(data):
    call = make_call("y ~ a + x + (1 | g)", data, weights="w")
    changed = call.changed(". - x + a:x", method="ml")
    direct = mf.fit("y ~ a + a:x + (1 | g)", data, method="ML", weights="w")
    assert changed.formula == "y ~ a + a:x + (1 | g)"
    assert criterion(changed) == direct.criterion


def test_columns_replaced_after_the_fit_are_not_seen(data):
    call = make_call("y ~ x + (1 | g)", data)
    before = criterion(call)
    data["x"] = 0.0
    del data["g"]
    assert criterion(call) == before


@pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="pandas 2 does not copy on write"
)
def test_values_written_after_the_fit_are_not_seen(data):
    call = make_call("y ~ x + (1 | g)", data)
    before = criterion(call)
    data.loc[:5, "x"] = 99.0
    data.iloc[7:, 4] *= 2
    assert criterion(call) == before


def test_table_is_not_copied(data):
    call = make_call("y ~ x + (1 | g)", data)
    assert np.shares_memory(call.data["x"].to_numpy(), data["x"].to_numpy())


def test_arrays_in_arguments_and_mappings_are_copied(data):
    weights, columns = data["w"].to_numpy().copy(), dict(data.items())
    columns["x"] = data["x"].to_numpy().copy()
    call = make_call("y ~ x + (1 | g)", columns, weights=weights)
    before = criterion(call)
    weights[:] = 1.0
    columns["x"][:] = 1.0
    assert criterion(call) == before


def test_start_belongs_to_one_model(data):
    call = make_call("y ~ x + (1 | g)", data, start=[0.5])
    assert call.changed(". + a").start is None
    assert call.changed(start=[0.7]).start == [0.7]


def test_contrasts_of_variables_that_left_are_dropped(data):
    contrasts = {"a": "sum"}
    call = make_call("y ~ a + x + (1 | g)", data, contrasts=contrasts)
    assert call.changed(". - a").contrasts == {}
    assert call.changed(". - x").contrasts == contrasts
    assert criterion(call.changed(". - a")) == pytest.approx(
        mf.fit("y ~ x + (1 | g)", data).criterion, abs=1e-12
    )


def test_values_by_row_do_not_outlive_their_data(data):
    call = make_call("y ~ x + (1 | g)", data, weights=data["w"].to_numpy())
    with pytest.raises(DesignError, match=r"weights was given as one value for each"):
        call.changed(data=data[::-1])
    assert call.changed(data=data, weights="w").weights == "w"
    assert call.changed(data=data, weights=None).weights is None


def test_unknown_argument_and_bad_formula(data):
    call = make_call("y ~ x + (1 | g)", data)
    with pytest.raises(DesignError, match=r"update has no argument 'weight'.\nDid you"):
        call.changed(weight="w")
    with pytest.raises(FormulaError, match=r"no term a to remove"):
        call.changed(". - a")
    with pytest.raises(FormulaError, match="not a string"):
        call.changed(7)


def test_file_is_read_again_if_it_is_the_same(data, tmp_path, monkeypatch):
    data.to_csv(tmp_path / "d.csv", index=False)
    monkeypatch.chdir(tmp_path)
    call = make_call("y ~ x + (1 | g)", "d.csv")
    monkeypatch.chdir("/")
    assert criterion(call.changed(". + a")) == pytest.approx(
        mf.fit("y ~ x + a + (1 | g)", data).criterion, abs=1e-9
    )
    data[:80].to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(DesignError, match=r"d\.csv' has changed since the model"):
        run(call.changed(". + a"))
    assert run(call.changed(data=tmp_path / "d.csv")).n == 80
