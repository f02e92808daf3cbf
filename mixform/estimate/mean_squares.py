"""Records of an analysis of variance; see `mixform.estimate.anova`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector

#: Names of the sums of squares, and what they are called in print.
SUMS = {
    "henderson3": "Henderson's method III",
    "type1": "type 1 sums of squares",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeanSquares:
    """Mean squares of the random terms and the residual, and the components.

    The r random terms come first, in the order of the formula, the residual last.

    Attributes
    ----------
    sums : which sums of squares, a key of `SUMS`
    num_df, mean_sq : (r + 1,)
    expectation : (r + 1, r + 1) coefficients of the components in each mean square
    components : (r + 1,) estimated variances, negative ones as they are
    V : (r + 1, r + 1) their sampling covariance at the estimates; not a covariance
        matrix where negative ones make that of the data indefinite
    V_tests : the same with zero for negative estimates, as effects and tests have it
    """

    sums: str
    num_df: Vector
    mean_sq: Vector
    expectation: Matrix
    components: Vector
    V: Matrix
    V_tests: Matrix

    @property
    def negative(self) -> tuple[int, ...]:
        """Positions of the random terms whose estimate is negative."""
        return tuple(np.flatnonzero(self.components[:-1] < 0.0).tolist())
