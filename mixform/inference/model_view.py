"""The model as tools around statsmodels look at it: ``result.model``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.formula import readable
from mixform.inference.tidy import model_columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataView:
    """The data of a model.

    Attributes
    ----------
    frame : (n rows) the columns of the model, of the rows in it
    """

    frame: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelView:
    """Names and arrays of the fixed part of a model, named as in statsmodels.

    Attributes
    ----------
    fit : the model
    """

    fit: Fit

    @property
    def formula(self) -> str:
        """The formula without its random terms, which statsmodels does not read.

        Tools apply it to data of their own making, so what those cannot reproduce is
        refused.

        Raises
        ------
        InferenceError : contrasts that are not in the formula; a transformation that
            depends on the rows, such as poly, center or bs
        """
        design = self.fit.design
        if design.contrasts:
            raise InferenceError(
                f"The contrasts of {', '.join(design.contrasts)} are not in the "
                "formula, from which other packages code their data.",
                hint="Write C(x, contr.sum) in the formula in place of contrasts=.",
            )
        state = getattr(design.fixed.coded.spec, "transform_state", None)
        if state:
            names = ", ".join(readable(str(name)) for name in state)
            raise InferenceError(
                f"{names} depends on the rows of the fit, which other packages do not "
                "know.",
                hint="Compute the columns in the data first.",
            )
        terms = [str(term) for term in design.fixed.coded.spec.formula]
        right = terms if "1" in terms else ["0", *terms]
        return readable(f"{design.formula.response.code} ~ {' + '.join(right)}")

    @property
    def endog_names(self) -> str:
        """The response as written."""
        return self.fit.design.formula.response.text

    @property
    def exog_names(self) -> list[str]:
        """Names of the coefficients."""
        return list(self.fit.design.fixed.names)

    @property
    def endog(self) -> Vector:
        """The response, (n,)."""
        return self.fit.design.y

    @property
    def exog(self) -> Matrix:
        """The fixed-effects design, (n, c), aliased columns included."""
        return self.fit.design.fixed.coded.values

    @property
    def data(self) -> DataView:
        """The columns of the model, of the rows in it."""
        index = self.fit.design.row_index
        return DataView(frame=pd.DataFrame(model_columns(self.fit)).set_index(index))

    def predict(self, params: object, exog: object = None) -> Vector:
        """Return exog @ params: the population mean, without offset.

        Parameters
        ----------
        params : (c,) coefficients in the order of `exog_names`
        exog : (N, c) design; None for that of the rows in the model
        """
        design = self.exog if exog is None else np.asarray(exog, dtype=np.float64)
        return design @ np.asarray(params, dtype=np.float64)
