"""P values and confidence limits of several tests at once.

A family is all rows of one group of by= variables. As in R's emmeans (Lenth): Tukey's
method is for all pairwise differences of a set of means, Sidak's takes its place
elsewhere, and says so; limits under a stepwise method are Bonferroni's. Rows that
cannot be estimated count in the size of a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, fdtri, ndtri, stdtrit

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.inference.contrast_tests import f_tail, two_sided
from mixform.inference.means.simultaneous import (
    max_t_quantiles,
    max_t_tails,
    studentized_range_quantile,
    studentized_range_tail,
)

#: Name -> statsmodels' name of the methods that need the p values only.
STEPWISE = {
    "holm": "holm",
    "hochberg": "simes-hochberg",
    "hommel": "hommel",
    "fdr": "fdr_bh",
    "fdr_by": "fdr_by",
}
SINGLE_STEP = ("none", "tukey", "dunnett", "sidak", "bonferroni", "scheffe")
ADJUSTMENTS = (*SINGLE_STEP, *STEPWISE)
ALIASES = {"mvt": "dunnett", "dunnettx": "dunnett", "bh": "fdr", "fdr_bh": "fdr"}
ALIASES |= {"by": "fdr_by", "single-step": "dunnett"}
TITLES = {"dunnett": "multivariate t (Dunnett)", "fdr": "fdr (Benjamini-Hochberg)"}
TITLES |= {"fdr_by": "fdr (Benjamini-Yekutieli)"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Families:
    """The rows that are adjusted together.

    Attributes
    ----------
    rows : positions of the rows of each family
    pairwise : whether each family is all pairwise differences of a set of means
    L : (r, p) coefficients of the estimates
    V_beta : (p, p) covariance of the coefficients
    """

    rows: tuple[Codes, ...]
    pairwise: bool
    L: Matrix
    V_beta: Matrix

    def rank(self, rows: Codes) -> int:
        """Return the dimension of what the estimates of some rows span."""
        return int(np.linalg.matrix_rank(self.L[rows]))

    @property
    def sizes(self) -> list[int]:
        """Number of tests in each family."""
        return [len(rows) for rows in self.rows]

    def correlation(self, rows: Codes) -> Matrix:
        """Return the correlation of the estimates of some rows."""
        V = self.L[rows] @ self.V_beta @ self.L[rows].T
        sd = np.sqrt(np.diag(V))
        return V / np.outer(sd, sd)


def read_adjustment(adjust: object) -> str:
    """Return the name of an adjustment.

    Raises
    ------
    InferenceError : unknown
    """
    name = "none" if adjust is None else str(adjust).lower()
    name = ALIASES.get(name, name)
    if name not in ADJUSTMENTS:
        raise InferenceError(
            f"Unknown adjustment {adjust!r}.",
            hint=suggest(name, ADJUSTMENTS, "Adjustments"),
        )
    return name


def _replaced(adjust: str, families: Families) -> tuple[str, list[str]]:
    """Return the adjustment that is used, and a note if it is another."""
    if adjust != "tukey" or families.pairwise or max(families.sizes, default=0) <= 1:
        return adjust, []
    return "sidak", [
        'adjust="tukey" was changed to "sidak", because "tukey" is only for one set '
        "of pairwise comparisons."
    ]


def n_means(n_pairs: int) -> int:
    """Return how many means have this many pairwise differences.

    Examples
    --------
    >>> n_means(6)
    4
    """
    return round((1.0 + np.sqrt(1.0 + 8.0 * n_pairs)) / 2.0)


def adjust_p(
    t_values: Vector, den_df: Vector, families: Families, adjust: str
) -> tuple[Vector, list[str]]:
    """Return adjusted two-sided p values, (r,), and notes on how.

    Parameters
    ----------
    t_values, den_df : (r,) statistics, NaN where there is none
    adjust : one of `ADJUSTMENTS`
    """
    used, notes = _replaced(adjust, families)
    p_values = two_sided(t_values, den_df)
    for rows in families.rows:
        known = rows[np.isfinite(p_values[rows])]
        if len(rows) > 1 and len(known):
            t, nu = t_values[known], den_df[known]
            if used == "dunnett":
                R = families.correlation(known)
                p_values[known] = max_t_tails(np.abs(t), R, nu)
            elif used == "scheffe":
                rank = families.rank(known)
                both = zip(t, nu, strict=True)
                p_values[known] = [f_tail(c**2 / rank, rank, v) for c, v in both]
            else:
                p_values[known] = _family_p(used, t, nu, len(rows))
    return p_values, [*notes, *_describe("P value", used, families, "tests")]


def _family_p(adjust: str, t: Vector, nu: Vector, size: int) -> Vector:
    """Return the adjusted p values of one family from its size alone."""
    p = two_sided(t, nu)
    if adjust == "none":
        return p
    if adjust == "tukey":
        k = n_means(size)
        q = np.sqrt(2.0) * np.abs(t)
        pairs = zip(q, nu, strict=True)
        return np.array([studentized_range_tail(x, k, v) for x, v in pairs])
    if adjust == "sidak":
        return -np.expm1(size * np.log1p(-p))
    if adjust == "bonferroni":
        return np.minimum(size * p, 1.0)
    # Only this needs statsmodels' tests, which take a second to import.
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    # What cannot be estimated counts as a test with p = 1.
    padded = np.append(p, np.ones(size - len(p)))
    return np.asarray(multipletests(padded, method=STEPWISE[adjust])[1])[: len(p)]


def critical_values(
    level: float, den_df: Vector, families: Families, adjust: str
) -> tuple[Vector, list[str]]:
    """Return what multiplies each SE in simultaneous limits, (r,), and notes."""
    used, notes = _replaced(adjust, families)
    used = "bonferroni" if used in STEPWISE else used
    critical = np.full(len(den_df), np.nan)
    for rows in families.rows:
        known = rows[~np.isnan(den_df[rows])]
        if not len(known):
            continue
        # Degrees of freedom that differ by rounding are solved for once.
        nus, which = np.unique(np.round(den_df[known], 7), return_inverse=True)
        if used == "dunnett":
            values = max_t_quantiles(level, families.correlation(known), nus)
        elif used == "scheffe":
            rank = families.rank(known)
            values = [np.sqrt(rank * _f_quantile(rank, nu, level)) for nu in nus]
        else:
            values = [_critical(used, level, nu, len(rows)) for nu in nus]
        critical[known] = np.array(values)[which]
    return critical, [*notes, *_describe("Conf-level", used, families, "estimates")]


def _critical(adjust: str, level: float, nu: float, size: int) -> float:
    tail = 1.0 - level
    if adjust == "none" or size == 1:
        return _t_quantile(nu, 1.0 - tail / 2.0)
    if adjust == "tukey":
        return studentized_range_quantile(level, n_means(size), nu) / float(np.sqrt(2))
    if adjust == "sidak":
        return _t_quantile(nu, 0.5 * (1.0 + level ** (1.0 / size)))
    return _t_quantile(nu, 1.0 - tail / (2.0 * size))  # bonferroni


def _f_quantile(num_df: int, den_df: float, p: float) -> float:
    if np.isinf(den_df):
        return float(chdtri(num_df, 1.0 - p)) / num_df
    return float(fdtri(num_df, den_df, p))


def _t_quantile(nu: float, p: float) -> float:
    return float(ndtri(p) if np.isinf(nu) else stdtrit(nu, p))


def _describe(what: str, adjust: str, families: Families, tests: str) -> list[str]:
    sizes = sorted({n for n in families.sizes if n > 1})
    if adjust == "none" or not sizes:
        return []
    if adjust == "scheffe":
        ranks = sorted({families.rank(rows) for rows in families.rows})
        return [f"{what} adjustment: scheffe method with rank {_listed(ranks)}"]
    title = TITLES.get(adjust, adjust)
    if adjust == "tukey":
        listed = _listed([n_means(n) for n in sizes])
        return [
            f"{what} adjustment: tukey method for comparing a family of {listed} "
            "estimates"
        ]
    return [f"{what} adjustment: {title} method for {_listed(sizes)} {tests}"]


def _listed(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sizes))
