"""Traits in columns to rows: what comes out, Mrode's two traits, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixform as mf
from mixform.errors import DesignError
from tests.mrode import CALVES, G_CALVES, R_CALVES, numbers

WIDE = pd.DataFrame(
    {
        "calf": ["a", "b", "c"],
        "wwg": [4.5, np.nan, 3.9],
        "sex": pd.Categorical(["m", "f", "f"], categories=["m", "f"]),
        "pwg": [6, 5, 7],
    },
    index=[10, 20, 30],
)


def test_a_row_for_each_record_and_trait():
    before = WIDE.copy(deep=True)
    long = mf.multitrait(["pwg", "wwg"], WIDE)
    assert list(long.columns) == ["record", "trait", "value", "calf", "sex"]
    assert long["record"].tolist() == [10, 10, 20, 30, 30]
    assert long["trait"].tolist() == ["pwg", "wwg", "pwg", "pwg", "wwg"]
    assert list(long["trait"].cat.categories) == ["pwg", "wwg"]
    assert long["trait"].cat.ordered
    assert long["value"].tolist() == [6.0, 4.5, 5.0, 7.0, 3.9]
    assert long["calf"].tolist() == ["a", "a", "b", "c", "c"]
    pd.testing.assert_index_equal(
        long["sex"].cat.categories, WIDE["sex"].cat.categories
    )
    assert long.attrs["n_missing"] == {"pwg": 0, "wwg": 1}
    pd.testing.assert_frame_equal(WIDE, before)


@pytest.mark.parametrize(
    "convert",
    [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame.to_dict("list")],
    ids=["polars", "pyarrow", "mapping"],
)
def test_tables_of_any_kind(convert):
    plain = WIDE.reset_index(drop=True).assign(sex=["m", "f", "f"])
    expected = mf.multitrait(["wwg", "pwg"], plain)
    found = mf.multitrait(["wwg", "pwg"], convert(plain))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert found["record"].tolist() == [0, 0, 1, 2, 2]


def test_names_of_the_columns_are_the_users_choice():
    names = {"trait": "wwg", "value": "y", "record": "row"}
    long = mf.multitrait(["wwg", "pwg"], WIDE, **names)
    assert list(long.columns) == ["row", "wwg", "y", "calf", "sex"]


def two_traits(calves, **options):
    """Fit both traits with the published covariances.

    Residuals with covariance R are a random effect of the record with covariance R - I,
    and a residual variance of 1.
    """
    long = mf.multitrait(["wwg", "pwg"], calves)
    return mf.fit(
        "value ~ 0 + trait + trait:sex + us(0 + trait | animal) "
        "+ us(0 + trait | record)",
        long,
        relationship={"animal": mf.Pedigree(calves)},
        varcomp={"animal": G_CALVES, "record": R_CALVES - np.eye(2), "residual": 1.0},
        **options,
    )


def by_animal(m, column="estimate"):
    table = m.ranef(pev=True, reliability=True)
    table = table[table["grp"] == "animal"]
    table = table.pivot(index="level", columns="term", values=column)
    return table.loc[sorted(table.index, key=int), ["trait[wwg]", "trait[pwg]"]]


def solutions(m):
    female = m.params.iloc[:2].to_numpy()
    return {
        "female": female,
        "male": female + m.params.iloc[2:].to_numpy(),
        "animal": by_animal(m),
        "reliability": by_animal(m, "reliability"),
    }


def test_mrode_5_1_to_the_printed_digit():
    m = two_traits(CALVES)
    for quantity, found in solutions(m).items():
        np.testing.assert_array_equal(found.round(3), numbers("5.1", quantity))
    se = np.sqrt(by_animal(m, "pev").loc["1"])
    np.testing.assert_allclose(se, numbers("5.1", "se of animal 1"), rtol=1e-9)


def test_mrode_5_2_missing_traits_to_the_printed_digit():
    nine = {"animal": 9, "sire": 7, "dam": 0, "sex": "female", "wwg": 4.0, "pwg": 0.0}
    calves = pd.concat([CALVES, pd.DataFrame([nine])], ignore_index=True)
    calves.loc[calves["animal"].isin([4, 9]), "pwg"] = np.nan
    found = solutions(two_traits(calves))
    for quantity in ("female", "male", "animal"):
        np.testing.assert_array_equal(
            found[quantity].round(3), numbers("5.2", quantity)
        )


@pytest.mark.parametrize(
    ("traits", "data", "options", "message"),
    [
        (["wwg", "pwq"], WIDE, {}, "Unknown trait 'pwq'(.|\n)*Did you mean 'pwg'"),
        (["wwg"], WIDE, {}, "two traits or more, not 1"),
        ("wwg", WIDE, {}, "traits is 'wwg', not a list"),
        (3, WIDE, {}, "traits is 3"),
        (["wwg", "wwg"], WIDE, {}, "'wwg' is named twice"),
        (["wwg", "calf"], WIDE, {}, "'calf' is not numeric"),
        (["wwg", "pwg"], WIDE, {"value": "sex"}, "column 'sex' already(.|\n)*value="),
        (["wwg", "pwg"], WIDE, {"value": "trait"}, "named 'trait'"),
        (["wwg", "pwg"], WIDE.assign(wwg=np.nan), {}, "'wwg' has no value"),
        (["wwg", "pwg"], WIDE.iloc[[0, 1, 1]], {}, "not tell rows apart: 20"),
        (["wwg", "pwg"], WIDE.set_index(["calf", "sex"]), {}, "several levels"),
        (["wwg", "pwg"], WIDE.iloc[:0], {}, "no rows"),
        (["wwg", "pwg"], 3, {}, "not a table"),
    ],
)
def test_what_is_refused(traits, data, options, message):
    with pytest.raises(DesignError, match=message):
        mf.multitrait(traits, data, **options)
