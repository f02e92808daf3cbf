"""Kenward and Roger's covariance of the fixed effects and their degrees of freedom."""

from mixform.inference.kenward_roger.adjustment import KenwardRoger as KenwardRoger
from mixform.inference.kenward_roger.adjustment import kenward_roger as kenward_roger
from mixform.inference.kenward_roger.adjustment import matched_f as matched_f
