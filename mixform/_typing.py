"""Aliases for the arrays that every layer passes on; shapes are in the docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
Matrix = NDArray[np.floating[Any]]
Stack = NDArray[np.floating[Any]]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]
AnyArray = NDArray[Any]
