"""Whatever holds the data, the fit is the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixform as mf

FORMULA = "y ~ x * trt + count + flag + (x | id)"


def make_table():
    random = np.random.default_rng(11)
    n = 60
    table = pd.DataFrame(
        {
            "y": random.normal(size=n),
            "x": random.uniform(1.0, 3.0, n),
            "trt": np.tile(["b", "a", "c"], 20),
            "count": random.integers(1, 9, n),
            "flag": random.random(n) < 0.5,
            "id": np.repeat(np.arange(10), 6),
        }
    )
    table["y"] += table["x"] + table["id"] % 3
    return table


TABLE = make_table()


def nullable(table):
    kinds = {"x": "Float64", "count": "Int64", "flag": "boolean", "trt": "string"}
    return table.astype({**kinds, "id": "Int32"})


def arrow(table):
    return table.convert_dtypes(dtype_backend="pyarrow")


KINDS = {
    "numpy": lambda table: table,
    "object": lambda table: table.astype(object),
    "nullable": nullable,
    "arrow dtypes": arrow,
    "categorical": lambda table: table.astype(
        {"trt": pd.CategoricalDtype(list("abcd")), "id": "category"}
    ),
    "ordered": lambda table: table.astype(
        {"trt": pd.CategoricalDtype(list("abc"), ordered=True)}
    ),
    "float32": lambda table: table.astype({"count": "float32", "id": "float32"}),
    "int8": lambda table: table.astype({"count": "int8", "id": "uint64"}),
    "string group": lambda table: table.assign(id=[f"s{i}" for i in table["id"]]),
    "dict of lists": lambda table: table.to_dict("list"),
    "dict of arrays": lambda table: {n: table[n].to_numpy() for n in table},
    "polars": lambda table: pl.DataFrame(table.to_dict("list")),
    "polars categorical": lambda table: pl.DataFrame(
        table.to_dict("list")
    ).with_columns(
        pl.col("trt").cast(pl.Enum(["a", "b", "c"])), pl.col("id").cast(pl.String)
    ),
    "pyarrow": lambda table: pa.table(table.to_dict("list")),
    "pyarrow dictionary": lambda table: pa.table(table.to_dict("list")).set_column(
        2, "trt", pa.array(table["trt"].tolist()).dictionary_encode()
    ),
}


@pytest.fixture(scope="module")
def expected():
    return mf.fit(FORMULA, TABLE)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_table_gives_the_same_fit(kind, expected):
    m = mf.fit(FORMULA, kind(TABLE.copy()))
    assert m.criterion == pytest.approx(expected.criterion, abs=1e-8)
    if kind is not KINDS["pyarrow dictionary"]:  # its levels come as they appeared
        assert list(m.params.index) == list(expected.params.index)
    np.testing.assert_allclose(m.fittedvalues, expected.fittedvalues, rtol=1e-5)


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_file_gives_the_same_fit(tmp_path, as_path, expected):
    csv, parquet = tmp_path / "data.csv", tmp_path / "data.parquet"
    TABLE.to_csv(csv, index=False)
    TABLE.to_parquet(parquet)
    for path in (csv, parquet):
        m = mf.fit(FORMULA, as_path(path))
        assert m.criterion == pytest.approx(expected.criterion, abs=1e-8)
        assert list(m.params.index) == list(expected.params.index)


def with_gaps():
    table = TABLE.astype(object)
    for row, name in enumerate(["x", "trt", "count", "flag", "id"]):
        table.loc[row, name] = None
    return table.infer_objects()


GAPPED = with_gaps()
GAP_KINDS = {
    "nullable": lambda table: nullable(table),
    "arrow dtypes": lambda table: arrow(table),
    "categorical": lambda table: table.astype({"trt": "category", "id": "category"}),
    "float id": lambda table: table.astype({"id": "float64", "count": "float64"}),
    "polars": lambda table: pl.DataFrame(
        {n: [None if pd.isna(v) else v for v in table[n]] for n in table}
    ),
    "pyarrow": lambda table: pa.Table.from_pandas(arrow(table), preserve_index=False),
}


@pytest.mark.parametrize("kind", GAP_KINDS.values(), ids=GAP_KINDS)
def test_missing_values_of_every_kind_drop_their_rows(kind):
    m = mf.fit(FORMULA, kind(GAPPED))
    expected = mf.fit(FORMULA, TABLE.iloc[5:])
    assert m.nobs == 55
    assert m.design.missing_columns == {
        "x": 1,
        "trt": 1,
        "count": 1,
        "flag": 1,
        "id": 1,
    }
    assert m.criterion == pytest.approx(expected.criterion, abs=1e-8)
    assert list(m.design.blocks[0].levels) == [str(i) for i in range(10)]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "string group"])
def test_every_kind_of_table_is_new_data(name, expected):
    predicted = expected.predict(KINDS[name](TABLE))
    np.testing.assert_allclose(predicted, expected.fittedvalues, rtol=1e-10)


def test_columns_need_not_have_names_that_are_strings():
    table = TABLE.rename(columns={"x": 0})
    m = mf.fit("y ~ `0` + (1 | id)", table)
    assert list(m.params.index) == ["Intercept", "0"]


def test_duplicated_columns_matter_only_if_used():
    table = pd.concat([TABLE, TABLE[["count"]]], axis=1)
    assert mf.fit("y ~ x + (1 | id)", table).nobs == 60
    with pytest.raises(mf.DesignError, match="2 columns named 'count'"):
        mf.fit("y ~ count + (1 | id)", table)
