"""A column or an index as a JSON description and plain arrays, and back, unchanged.

Goes in: pandas Series and Index of the types that a model can use. Objects are stored
as codes into a list of their distinct values, and only strings, numbers and booleans
are taken: nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api import types

from mixform._typing import AnyArray
from mixform.errors import MixformError
from mixform.storage.archive import Arrays

#: The description of a column: its kind and what that kind needs.
Record = dict[str, Any]


def describe_series(series: pd.Series, name: str, arrays: Arrays) -> Record:
    """Store a column; return its description.

    Raises
    ------
    MixformError : its values have a type that a file cannot hold
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return {
            "kind": "factor",
            "codes": arrays.add(_small(series.cat.codes.to_numpy())),
            "levels": describe_index(dtype.categories, name, arrays),
            "ordered": bool(dtype.ordered),
        }
    return _describe_values(pd.Index(series), name, arrays)


def restore_series(record: Record, arrays: Mapping[str, AnyArray]) -> pd.Series:
    """Return the column that was described."""
    if record["kind"] == "factor":
        levels = restore_index(record["levels"], arrays)
        codes = arrays[record["codes"]]
        return pd.Series(
            pd.Categorical.from_codes(
                cast("Any", codes), categories=levels, ordered=record["ordered"]
            )
        )
    values = _restore_values(record, arrays)
    return pd.Series(values, dtype=_objects_as_such(values))


def describe_index(index: pd.Index, name: str, arrays: Arrays) -> Record:
    """Store an index, its names included; return its description."""
    if isinstance(index, pd.RangeIndex):
        bounds = [index.start, index.stop, index.step]
        return {"kind": "range", "bounds": bounds, "name": _label(index.name)}
    if isinstance(index, pd.MultiIndex):
        return {
            "kind": "multi",
            "codes": [arrays.add(_small(np.asarray(c))) for c in index.codes],
            "levels": [describe_index(level, name, arrays) for level in index.levels],
            "names": [_label(label) for label in index.names],
        }
    if isinstance(index, pd.CategoricalIndex):
        record = describe_series(index.to_series(), name, arrays)
    else:
        record = _describe_values(index, name, arrays)
    return {**record, "name": _label(index.name)}


def restore_index(record: Record, arrays: Mapping[str, AnyArray]) -> pd.Index:
    """Return the index that was described."""
    if record["kind"] == "range":
        return pd.RangeIndex(*record["bounds"], name=record["name"])
    if record["kind"] == "multi":
        levels: Any = [restore_index(level, arrays) for level in record["levels"]]
        codes: Any = [arrays[name] for name in record["codes"]]
        return pd.MultiIndex(levels=levels, codes=codes, names=record["names"])
    if record["kind"] == "factor":
        return pd.Index(restore_series(record, arrays), name=record["name"])
    values = _restore_values(record, arrays)
    return pd.Index(values, dtype=_objects_as_such(values), name=record["name"])


def _objects_as_such(values: Any) -> Any:
    """Return the type that keeps pandas from taking objects for strings."""
    return object if isinstance(values, np.ndarray) and values.dtype == object else None


def _label(name: object) -> object:
    if name is None or isinstance(name, str | bool | int | float):
        return name
    return name.item() if isinstance(name, np.generic) else str(name)


def _small(codes: AnyArray) -> AnyArray:
    """Return codes in the smallest type that holds them."""
    largest = int(codes.max(initial=0))
    return codes.astype(np.min_scalar_type(-largest - 1), copy=False)


def _describe_values(index: pd.Index, name: str, arrays: Arrays) -> Record:
    dtype: Any = index.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return {"kind": "numbers", "values": arrays.add(index.to_numpy())}
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return _describe_times(index, arrays)
    if isinstance(dtype, pd.IntervalDtype):
        intervals = cast("pd.IntervalIndex", index)
        return {
            "kind": "intervals",
            "left": describe_index(intervals.left, name, arrays),
            "right": describe_index(intervals.right, name, arrays),
            "closed": dtype.closed,
        }
    if isinstance(dtype, pd.PeriodDtype):
        return {
            "kind": "periods",
            "ordinals": arrays.add(np.asarray(index.asi8)),  # type: ignore[attr-defined]
            "type": str(dtype),
        }
    if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype):
        return _describe_nullable(index, arrays)
    return _describe_objects(index, name, arrays)


def _describe_times(index: pd.Index, arrays: Arrays) -> Record:
    dtype: Any = index.dtype
    zone = getattr(dtype, "tz", None)
    plain = index.tz_convert("UTC").tz_localize(None) if zone is not None else index  # type: ignore[attr-defined]
    values = plain.to_numpy()
    return {
        "kind": "times",
        "values": arrays.add(values.view(np.int64)),
        "type": values.dtype.str,
        "zone": None if zone is None else str(zone),
    }


def _describe_nullable(index: pd.Index, arrays: Arrays) -> Record:
    """Store numbers that have a mask of their own (``Int64``, Arrow's)."""
    missing = np.asarray(index.isna())
    kind = "bool" if types.is_bool_dtype(index.dtype) else None
    if kind is None:
        kind = "int64" if types.is_integer_dtype(index.dtype) else "float64"
        kind = "uint64" if types.is_unsigned_integer_dtype(index.dtype) else kind
    fill = np.nan if kind == "float64" else 0
    values = index.array.to_numpy(dtype=kind, na_value=fill)
    return {
        "kind": "nullable",
        "values": arrays.add(np.asarray(values)),
        "missing": arrays.add(missing),
        "type": {"bool": "boolean", "float64": "Float64", "uint64": "UInt64"}.get(
            kind, "Int64"
        ),
    }


def _describe_objects(index: pd.Index, name: str, arrays: Arrays) -> Record:
    text = index.dtype != object
    if text or types.infer_dtype(index, skipna=False) == "string":
        codes, distinct = pd.factorize(index)
        return {
            "kind": "objects",
            "codes": arrays.add(_small(np.asarray(codes))),
            "text": _describe_text([str(value) for value in distinct], arrays),
            "type": "str" if text else "object",
        }
    values = index.to_numpy(dtype=object)
    missing = np.asarray(index.isna())
    places: dict[tuple[type, object], int] = {}
    codes = np.full(len(values), -1, dtype=np.int64)
    for i in np.flatnonzero(~missing).tolist():
        value = values[i]
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) not in (str, bool, int, float):
            raise MixformError(
                f"Column {name!r} holds a value of type {type(value).__name__!r}, "
                "which a file cannot keep.",
                hint="Convert the column to strings or numbers before the fit.",
            )
        codes[i] = places.setdefault((type(value), value), len(places))
    return {
        "kind": "objects",
        "codes": arrays.add(_small(codes)),
        "distinct": [value for _, value in places],
        "type": "object",
    }


def _describe_text(texts: list[str], arrays: Arrays) -> dict[str, str]:
    """Store strings end to end; there may be as many as there are rows."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.array([len(text) for text in encoded], dtype=np.int64)
    content = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return {"bytes": arrays.add(content), "lengths": arrays.add(_small(lengths))}


def _restore_text(record: Record, arrays: Mapping[str, AnyArray]) -> list[str]:
    content = arrays[record["text"]["bytes"]].tobytes()
    ends = np.cumsum(arrays[record["text"]["lengths"]], dtype=np.int64).tolist()
    return [
        content[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _restore_numbers(record: Record, arrays: Mapping[str, AnyArray]) -> AnyArray:
    return arrays[record["values"]]


def _restore_times(record: Record, arrays: Mapping[str, AnyArray]) -> pd.Index:
    index = pd.Index(arrays[record["values"]].view(record["type"]))
    if record["zone"] is None:
        return index
    return index.tz_localize("UTC").tz_convert(record["zone"])  # type: ignore[attr-defined]


def _restore_intervals(record: Record, arrays: Mapping[str, AnyArray]) -> pd.Index:
    return pd.IntervalIndex.from_arrays(
        restore_index(record["left"], arrays),
        restore_index(record["right"], arrays),
        closed=record["closed"],
    )


def _restore_periods(record: Record, arrays: Mapping[str, AnyArray]) -> pd.Index:
    dtype: Any = record["type"]
    return pd.Index(pd.arrays.PeriodArray(arrays[record["ordinals"]], dtype=dtype))


def _restore_nullable(record: Record, arrays: Mapping[str, AnyArray]) -> Any:
    values = pd.array(arrays[record["values"]], dtype=record["type"])
    values[arrays[record["missing"]]] = pd.NA
    return values


def _restore_objects(record: Record, arrays: Mapping[str, AnyArray]) -> Any:
    found = (
        record["distinct"] if "distinct" in record else _restore_text(record, arrays)
    )
    distinct = np.empty(len(found) + 1, dtype=object)
    distinct[:-1] = found
    distinct[-1] = None  # what the code -1 of a missing value reads
    values = distinct[arrays[record["codes"]]]
    if record["type"] == "str":
        return pd.array(values, dtype="str" if _HAS_STR else "string")
    return values


def _restore_values(record: Record, arrays: Mapping[str, AnyArray]) -> Any:
    return _RESTORE[record["kind"]](record, arrays)


#: Whether this pandas has strings of a type of their own by default.
_HAS_STR = pd.Series(["a"]).dtype == "str"

_RESTORE: dict[str, Callable[[Record, Mapping[str, AnyArray]], Any]] = {
    "numbers": _restore_numbers,
    "times": _restore_times,
    "intervals": _restore_intervals,
    "periods": _restore_periods,
    "nullable": _restore_nullable,
    "objects": _restore_objects,
}
