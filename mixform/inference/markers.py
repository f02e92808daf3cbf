"""Genotypes as users hold them, read a block of markers at a time.

Frames and arrays of any number type, ``int8`` included, stay as they are: only the
block that is worked on becomes float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from mixform._typing import Codes, Matrix
from mixform.errors import InferenceError, suggest

HINT = "Give a frame or an array of numbers: a column for each marker."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Markers:
    """Genotypes of s markers.

    Attributes
    ----------
    names : (s,) of the markers
    labels : of the rows; None if they have none
    n_rows : number of rows
    columns : (first, last) -> their values, with as many rows
    missing : value that stands for a missing genotype, besides NaN
    """

    names: pd.Index
    labels: pd.Index | None
    n_rows: int
    columns: Callable[[int, int], Any]
    missing: float | None

    def block(self, start: int, stop: int, rows: Codes) -> Matrix:
        """Return markers of some rows as float64, NaN where missing, (rows, markers).

        Raises
        ------
        InferenceError : they are no numbers, or infinite
        """
        values = self.columns(start, stop)
        if isinstance(values, pd.DataFrame):
            try:
                values = values.to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError):
                raise _not_numeric() from None
        elif values.dtype.kind not in "fiub":
            raise _not_numeric()
        values = np.array(values[rows], dtype=np.float64, order="F")
        if self.missing is not None:
            values[values == self.missing] = np.nan
        infinite = np.isinf(values).any(axis=0)
        if infinite.any():
            name = self.names[start + int(np.argmax(infinite))]
            raise InferenceError(
                f"The marker {str(name)!r} has infinite values.",
                hint="Correct them, or write missing genotypes as NaN.",
            )
        return cast("Matrix", values)


def read_markers(markers: object, ids: object, missing: float | None) -> Markers:
    """Return genotypes with their names and labels.

    Parameters
    ----------
    markers : frame (pandas, polars, pyarrow) or array, a column for each marker
    ids : labels of the rows, or the column of the frame that holds them; None for the
        index of a pandas frame
    missing : value that stands for a missing genotype

    Raises
    ------
    InferenceError : no frame or array; ids of another length or unknown
    """
    if isinstance(markers, np.ndarray):
        return _of_array(cast("np.ndarray[Any, Any]", markers), ids, missing)
    if isinstance(markers, pd.DataFrame):
        return _of_pandas(markers, ids, missing)
    try:
        table = nw.from_native(cast("Any", markers), eager_only=True)
    except TypeError:
        raise InferenceError(
            f"markers is a {type(markers).__name__}, not a frame or an array.",
            hint=HINT,
        ) from None
    labels = None
    if isinstance(ids, str):
        if ids not in table.columns:
            raise _unknown(ids, table.columns)
        labels = pd.Index(table[ids].to_list())
        table = table.drop(ids)
    elif ids is not None:
        labels = _labels(ids, len(table))
    names = list(table.columns)
    return Markers(
        names=pd.Index(names),
        labels=labels,
        n_rows=len(table),
        columns=lambda start, stop: table.select(names[start:stop]).to_numpy(),
        missing=missing,
    )


def _of_array(array: Any, ids: object, missing: float | None) -> Markers:
    if array.ndim != 2:
        raise InferenceError(
            f"markers has shape {array.shape}, not (rows, markers).", hint=HINT
        )
    masked = np.ma.isMaskedArray(array)

    def columns(start: int, stop: int) -> Any:
        block = array[:, start:stop]
        return block.astype(np.float64).filled(np.nan) if masked else block

    return Markers(
        names=pd.RangeIndex(array.shape[1]),
        labels=None if ids is None else _labels(ids, len(array)),
        n_rows=len(array),
        columns=columns,
        missing=missing,
    )


def _of_pandas(table: pd.DataFrame, ids: object, missing: float | None) -> Markers:
    labels = table.index
    if isinstance(ids, str):
        if ids not in table.columns:
            raise _unknown(ids, table.columns)
        labels = pd.Index(table[ids])
        table = table.drop(columns=ids)
    elif ids is not None:
        labels = _labels(ids, len(table))
    return Markers(
        names=table.columns,
        labels=labels,
        n_rows=len(table),
        columns=lambda start, stop: table.iloc[:, start:stop],
        missing=missing,
    )


def _labels(ids: object, n: int) -> pd.Index:
    labels = pd.Index(cast("Any", ids))
    if len(labels) != n:
        raise InferenceError(f"{len(labels)} ids for {n} rows of genotypes.")
    return labels


def _unknown(ids: str, names: Any) -> InferenceError:
    return InferenceError(
        f"markers has no column {ids!r}.", hint=suggest(ids, list(names), "Columns")
    )


def _not_numeric() -> InferenceError:
    return InferenceError(
        "The markers are not numeric.", hint="Give counts of one allele."
    )
