"""A fit that is pickled, or saved and loaded, is the fit."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform import storage
from mixform.errors import MixformError, MixformWarning
from mixform.estimate.refit import refit
from mixform.storage import columns
from mixform.storage.archive import FORMAT, Arrays

SAVED = Path(__file__).parent / "references" / "saved"


def table(n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {
            "dose": pd.Categorical(
                rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"]
            ),
            "x": rng.uniform(1, 5, n),
            "day": rng.integers(0, 9, n),
            "site": rng.choice(list("pqrs"), n),
            "id": rng.integers(100, 130, n),
            "male": rng.random(n) < 0.5,
            "w": rng.uniform(0.5, 2.0, n),
            "known": rng.normal(size=n),
        },
        index=pd.Index(np.arange(n) * 3 + 7, name="row"),
    )
    effects = pd.Series(rng.normal(size=30), index=range(100, 130))
    noise = rng.normal(size=n)
    data["y"] = 3 + data["x"] + effects[data["id"]].to_numpy() + noise
    data["out"] = np.exp(data["y"] / 10)
    data.loc[[7, 22], "x"] = np.nan
    return data


MODELS = {
    "slopes": {"formula": "y ~ dose * x + (x | id)"},
    "ml-diag": {"formula": "y ~ male + (x || id) + (1 | site:dose)", "method": "ML"},
    "spline": {"formula": "log(out) ~ bs(x, df=4) + poly(day, 2) + C(site) + (1 | id)"},
    "arguments": {
        "formula": "y ~ dose + I(x^2) + offset(known) + (1 | site/id)",
        "weights": "w",
        "subset": "day > 1",
        "contrasts": {"dose": "sum"},
    },
    "arrays": {
        "formula": "y ~ dose + (1 | id)",
        "weights": np.linspace(1.0, 2.0, 240),
        "offset": pd.Series(np.arange(240.0) / 99, index=table().index),
        "subset": np.arange(240) % 5 > 0,
        "contrasts": {"dose": [[1, 0], [0, 1], [-1, -1]]},
        "control": {"certified_decrease": 1e-5, "backend": "sparse"},
    },
    "linear": {"formula": "y ~ dose + x"},
    "singular": {"formula": "known ~ 1 + (1 | id)"},
    "sparse": {"formula": "y ~ x + (1 | id)", "control": {"backend": "sparse"}},
    "aliased": {"formula": "y ~ x + I(2 * x) + (1 | id)"},
}


def fit(name: str) -> mf.Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(data=table(), **MODELS[name])


def loaded(path: Path) -> mf.Result:
    return mf.Result(*storage.load(path))


def assert_same(one: mf.Result, two: mf.Result) -> None:
    """The two print, predict and test alike, and are fitted again alike."""
    assert str(one) == str(two)
    pd.testing.assert_series_equal(one.fittedvalues, two.fittedvalues)
    pd.testing.assert_frame_equal(one.ranef(), two.ranef(), rtol=1e-6)
    new = table().iloc[3:9]
    if not one.design.offset_is_array:
        for random in (True, False):
            options = {"random": random, "new_levels": "population"}
            pd.testing.assert_series_equal(
                one.predict(new, **options), two.predict(new, **options)
            )
    pd.testing.assert_frame_equal(
        pd.DataFrame(one.anova()), pd.DataFrame(two.anova()), rtol=1e-6
    )
    y = one._fit.design.y[::-1].copy()
    assert refit(one._fit, y).criterion == pytest.approx(
        refit(two._fit, y).criterion, abs=1e-8
    )


@pytest.mark.parametrize("name", MODELS)
def test_pickled_result_is_the_result(name):
    m = fit(name)
    assert_same(m, pickle.loads(pickle.dumps(m)))


@pytest.mark.parametrize("name", MODELS)
def test_pickled_result_keeps_what_was_computed(name):
    m = fit(name)
    m.summary()
    m.anova()
    assert_same(m, pickle.loads(pickle.dumps(m)))


@pytest.mark.parametrize("name", MODELS)
def test_loaded_result_is_the_result(name, tmp_path):
    m = fit(name)
    path = tmp_path / "model.mixform"
    storage.save(m._fit, m._call, path)
    again = loaded(path)
    assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
    assert again.theta == pytest.approx(m.theta, rel=1e-12, abs=1e-14)
    assert again.convergence == m.convergence
    assert_same(m, again)


def test_loading_makes_one_evaluation(tmp_path, monkeypatch):
    m = fit("slopes")
    storage.save(m._fit, m._call, tmp_path / "model")
    calls = []
    real = storage.model.evaluate
    monkeypatch.setattr(
        storage.model, "evaluate", lambda *a: calls.append(1) or real(*a)
    )
    monkeypatch.setattr("mixform.estimate.trust_region.evaluate", None)
    loaded(tmp_path / "model")
    assert calls == [1]


def test_loaded_model_can_be_saved_and_changed(tmp_path):
    m = fit("arguments")
    storage.save(m._fit, m._call, tmp_path / "a")
    again = loaded(tmp_path / "a")
    storage.save(again._fit, again._call, tmp_path / "b")
    assert_same(again, loaded(tmp_path / "b"))
    call = again._call.changed(". - I(x^2)", method="ML")
    direct = m._call.changed(". - I(x^2)", method="ML")
    assert call.formula == direct.formula
    assert mf.fit(call.formula, call.data, subset="day > 1").nobs > again.nobs - 3


def test_rows_with_missing_values_come_back_when_a_variable_leaves(tmp_path):
    m = fit("slopes")
    storage.save(m._fit, m._call, tmp_path / "a")
    again = loaded(tmp_path / "a")
    assert again.nobs == 238
    call = again._call.changed("y ~ dose + (1 | id)")
    assert mf.fit(call.formula, call.data).nobs == 240


def test_file_holds_only_the_columns_of_the_model(tmp_path):
    m = fit("arguments")
    storage.save(m._fit, m._call, tmp_path / "a")
    data = loaded(tmp_path / "a")._call.data
    assert list(data.columns) == ["dose", "x", "day", "site", "id", "w", "known", "y"]
    pd.testing.assert_frame_equal(data, table()[data.columns])


def test_other_response_of_the_same_design_is_kept(tmp_path):
    m = fit("slopes")
    y = np.roll(m._fit.design.y, 5)
    other = refit(m._fit, y)
    storage.save(other, m._call, tmp_path / "a")
    again = loaded(tmp_path / "a")
    assert again.criterion == pytest.approx(other.criterion, abs=1e-9)
    np.testing.assert_array_equal(again._fit.design.y, y)


def test_polars_and_files_can_be_saved(tmp_path):
    pl = pytest.importorskip("polars")
    data = table().reset_index()
    csv = tmp_path / "data.csv"
    data.to_csv(csv, index=False)
    for given in (pl.from_pandas(data), csv):
        m = mf.fit("y ~ dose + x + (1 | id)", given)
        storage.save(m._fit, m._call, tmp_path / "a")
        assert_same(m, loaded(tmp_path / "a"))


# Files that cannot be read, and what the user reads instead.


@pytest.fixture
def saved(tmp_path):
    m = fit("slopes")
    path = tmp_path / "model"
    storage.save(m._fit, m._call, path)
    return path


def test_missing_file(tmp_path):
    with pytest.raises(MixformError, match="There is no file"):
        storage.load(tmp_path / "none")


def test_foreign_files(tmp_path, saved):
    text = tmp_path / "text"
    text.write_text("y,x\n1,2\n")
    other = tmp_path / "other"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for path in (text, other, empty):
        with pytest.raises(MixformError, match=r"is no saved mixform model\.\nModels"):
            storage.load(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MixformError, match="truncated or damaged"):
        storage.load(saved)


def test_damaged_bytes(saved):
    content = bytearray(saved.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    saved.write_bytes(content)
    with pytest.raises(MixformError, match="truncated or damaged"):
        storage.load(saved)


def rewrite(path: Path, change) -> None:
    """Change the header, and the arrays, of a saved file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"])
    change(header, members)
    members["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_later_format_says_to_upgrade(saved):
    rewrite(saved, lambda h, _: h.update(format=FORMAT + 1, mixform="9.1"))
    with pytest.raises(MixformError, match=r"written by mixform 9\.1.*\nUpgrade"):
        storage.load(saved)


def test_changed_data_are_noticed(saved):
    def swap(header, members):
        one, two = [n for n in members if n.endswith(".npy")][1:3]
        members[one], members[two] = members[two], members[one]

    rewrite(saved, swap)
    with pytest.raises(MixformError, match="not those that were saved"):
        storage.load(saved)


def test_another_criterion_warns_with_both_versions(saved):
    def shift(header, _):
        header["mixform"] = "0.0.7"
        header["estimates"]["criterion"] += 3e-6

    rewrite(saved, shift)
    with pytest.warns(MixformWarning, match=r"it was .* in mixform 0\.0\.7"):
        storage.load(saved)


def test_result_without_its_call(tmp_path):
    m = fit("slopes")
    with pytest.raises(MixformError, match="does not know the data"):
        storage.save(m._fit, None, tmp_path / "a")


def test_table_that_was_changed_after_the_fit(tmp_path):
    m = fit("slopes")
    call = m._call.changed(data=table().assign(x=lambda d: d["x"] + 1))
    with pytest.raises(MixformError, match="changed after the model was fitted"):
        storage.save(m._fit, call, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_file_that_was_changed_after_the_fit(tmp_path):
    csv = tmp_path / "data.csv"
    table().to_csv(csv)
    m = mf.fit("y ~ x + (1 | id)", csv)
    csv.write_text(csv.read_text() + "\n")
    with pytest.raises(mf.DesignError, match="has changed since the model"):
        storage.save(m._fit, m._call, tmp_path / "a")


def test_folder_that_is_not_there(tmp_path):
    m = fit("slopes")
    with pytest.raises(MixformError, match="cannot be written: No such file"):
        storage.save(m._fit, m._call, tmp_path / "no" / "a")


def test_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    old = saved.read_bytes()
    m = fit("linear")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.save(m._fit, m._call, saved)
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_values_that_a_file_cannot_keep(tmp_path):
    data = table()
    data["where"] = [(i % 7, "a") for i in range(len(data))]
    m = mf.fit("y ~ x + (1 | where)", data)
    with pytest.raises(MixformError, match=r"Column 'where' .* type 'tuple'"):
        storage.save(m._fit, m._call, tmp_path / "a")


# Columns, one kind at a time.

TIMES = pd.DatetimeIndex([f"2024-03-30 2{hour}:00" for hour in range(4)])
KINDS = {
    "float": pd.Series([1.5, np.nan, -0.0, 1e-300]),
    "float32": pd.Series([1.5, np.nan, 0, 1], dtype="float32"),
    "int8": pd.Series([1, -2, 3, 4], dtype="int8"),
    "uint64": pd.Series([1, 2, 3, 2**64 - 1], dtype="uint64"),
    "bool": pd.Series([True, False, True, True]),
    "strings": pd.Series(["a", "ä\u2028", "", None]),
    "object strings": pd.Series(["a", "b", None, "a"], dtype=object),
    "mixed objects": pd.Series(["1", 1.5, True, None], dtype=object),
    "integers and None": pd.Series([1, 2**70, None, 3], dtype=object),
    "booleans and None": pd.Series([True, None, False, True], dtype=object),
    "Int64": pd.Series([1, None, 2**62 + 1, 3], dtype="Int64"),
    "UInt64": pd.Series([1, None, 2**63 + 1, 3], dtype="UInt64"),
    "Float64": pd.Series([1.5, None, 2.0, 3.0], dtype="Float64"),
    "boolean": pd.Series([True, None, False, True], dtype="boolean"),
    "factor": pd.Series(pd.Categorical(["b", None, "a", "b"], ["c", "b", "a"])),
    "ordered": pd.Series(pd.Categorical([3, 1, 2, 1], [3, 2, 1], ordered=True)),
    "factor of bools": pd.Series(pd.Categorical([True, False, True, None])),
    "factor of times": pd.Series(pd.Categorical(TIMES)),
    "cut": pd.Series(pd.cut([0.1, 0.5, 0.9, 2.0], [0.0, 0.4, 1.0])),
    "times": pd.Series(TIMES),
    "times in a zone": pd.Series(TIMES.tz_localize("UTC").tz_convert("Europe/Rome")),
    "durations": pd.Series(TIMES - TIMES[0]),
    "periods": pd.Series(pd.period_range("2024-11", periods=4, freq="M")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_column_comes_back_unchanged(kind):
    series = KINDS[kind]
    arrays = Arrays()
    record = json.loads(json.dumps(columns.describe_series(series, kind, arrays)))
    again = columns.restore_series(record, arrays.members)
    pd.testing.assert_series_equal(series, again)
    index = pd.Index(series, name="i")
    record = json.loads(json.dumps(columns.describe_index(index, kind, arrays)))
    pd.testing.assert_index_equal(columns.restore_index(record, arrays.members), index)


def test_arrow_columns_come_back_with_their_values():
    pytest.importorskip("pyarrow")
    for kind in ("int64[pyarrow]", "string[pyarrow]", "double[pyarrow]"):
        series = pd.Series(["1", None, "3"]).astype(kind)
        arrays = Arrays()
        record = columns.describe_series(series, kind, arrays)
        again = columns.restore_series(record, arrays.members)
        expected = series.astype(object).where(series.notna(), None).tolist()
        assert again.astype(object).where(again.notna(), None).tolist() == expected


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(2, 20, 3, name="r"),
        pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("a", 3)], names=["l", None]),
        pd.Index([0.5, 1.5, 1.5]),
    ],
    ids=["range", "multi", "repeated"],
)
def test_index_comes_back_unchanged(index):
    arrays = Arrays()
    record = json.loads(json.dumps(columns.describe_index(index, "i", arrays)))
    pd.testing.assert_index_equal(columns.restore_index(record, arrays.members), index)


# Files of every format there has been.


@pytest.mark.parametrize("path", sorted(SAVED.glob("*.mixform")), ids=lambda p: p.stem)
def test_file_of_an_earlier_version_is_read(path, tmp_path):
    expected = json.loads(path.with_suffix(".json").read_text())
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    m = loaded(copy)
    assert m.criterion == pytest.approx(expected["criterion"], abs=1e-6)
    assert m.params.to_dict() == pytest.approx(expected["params"], rel=1e-8)
    assert m.sigma == pytest.approx(expected["sigma"], rel=1e-8)


def test_there_is_a_file_of_each_format():
    formats = set()
    for path in SAVED.glob("*.mixform"):
        with zipfile.ZipFile(path) as archive:
            formats.add(json.loads(archive.read("header.json"))["format"])
    assert formats == set(range(1, FORMAT + 1))


def test_reading_imports_nothing_heavy(saved):
    import subprocess

    program = (
        "import sys; from mixform import storage;"
        f"storage.load({str(saved)!r});"
        "print([m for m in ('numba', 'statsmodels', 'pyarrow') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(mf.__file__).parents[1],
    )
    loaded_modules = out.stdout.strip()
    assert "numba" not in loaded_modules
    assert "statsmodels" not in loaded_modules
