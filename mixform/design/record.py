"""What a model needs of the data: the record that the later layers read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.sparse import csc_array, hstack

from mixform._typing import Mask, Vector
from mixform.design.fixed import FixedPart
from mixform.design.random import RandomBlock
from mixform.design.residual import ResidualPart
from mixform.formula import ModelFormula


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Design:
    """Everything a model needs of the data; rows that are not used are gone.

    Attributes
    ----------
    formula : the parsed formula
    y : (n,) response, offset not subtracted
    fixed : X and its basis
    blocks : the random terms
    weights : (n,) precision weights, or None
    offset : (n,) sum of the offsets, or None
    columns : normalized variables of the fixed and random coefficients
    contrasts : formulaic contrasts of the factors that do not take the default
    index : (N,) index of the data
    used : (N,) rows in the model
    n_missing : rows dropped because of missing values
    missing_columns : column -> number of its missing values in the rows asked for
    offset_column, weights_column : the columns behind the arguments, if columns
    offset_is_array : whether the offset argument was an array
    residual : structure of the residuals; None if independent with equal variance
    """

    formula: ModelFormula
    y: Vector
    fixed: FixedPart
    blocks: tuple[RandomBlock, ...]
    weights: Vector | None
    offset: Vector | None
    columns: Mapping[str, pd.Series]
    contrasts: Mapping[str, Any]
    index: pd.Index
    used: Mask
    n_missing: int
    missing_columns: Mapping[str, int]
    offset_column: str | None
    offset_is_array: bool
    weights_column: str | None
    residual: ResidualPart | None = None

    def __repr__(self) -> str:
        return (
            f"<Design of {self.formula.source!r}: {len(self.y)} rows, "
            f"{len(self.fixed.names)} fixed-effect columns, "
            f"{len(self.blocks)} random terms>"
        )

    @property
    def row_index(self) -> pd.Index:
        """Index of the n rows in the model."""
        return self.index if self.used.all() else self.index[self.used]

    @property
    def X(self) -> pd.DataFrame:
        """The fixed-effects design, aliased columns included."""
        coded = self.fixed.coded
        return pd.DataFrame(coded.values, index=self.row_index, columns=coded.names)

    @property
    def Z(self) -> Any:
        """The random-effects design, (n, q) sparse, blocks side by side."""
        if not self.blocks:
            return csc_array((len(self.y), 0))
        return hstack([block.Z for block in self.blocks], format="csc")

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the fixed terms and sources of the random ones."""
        fixed = (term.name for term in self.fixed.coded.terms)
        return (*fixed, *(block.term.source for block in self.blocks))
