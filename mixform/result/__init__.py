"""What users hold: a thin facade over the Fit, each method one delegating line."""

from mixform.result.bayes import BayesResult as BayesResult
from mixform.result.lm_list import LmList as LmList
from mixform.result.result import Result as Result
