"""Formatting of columns of numbers."""

from __future__ import annotations

import pytest

from mixform.report.numbers import format_column, format_fixed, format_p, stars


@pytest.mark.parametrize(
    ("values", "digits", "shown"),
    [
        ([251.404, 10.467], 4, ["251.40", "10.47"]),
        ([0.001234, 0.5], 4, ["0.001234", "0.500000"]),
        ([1e-12, 1e12], 4, ["1e-12", "1e+12"]),
        ([float("nan"), 1.5], 4, ["NaN", "1.500"]),
        ([0.0], 4, ["0.0"]),
        ([], 4, []),
    ],
)
def test_column_shares_the_precision_of_its_smallest_value(values, digits, shown):
    assert format_column(values, digits) == shown


def test_large_df_are_not_printed_with_twenty_digits():
    assert format_fixed([1.5e9, 3.0], 2) == ["1.5e+09", "3.00"]


@pytest.mark.parametrize(
    ("p", "shown", "code"),
    [
        (0.0, "< 2e-16", "***"),
        (1e-5, "1.00e-05", "***"),
        (0.0099, "0.0099", "**"),
        (0.02, "0.0200", "*"),
        (0.07, "0.0700", "."),
        (0.5, "0.5000", ""),
        (float("nan"), "NaN", ""),
    ],
)
def test_p_values_and_their_codes(p, shown, code):
    assert (format_p(p), stars(p)) == (shown, code)


def test_values_below_a_standard_error_ask_for_no_decimals():
    assert format_column([-0.0000645, 0.2], 3, like=[0.0408], least=0.0408) == [
        "-0.0001",
        "0.2000",
    ]
