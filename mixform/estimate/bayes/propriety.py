"""Refuse priors under which the posterior is no distribution."""

from __future__ import annotations

from mixform.design import Design
from mixform.estimate.bayes.resolved import Priors


def require_proper(design: Design, priors: Priors) -> None:
    """Refuse an improper posterior."""
