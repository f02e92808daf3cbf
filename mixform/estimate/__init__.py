"""SYSTEM -> ESTIMATE: criterion, gradient, search, certificate, the Fit record."""

from mixform.estimate.fit import Convergence as Convergence
from mixform.estimate.fit import Fit as Fit
from mixform.estimate.reml import Control as Control
from mixform.estimate.reml import estimate as estimate
from mixform.estimate.reml import resolve_control as resolve_control
