"""Any table in, the columns a model uses out, as pandas Series of two kinds.

A numeric column becomes float64 with NaN for missing values; everything else becomes a
Categorical. The caller's table is never changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
from pandas.api import types

from mixform._typing import AnyArray, Mask, Vector
from mixform.errors import DesignError, suggest

READERS = {".csv": "read_csv", ".parquet": "read_parquet", ".pq": "read_parquet"}


class Table:
    """A read-only view of the user's table: names, length, index, raw columns.

    Parameters
    ----------
    data : pandas, polars or pyarrow table, a mapping of columns, or a path to a CSV
        or Parquet file

    Raises
    ------
    DesignError : it is none of these, or the file cannot be read
    """

    def __init__(self, data: object) -> None:
        if isinstance(data, str | Path):
            data = _read_file(Path(data))
        elif isinstance(data, Mapping):
            data = _from_mapping(cast("Mapping[Hashable, Any]", data))
        self._pandas: pd.DataFrame | None = None
        self._other: nw.DataFrame[Any] | None = None
        if isinstance(data, pd.DataFrame):
            self._pandas = data
            self.names = [str(name) for name in data.columns]
            self.index = data.index
        else:
            self._other = _as_narwhals(data)
            self.names = list(self._other.columns)
            self.index = pd.RangeIndex(len(self._other))
        self._known = set(self.names)

    @property
    def has_index(self) -> bool:
        """Whether rows have labels (pandas), which other Series can be aligned to."""
        return self._pandas is not None

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def column(self, name: str) -> pd.Series:
        """Return one raw column.

        Raises
        ------
        DesignError : no column, or more than one, has this name
        """
        if name not in self._known:
            raise DesignError(
                f"Unknown column {name!r}.", hint=suggest(name, self.names, "Columns")
            )
        if self.names.count(name) > 1:
            raise DesignError(
                f"The data have {self.names.count(name)} columns named {name!r}.",
                hint="Rename or drop the duplicates.",
            )
        if self._pandas is not None:
            return self._pandas[self._pandas.columns[self.names.index(name)]]
        assert self._other is not None, "a table is pandas or narwhals"
        return _to_pandas(self._other[name])


def _read_file(path: Path) -> pd.DataFrame:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DesignError(
            f"Cannot tell the format of the file '{path}'.",
            hint=f"Known endings: {', '.join(READERS)}; or read it into a table first.",
        )
    try:
        table = cast("pd.DataFrame", getattr(pd, reader)(path))
    except FileNotFoundError:
        raise DesignError(
            f"There is no file '{path}'.", hint="Check the path."
        ) from None
    except ImportError as failure:
        raise DesignError(
            f"Reading '{path}' needs pyarrow.", hint="pip install 'mixform[parquet]'"
        ) from failure
    except (ValueError, OSError) as failure:
        raise DesignError(
            f"The file '{path}' cannot be read: {str(failure).rstrip('.')}.",
            hint="Check its content.",
        ) from failure
    if len(table.columns) == 1 and ";" in str(table.columns[0]):
        raise DesignError(
            f"The file '{path}' has semicolons between its columns.",
            hint='Read it first: pandas.read_csv(path, sep=";", decimal=",").',
        )
    return table


def _from_mapping(columns: Mapping[Hashable, Any]) -> pd.DataFrame:
    try:
        return pd.DataFrame(dict(columns))
    except ValueError as failure:
        raise DesignError(
            f"The mapping is not a table: {failure}.",
            hint="Give one value for each row in every column.",
        ) from failure


def _as_narwhals(data: object) -> nw.DataFrame[Any]:
    try:
        return nw.from_native(cast("Any", data), eager_only=True)
    except TypeError:
        lazy = hasattr(data, "collect")
        raise DesignError(
            f"Data of type {type(data).__name__!r} are not a table.",
            hint="Call collect() on it first."
            if lazy
            else "Pass a pandas, polars or pyarrow table, or a path to a file.",
        ) from None


def _to_pandas(series: nw.Series[Any]) -> pd.Series:
    """Convert one column without pyarrow, keeping the order of categories."""
    if series.dtype.is_numeric():
        return pd.Series(series.to_numpy())
    if isinstance(series.dtype, nw.Categorical | nw.Enum):
        categories = series.cat.get_categories().to_list()
        return pd.Series(pd.Categorical(series.to_list(), categories=categories))
    return pd.Series(series.to_list())


def normalize(series: pd.Series, name: str) -> pd.Series:
    """Return the column as float64 or as Categorical, missing values marked.

    Integers, nullable and Arrow numbers become float64. Strings, booleans and other
    objects become a Categorical with sorted levels; a Categorical keeps its order.

    Raises
    ------
    DesignError : dates, durations, complex numbers, nested values, levels that print
        alike
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        _require_distinct(dtype.categories, name)
        return pd.Series(series.array)
    if types.is_object_dtype(dtype):
        series = series.infer_objects()
        dtype = series.dtype
    if types.is_bool_dtype(dtype):
        truth = pd.Categorical(_objects(series), categories=[False, True])
        return pd.Series(truth)
    if types.is_complex_dtype(dtype) or isinstance(
        dtype, pd.DatetimeTZDtype | pd.PeriodDtype | pd.IntervalDtype
    ):
        raise _refuse(name, dtype)
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        raise _refuse(name, dtype)
    if types.is_numeric_dtype(dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(values, copy=False)
    values = _objects(series)
    if types.is_object_dtype(dtype) and _all_numbers(values):  # or all missing
        return pd.Series(pd.to_numeric(pd.Series(values)).to_numpy(dtype=np.float64))
    codes, levels = factorize(pd.Series(values), name)
    return pd.Series(pd.Categorical.from_codes(codes, categories=levels))


def _refuse(name: str, dtype: object) -> DesignError:
    return DesignError(
        f"Column {name!r} has type {dtype}, which is neither a number nor a factor.",
        hint="Convert it first, e.g. to days since a start date, or to strings.",
    )


def _objects(series: pd.Series) -> AnyArray:
    values = series.to_numpy(dtype=object).copy()
    values[series.isna().to_numpy()] = None
    return values


def _all_numbers(values: AnyArray) -> bool:
    kind = types.infer_dtype(values, skipna=True)
    return kind in {"integer", "floating", "mixed-integer-float", "decimal", "empty"}


def factorize(series: pd.Series, name: str) -> tuple[AnyArray, pd.Index]:
    """Return codes (n,), -1 where missing, and the levels in order.

    The order is that of the categories, else sorted; values that cannot be compared
    with each other are sorted as strings. Unused levels are dropped.

    Raises
    ------
    DesignError : the values are no labels, or two levels print alike
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        categorical = series.cat.remove_unused_categories()
        _require_distinct(categorical.cat.categories, name)
        return categorical.cat.codes.to_numpy(np.int64), categorical.cat.categories
    try:
        codes, levels = pd.factorize(series, sort=False)
    except TypeError:
        raise _refuse(name, f"{series.dtype} with values that are no labels") from None
    levels = pd.Index(levels)
    _require_distinct(levels, name)
    try:
        order = np.asarray(levels.argsort())
    except TypeError:
        try:
            order = np.argsort(levels.to_numpy().astype(str), kind="stable")
        except (TypeError, ValueError):
            raise _refuse(name, series.dtype) from None
    rank = np.empty(len(order) + 1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    rank[-1] = -1  # a missing value has code -1, which reads the last entry
    return rank[codes], levels[order]


def _require_distinct(levels: pd.Index, name: str) -> None:
    """Refuse 1 and '1' in one column: nobody could tell their effects apart."""
    if not types.is_object_dtype(levels.dtype):
        return
    seen: dict[str, object] = {}
    for level in levels:
        other = seen.setdefault(str(level), level)
        if other is not level:
            raise DesignError(
                f"Column {name!r} has two levels that print alike, {other!r} and "
                f"{level!r}.",
                hint="Convert the column to one type, e.g. to strings.",
            )


def is_missing(series: pd.Series) -> Mask:
    """Return which values are missing, (n,)."""
    return series.isna().to_numpy()


def aligned_values(
    values: object, table: Table, argument: str
) -> tuple[pd.Series, str | None]:
    """Return an argument that is a column name or an array, as a Series.

    Returns
    -------
    series : (N,) one value for each row of the data
    name : of the column, None for an array

    Raises
    ------
    DesignError : unknown column, or an array of another length
    """
    if isinstance(values, str):
        return table.column(values), values
    if isinstance(values, pd.Series):
        values = _by_label(values, table, argument)
    array = np.asarray(values)
    if array.ndim != 1:
        raise DesignError(
            f"{argument} has shape {array.shape}, not one dimension.",
            hint=f"Give {argument} as a column name or one value for each row.",
        )
    if len(array) != len(table):
        raise DesignError(
            f"{argument} has {len(array)} values, the data have {len(table)} rows.",
            hint=f"Give {argument} as a column name or one value for each row.",
        )
    return pd.Series(array), None


def _by_label(values: pd.Series, table: Table, argument: str) -> pd.Series:
    """Put a Series in the order of the data, if both have an index of labels."""
    if not table.has_index or len(values) != len(table):
        return values
    if values.index.equals(table.index):
        return values
    unique = values.index.is_unique and table.index.is_unique
    if unique and values.index.isin(table.index).all():
        return values.reindex(table.index)
    raise DesignError(
        f"The index of {argument} is not the index of the data.",
        hint=f"Give {argument} the data's index, or pass {argument}.to_numpy().",
    )


def as_numbers(series: pd.Series, name: str, argument: str | None = None) -> Vector:
    """Return a Series as float64, or refuse what is not numeric.

    Parameters
    ----------
    name : of the column, or of the argument if it is an array
    argument : the argument that the column was given as, if any
    """
    normal = normalize(series, name)
    if isinstance(normal.dtype, pd.CategoricalDtype):
        role = f", given as {argument}," if argument else ""
        raise DesignError(
            f"{name!r}{role} is not numeric (type {series.dtype}).",
            hint="Give numbers.",
        )
    return normal.to_numpy()
