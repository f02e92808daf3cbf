"""Variance components by analysis of variance: mean squares and what they expect."""

from mixform.estimate.anova.columns import columns_of as columns_of
from mixform.estimate.anova.components import estimate_anova as estimate_anova
from mixform.estimate.anova.options import Sums as Sums
from mixform.estimate.anova.options import resolve_sums as resolve_sums
from mixform.estimate.anova.pieces import basis_after as basis_after
from mixform.estimate.anova.pieces import rest_after as rest_after
from mixform.estimate.anova.pieces import span as span
