"""Refuse models whose variances are estimated by REML and ML only."""

from __future__ import annotations

from mixform.design import Design
from mixform.errors import DesignError
from mixform.estimate.bayes.resolved import SUPPORTED


def require_supported(design: Design) -> None:
    """Refuse structures of random terms and residuals that have no priors here.

    Raises
    ------
    DesignError : names the structure
    """
    for block in design.blocks:
        if block.term.structure not in SUPPORTED:
            raise DesignError(
                f'method="Bayes" has no priors for the structure of '
                f"{block.term.source}.",
                formula=design.formula.source,
                span=block.term.span,
                hint='Drop the structure, or use method="REML".',
            )
    if design.residual is not None:
        raise DesignError(
            'method="Bayes" has no priors for a residual structure or dispersion.',
            hint='Leave residual= and dispersion= out, or use method="REML".',
        )
