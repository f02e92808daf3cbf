"""Linear mixed models, R-style: one formula and a data frame in, lme4-grade out."""

from mixform import datasets, priors
from mixform._version import __version__ as __version__
from mixform.api import (
    bootstrap_lrt,
    compare,
    compare_lme4,
    fit,
    lm_list,
    load,
    scan,
)
from mixform.design.multitrait import multitrait
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
from mixform.estimate.known import ratio
from mixform.linear import estimable, gls
from mixform.mme.matrix_level import MixedModelEquations
from mixform.relationship import Pedigree, genomic, loading, precision, single_step
from mixform.result import Result

__all__ = [
    "Control",
    "ConvergenceWarning",
    "DesignError",
    "FormulaError",
    "InferenceError",
    "MixedModelEquations",
    "MixformError",
    "Pedigree",
    "RankDeficiencyWarning",
    "Result",
    "SingularFitWarning",
    "SolverError",
    "bootstrap_lrt",
    "compare",
    "compare_lme4",
    "datasets",
    "estimable",
    "fit",
    "genomic",
    "gls",
    "lm_list",
    "load",
    "loading",
    "multitrait",
    "precision",
    "priors",
    "ratio",
    "scan",
    "single_step",
]
