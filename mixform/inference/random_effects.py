"""Predicted random effects (BLUPs): their conditional and their prediction errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform._typing import Stack
from mixform.estimate import Fit
from mixform.estimate.problem import split_blocks
from mixform.inference.intervals import require_level
from mixform.inference.prediction import chosen_blocks
from mixform.inference.variance_components import block_labels, covariances


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


def prediction_error_variances(fit: Fit) -> tuple[Stack, ...]:
    """Return Var(b^_level - b_level) of each block, (m, k, k): beta is estimated.

    sigma^2 T [C~^uu]_ll T', C~^uu = M^-1 + V_X (X'V^-1X)^-1 V_X', V_X = M^-1
    Lambda'Z'R^-1X (Henderson 1975, Biometrics 31, 423). The variance parameters are
    taken as known.
    """
    here = fit.evaluation
    blocks = here.problem.blocks
    half = split_blocks(here.V[:, :-1] @ here.R_inverse, blocks)
    out: list[Stack] = []
    for known_beta, block, part, T, C in zip(
        conditional_variances(fit),
        blocks,
        half,
        here.T,
        here.problem.Z_scales,
        strict=True,
    ):
        effect = fit.sigma * np.linalg.solve(C, T) @ block.at_levels(part)  # (m, k, p)
        out.append(known_beta + effect @ effect.transpose(0, 2, 1))
    return tuple(out)


def condvar(fit: Fit) -> dict[str, Stack]:
    """Return Var(b_level | y, beta), (m, k, k), by label of the random term."""
    return dict(zip(block_labels(fit), conditional_variances(fit), strict=True))


def ranef(fit: Fit, *, pev: bool = False, reliability: bool = False) -> pd.DataFrame:
    """Return the predicted random effects.

    Parameters
    ----------
    pev : add Var(b^ - b), which knows that beta is estimated
    reliability : add 1 - pev / Var(b), the squared correlation of b^ and b, where
        Var(b) of a related level i is A_ii times the variance of the term; and its
        root, the accuracy

    Returns
    -------
    frame : ``grp, term, level, estimate, se``, and ``pev``, or ``reliability`` and
        ``accuracy`` if asked for; term by term, coefficient by coefficient, levels in
        order. se is the conditional standard deviation, given beta; NaN where conjugate
        gradients solved the equations. reliability is NaN
        where the variance is zero.
    """
    names = ["grp", "term", "level", "estimate", "se"]
    names += ["pev"] * pev + ["reliability", "accuracy"] * reliability
    errors: tuple[Stack | None, ...] = (None,) * len(fit.b)
    if pev or reliability:
        errors = prediction_error_variances(fit)
    variances: tuple[Stack, ...]
    if fit.convergence.backend == "cg":
        variances = tuple(np.full((*b.shape, b.shape[1]), np.nan) for b in fit.b)
    else:
        variances = conditional_variances(fit)
    frames: list[pd.DataFrame] = []
    for label, block, b, variance, error, Sigma in zip(
        block_labels(fit),
        fit.design.blocks,
        fit.b,
        variances,
        errors,
        covariances(fit),
        strict=True,
    ):
        A_ii = 1.0 if block.relation is None else block.relation.diagonal
        for c, name in enumerate(block.columns):
            columns = {"grp": label, "term": name, "level": block.levels}
            columns |= {"estimate": b[:, c], "se": np.sqrt(variance[:, c, c])}
            if error is not None:
                columns["pev"] = error[:, c, c]
                prior = Sigma[c, c] if Sigma[c, c] > 0.0 else np.nan
                share = 1.0 - error[:, c, c] / (A_ii * prior)
                columns["reliability"] = share
                # Without information it is zero, or a rounding error below.
                columns["accuracy"] = np.sqrt(np.where(share < 0.0, 0.0, share))
            frames.append(pd.DataFrame(columns)[names])
    if not frames:
        return pd.DataFrame(columns=names)
    return pd.concat(frames, ignore_index=True)


def caterpillar(
    fit: Fit, term: str | Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Return what a caterpillar plot, or a normal plot, of the random effects shows.

    Parameters
    ----------
    term : grouping factors or random terms by name; None for all
    level : of the intervals estimate -/+ normal quantile * conditional SD

    Returns
    -------
    frame : ``grp, term, level, estimate, se, lower, upper, rank, quantile``; within
        each coefficient from the smallest to the largest estimate, rank 1 to m;
        quantile is the normal quantile at (rank - 1/2) / m, as in lme4's qqmath
    """
    require_level(level)
    chosen = chosen_blocks(fit, True if term is None else term)
    labels = block_labels(fit)
    table = ranef(fit)
    table = table[table["grp"].isin([labels[j] for j in chosen])]
    width = ndtri(0.5 * (1.0 + level)) * table["se"]
    table = table.assign(
        lower=table["estimate"] - width, upper=table["estimate"] + width
    )
    frames: list[pd.DataFrame] = []
    for _, part in table.groupby(["grp", "term"], sort=False):
        rank = np.arange(1, len(part) + 1)
        ordered = part.sort_values("estimate", kind="stable")
        quantile = ndtri((rank - 0.5) / len(part))
        frames.append(ordered.assign(rank=rank, quantile=quantile))
    if not frames:
        return table.assign(rank=0, quantile=0.0)
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
            known = table[name].to_numpy() if name in table else 0.0
            table[name] = known + b[:, c]
    return out
