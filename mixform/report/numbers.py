"""Numbers as a reader wants them: a column at one precision, p values short."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log10

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def decimals_for(values: Sequence[float], digits: int) -> int | None:
    """Return the decimals at which the smallest value shows ``digits`` digits.

    None if the values span too much for one fixed format.

    Examples
    --------
    >>> decimals_for([251.4, 1.546], 4)
    3
    """
    sizes = [abs(v) for v in values if isfinite(v) and v != 0.0]
    if not sizes:
        return 1
    decimals = digits - 1 - floor(log10(min(sizes)))
    before_point = floor(log10(max(sizes))) + 1
    if decimals + max(before_point, 1) > 12 or not -4 < before_point < 8:
        return None
    return max(decimals, 0)


def format_column(
    values: Sequence[float],
    digits: int = 4,
    like: Sequence[float] = (),
    least: float = 0.0,
) -> list[str]:
    """Format numbers of one column alike; NaN stays ``NaN``.

    Parameters
    ----------
    values : the column
    digits : significant digits of its smallest value
    like : other values whose precision it shares
    least : size below which a value asks for no more decimals: a standard error

    Examples
    --------
    >>> format_column([612.1, 35.07], 4)
    ['612.10', '35.07']
    """
    sized = [value for value in values if abs(value) >= least]
    decimals = decimals_for([*sized, *like], digits)
    return [
        "NaN"
        if value != value
        else (f"{value:.{digits}g}" if decimals is None else f"{value:.{decimals}f}")
        for value in values
    ]


def format_fixed(values: Sequence[float], decimals: int) -> list[str]:
    """Format numbers with a number of decimals, very large ones in scientific."""
    return [
        "NaN"
        if value != value
        else (f"{value:.{decimals}f}" if abs(value) < 1e7 else f"{value:.4g}")
        for value in values
    ]


def format_p(value: float) -> str:
    """Format a p value: three digits, never below what a double resolves.

    Examples
    --------
    >>> format_p(0.0), format_p(0.01234), format_p(3.2638e-6)
    ('< 2e-16', '0.0123', '3.26e-06')
    """
    if value != value:
        return "NaN"
    if value < 2e-16:
        return "< 2e-16"
    if value >= 0.01:
        return f"{value:.4f}"
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.2e}"


def stars(value: float) -> str:
    """Return R's significance code of a p value."""
    for level, code in STARS:
        if value < level:
            return code
    return ""


def p_with_stars(value: float) -> str:
    """Return a p value with its significance code beside it, at one width.

    Examples
    --------
    >>> p_with_stars(0.03), p_with_stars(0.5)
    ('0.0300 *  ', '0.5000    ')
    """
    return f"{format_p(value)} {stars(value):<3}"
