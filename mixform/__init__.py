"""Linear mixed models, R-style: one formula and a data frame in, lme4-grade out."""

from mixform import datasets
from mixform.api import fit
from mixform.errors import (
    ConvergenceWarning,
    DesignError,
    FormulaError,
    InferenceError,
    MixformError,
    RankDeficiencyWarning,
    SingularFitWarning,
    SolverError,
)
from mixform.estimate import Control
from mixform.result import Result

__version__ = "0.1.0"

__all__ = [
    "Control",
    "ConvergenceWarning",
    "DesignError",
    "FormulaError",
    "InferenceError",
    "MixformError",
    "RankDeficiencyWarning",
    "Result",
    "SingularFitWarning",
    "SolverError",
    "datasets",
    "fit",
]
