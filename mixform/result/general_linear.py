"""What a fitted model shares with the general linear model of given matrices."""

from __future__ import annotations

from mixform.inference import least_squares
from mixform.inference.contrast_tests import HypothesisTest
from mixform.inference.matrices import ModelMatrices, matrices
from mixform.result.estimates import Ddf, Estimates


class GeneralLinear(Estimates):
    """Part of `Result`: sums of squares, and the model as matrices."""

    @property
    def rss(self) -> float:
        """Residual sum of squares e'R^-1e, R relative to `sigma`^2."""
        return least_squares.residual_sum_of_squares(self._fit)

    def overall_test(self, *, ddf: Ddf = "satterthwaite") -> HypothesisTest:
        """Test all fixed effects beside a constant.

        Without random effects, structure or given variances that is the exact F test
        of least squares, whatever the method.
        """
        return least_squares.overall_test(self._fit, self._approximation(ddf))

    def matrices(self) -> ModelMatrices:
        """Return y, X, Z, G = Var(u) and R = Var(e) as the fit has them, with V.

        They are what `gls` and `MixedModelEquations` take; dense parts up to 5000 rows.
        """
        return matrices(self._fit)
