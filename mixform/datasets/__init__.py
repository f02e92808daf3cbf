"""Small classic data tables for examples and tests: name in, data frame out.

Each table is a CSV file beside this module, checked against its sha256 when it is read,
with its primary citation and the meaning of its columns. Columns that are factors in
the original arrive as categoricals with the original order of levels. This layer knows
nothing of models.

Examples
--------
>>> from mixform import datasets
>>> pigs = datasets.load("pigs")
>>> pigs.groupby("group", observed=True)["gain"].sum().to_dict()
{'Control': 157, 'Treatment': 184}
>>> datasets.describe("pigs").n
6
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd

from mixform.datasets._catalog import CATALOG
from mixform.errors import DesignError, MixformError, suggest

__all__ = ["DatasetInfo", "describe", "load", "names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set apart from its rows.

    Attributes
    ----------
    name : the name that `load` takes
    title : one line on what was observed
    citation : the first publication of the data
    columns : column name -> meaning and units, in the order of the table
    n : number of rows
    sha256 : digest of the bytes of the CSV file, hexadecimal
    """

    name: str
    title: str
    citation: str
    columns: dict[str, str]
    n: int
    sha256: str


def names() -> tuple[str, ...]:
    """Return the names of all data sets, in alphabetical order.

    Examples
    --------
    >>> names()[:3]
    ('cake', 'Dyestuff', 'Dyestuff2')
    """
    return tuple(sorted(CATALOG, key=str.lower))


def describe(name: str) -> DatasetInfo:
    """Return the title, citation, columns and checksum of a data set.

    Parameters
    ----------
    name : one of `names`, upper or lower case

    Raises
    ------
    DesignError : there is no data set of that name

    Examples
    --------
    >>> describe("dyestuff").columns["Yield"]
    'yield of dyestuff (grams of standard color)'
    """
    name = _canonical(name)
    entry = CATALOG[name]
    return DatasetInfo(
        name=name,
        title=entry.title,
        citation=entry.citation,
        columns={column.name: column.meaning for column in entry.columns},
        n=entry.n,
        sha256=entry.sha256,
    )


def load(name: str) -> pd.DataFrame:
    """Return a data set as a new data frame with rows labelled 0, 1, 2 and so on.

    Parameters
    ----------
    name : one of `names`, upper or lower case

    Raises
    ------
    DesignError : there is no data set of that name
    MixformError : the installed file is not the one this version was released with

    Examples
    --------
    >>> load("Rail").groupby("Rail", observed=True)["travel"].mean().round(2).to_list()
    [31.67, 50.0, 54.0, 82.67, 84.67, 96.0]
    """
    name = _canonical(name)
    entry = CATALOG[name]
    raw = (Path(__file__).parent / f"{name}.csv").read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != entry.sha256:
        raise MixformError(
            f"The file of data set {name!r} has changed: its sha256 is {digest}, "
            f"expected {entry.sha256}.",
            hint="Reinstall mixform to restore it.",
        )
    factors = [column for column in entry.columns if column.levels]
    table = pd.read_csv(
        BytesIO(raw),
        dtype={column.name: str for column in factors},
        na_filter=False,
    )
    for column in factors:
        table[column.name] = pd.Categorical(
            table[column.name], categories=column.levels, ordered=column.ordered
        )
    return table


def _canonical(name: str) -> str:
    by_lower = {known.lower(): known for known in CATALOG}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    raise DesignError(
        f"Unknown data set {name!r}.", hint=suggest(name, names(), "Data sets")
    )
