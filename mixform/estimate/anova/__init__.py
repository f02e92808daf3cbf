"""Variance components by analysis of variance: mean squares and what they expect."""

from mixform.estimate.anova.components import estimate_anova as estimate_anova
from mixform.estimate.anova.sources import reduction as reduction
