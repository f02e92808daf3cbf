"""Predicted random effects (BLUPs) with their conditional standard errors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Stack
from mixform.estimate import Fit
from mixform.inference.variance_components import block_labels


def conditional_variances(fit: Fit) -> tuple[Stack, ...]:
    """Return Var(b_level | y, beta) of each block, (m, k, k).

    sigma^2 T [M^-1]_ll T' (Bates et al. 2015); beta and the variance parameters are
    taken as known, as lme4's condVar does.
    """
    problem = fit.evaluation.problem
    inverse = fit.evaluation.factor.inverse_blocks()
    out: list[Stack] = []
    for stack, T, C in zip(inverse, fit.evaluation.T, problem.Z_scales, strict=True):
        user_T = np.linalg.solve(C, T)
        out.append(fit.sigma**2 * user_T @ stack @ user_T.T)
    return tuple(out)


def ranef(fit: Fit) -> pd.DataFrame:
    """Return the predicted random effects.

    Returns
    -------
    frame : ``grp, term, level, estimate, se``; term by term, coefficient by
        coefficient, levels in order. se is the conditional standard deviation.
    """
    frames: list[pd.DataFrame] = []
    for label, block, b, variance in zip(
        block_labels(fit),
        fit.design.blocks,
        fit.b,
        conditional_variances(fit),
        strict=True,
    ):
        se = np.sqrt(np.diagonal(variance, axis1=1, axis2=2))
        for c, name in enumerate(block.columns):
            frames.append(
                pd.DataFrame(
                    {
                        "grp": label,
                        "term": name,
                        "level": block.levels,
                        "estimate": b[:, c],
                        "se": se[:, c],
                    }
                )
            )
    if not frames:
        return pd.DataFrame(columns=["grp", "term", "level", "estimate", "se"])
    return pd.concat(frames, ignore_index=True)


def coef(fit: Fit) -> dict[str, pd.DataFrame]:
    """Return for each grouping factor the coefficients of its levels.

    Fixed effects plus the random effects of the same name; the random coefficients
    without a fixed effect stand for themselves, as in lme4's coef.
    """
    names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    out: dict[str, pd.DataFrame] = {}
    for block, b in zip(fit.design.blocks, fit.b, strict=True):
        label = block.term.group_label
        if label not in out:
            fixed = np.tile(fit.beta, (block.m, 1))
            out[label] = pd.DataFrame(fixed, index=block.levels, columns=names)
        table = out[label]
        for c, name in enumerate(block.columns):
            table[name] = table.get(name, 0.0) + pd.Series(b[:, c], index=block.levels)
    return out
