"""How the estimates change when a group of rows, or one row, is left out.

    Cook's D  = d'V_beta^-1 d / p            d = beta without the group - beta
    MDFFITS   = d'V_(S)^-1 d / p             V_(S) = V_beta without the group
    COVRATIO  = det V_(S) / det V_beta
    COVTRACE  = |tr(V_beta^-1 V_(S)) - p|

(Belsley, Kuh and Welsch 1980; for mixed models Christensen, Pearson and Johnson 1992,
Technometrics 34, 38; Schabenberger 2004, SUGI 29, paper 189.) Without refitting, theta
is held and beta and sigma follow exactly; with it, everything is estimated anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.errors import DesignError, InferenceError, SolverError, suggest
from mixform.estimate import Control, Fit, resolve_control
from mixform.estimate.known import require_free
from mixform.estimate.problem import split_blocks
from mixform.inference.diagnostics.deletion import (
    LEAST_INFORMATION,
    Removed,
    Rows,
    effects_without,
    remove_groups,
    remove_single_rows,
    row_parts,
)
from mixform.inference.diagnostics.fewer_rows import fit_without
from mixform.inference.diagnostics.grouping import Grouping, grouping
from mixform.inference.diagnostics.vcfun import component_labels
from mixform.inference.natural_parameters import residual_names, residual_values
from mixform.inference.related import require_unrelated
from mixform.inference.variance_components import block_labels, varcorr
from mixform.progress import Progress

#: Rows whose matrices (p, p) are held at once.
CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Influence:
    """What leaving out each group changes; one row for each group in every frame.

    Attributes
    ----------
    group : name of the grouping factor; "row" for single rows
    refit : whether the variance parameters were estimated anew
    table : ``n_rows, cook, mdffits, covratio, covtrace, sigma``, sigma that without
        the group
    dfbeta : change of each fixed effect, without the group minus with it
    dfbetas : the same in standard errors without the group
    variances : variance components without the group, as `varcorr`'s vcov, in the
        place of the residual variance the parameters of a residual structure; None
        where they were held
    notes : what a reader must know; the groups without an answer are NaN
    """

    group: str
    refit: bool
    table: pd.DataFrame
    dfbeta: pd.DataFrame
    dfbetas: pd.DataFrame
    variances: pd.DataFrame | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        how = "all parameters estimated anew" if self.refit else "theta held"
        parts = [
            f"Influence of leaving out each {self.group} ({how})",
            self.table.to_string(float_format="{:.5g}".format, max_rows=60),
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(parts)

    __repr__ = __str__


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Without:
    """Estimates without each of G groups, beta as gamma with Var(gamma^) = sigma^2 I.

    Attributes
    ----------
    change : (G, p) gamma without the group - gamma, units of y
    Omega : (G, p, p) Var(gamma^) without the group, over sigma^2 with it
    sigma : (G,) without the group; n_rows : (G,) rows in it
    """

    change: Matrix
    Omega: Stack
    sigma: Vector
    n_rows: AnyArray


def influence(
    fit: Fit,
    group: object = None,
    *,
    refit: bool = False,
    control: Control | None = None,
    progress: bool | None = None,
) -> Influence:
    """Return what leaving out each group changes.

    Parameters
    ----------
    group : a grouping factor of the random terms, or a column of one, by name; or a
        label for each row; None leaves out single rows
    refit : estimate the variance parameters anew each time, from those of the fit. An
        interrupt keeps what is done
    control : options of the refits
    progress : show a bar; None after a few seconds

    Raises
    ------
    InferenceError : there are no fixed effects; unknown group; one group only
    """
    if len(fit.beta) == 0:
        raise InferenceError("Influence needs a fixed effect; the model has none.")
    require_free(fit, "Influence")
    if group is not None and not refit:
        require_unrelated(
            fit, "Influence of groups", "Use refit=True, or leave out single rows."
        )
    groups = _groups(fit, group)
    if groups.m < 2:
        raise InferenceError(
            f"All rows are in one group of {groups.name!r}.",
            hint="Leaving it out leaves nothing; choose a factor with more levels.",
        )
    half = np.linalg.solve(fit.design.fixed.R, fit.evaluation.R_inverse)
    if refit:
        return _by_refit(fit, groups, half, resolve_control(control), progress)
    with Progress(progress, groups.m, "groups") as bar:
        rows = row_parts(fit)
        if group is None:
            parts = [
                _measures(fit, _held(fit, removed), half)
                for removed in _chunks(fit, rows)
            ]
        else:
            removed = remove_groups(fit, rows, groups.codes, groups.m, bar.advance)
            parts = [_measures(fit, _held(fit, removed), half)]
    return _frames(fit, groups, parts, refit=False, variances=None, notes=())


def ranef_without(fit: Fit, group: object, level: object) -> pd.DataFrame:
    """Return the random effects without one group of rows, theta held.

    Parameters
    ----------
    group : as in `influence`, but not None
    level : label of the group that is left out

    Returns
    -------
    frame : ``grp, term, level, estimate, change``, change from those of all rows; NaN
        where a fixed effect cannot be estimated without the group

    Raises
    ------
    InferenceError : no random effects; unknown group or level
    """
    here, blocks = fit.evaluation, fit.design.blocks
    if not blocks:
        raise InferenceError("The model has no random effects.")
    require_unrelated(fit, "ranef_without")
    groups = grouping(fit, group)
    found = np.flatnonzero([str(label) == str(level) for label in groups.labels])
    if len(found) == 0:
        raise InferenceError(
            f"{groups.name!r} has no level {level!r}.",
            hint=suggest(str(level), groups.labels, "Levels"),
        )
    u = effects_without(fit, row_parts(fit), np.flatnonzero(groups.codes == found[0]))
    b = here.problem.equations.Lambda_dot(here.T, u[:, None])[:, 0]
    parts = split_blocks(b, here.problem.blocks)
    frames: list[pd.DataFrame] = []
    for label, block, old, new, C in zip(
        block_labels(fit), blocks, fit.b, parts, here.problem.Z_scales, strict=True
    ):
        values = here.problem.y_scale * np.linalg.solve(C, new.T).T
        for c, name in enumerate(block.columns):
            columns = {"grp": label, "term": name, "level": block.levels}
            columns |= {"estimate": values[:, c], "change": (values - old)[:, c]}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _groups(fit: Fit, group: object) -> Grouping:
    if group is not None:
        return grouping(fit, group)
    return Grouping(name="row", codes=np.arange(fit.n), labels=fit.design.row_index)


def _chunks(fit: Fit, rows: Rows) -> list[Removed]:
    return [
        remove_single_rows(fit, rows, slice(start, start + CHUNK))
        for start in range(0, fit.n, CHUNK)
    ]


def _held(fit: Fit, removed: Removed) -> _Without:
    """Solve without each group at the theta of the fit."""
    here = fit.evaluation
    problem = here.problem
    left = np.eye(problem.p) - removed.J
    lost = np.linalg.eigvalsh(left)[:, 0] < LEAST_INFORMATION
    left[lost] = np.eye(problem.p)
    change = -np.linalg.solve(left, removed.j[:, :, None])[:, :, 0]
    r2 = here.r2 - removed.r2 + np.einsum("gp,gp->g", removed.j, change)
    residual_df = problem.n - removed.n_rows - (problem.p if problem.reml else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma2 = np.where((residual_df > 0) & (r2 > 0.0), r2 / residual_df, np.nan)
    change[lost], sigma2[lost] = np.nan, np.nan
    Omega = np.linalg.inv(left) * (sigma2 / here.sigma2)[:, None, None]
    return _Without(
        change=problem.y_scale * change,
        Omega=Omega,
        sigma=problem.y_scale * np.sqrt(sigma2),
        n_rows=removed.n_rows,
    )


def _measures(
    fit: Fit, without: _Without, half: Matrix
) -> tuple[pd.DataFrame, Matrix, Matrix]:
    """Return the measures, dfbeta and dfbetas (G, p); NaN where there is no answer.

    half (p, p) takes gamma to beta.
    """
    p, change, Omega = len(half), without.change, without.Omega
    known = np.isfinite(without.sigma)
    safe = np.where(known[:, None, None], Omega, np.eye(p))
    weighed = np.linalg.solve(safe, change[:, :, None])[:, :, 0]
    scale = p * fit.sigma**2
    trace = np.abs(np.einsum("gpp->g", safe) - p)
    table = pd.DataFrame(
        {
            "n_rows": without.n_rows,
            "cook": np.einsum("gp,gp->g", change, change) / scale,
            "mdffits": np.einsum("gp,gp->g", change, weighed) / scale,
            "covratio": np.linalg.det(safe),
            "covtrace": trace,
            "sigma": without.sigma,
        }
    )
    table.loc[~known, ["mdffits", "covratio", "covtrace"]] = np.nan
    dfbeta = change @ half.T
    variance = np.einsum("ip,gpq,iq->gi", half, safe, half)
    se = np.where(known[:, None], fit.sigma * np.sqrt(variance), np.nan)
    return table, dfbeta, dfbeta / se


def _by_refit(
    fit: Fit, groups: Grouping, half: Matrix, control: Control, progress: bool | None
) -> Influence:
    """Leave each group out of the data and fit again."""
    m, p = groups.m, len(half)
    n_rows = np.bincount(groups.codes, minlength=m)
    labels = _component_labels(fit)
    variances = np.full((m, len(labels)), np.nan)
    change, sigma = np.full((m, p), np.nan), np.full(m, np.nan)
    Omega = np.full((m, p, p), np.nan)
    failed: list[str] = []
    uncertified = done = 0
    back = np.linalg.inv(half)
    try:
        with Progress(progress, m, "refits") as bar:
            for g in range(m):
                try:
                    new = fit_without(fit, groups.codes != g, control)
                except (DesignError, SolverError) as failure:
                    failed.append(f"{groups.labels[g]!r}: {failure.message}")
                else:
                    variances[g] = _component_values(new)
                    change[g], sigma[g] = back @ (new.beta - fit.beta), new.sigma
                    Omega[g] = back @ new.V_beta @ back.T / fit.sigma**2
                    uncertified += not new.convergence.converged
                done += 1
                bar.advance()
    except KeyboardInterrupt:
        if done == 0:
            raise
    notes = [f"no answer without {what}" for what in failed[:5]]
    if len(failed) > 5:
        notes.append(f"and for {len(failed) - 5} groups more.")
    if uncertified:
        notes.append(f"{uncertified} of the refits are not certified optima.")
    if done < m:
        notes.append(f"interrupted: {done} of {m} groups are done.")
    without = _Without(change=change, Omega=Omega, sigma=sigma, n_rows=n_rows)
    frame = pd.DataFrame(variances, columns=labels)
    out = _frames(
        fit, groups, [_measures(fit, without, half)], True, frame, tuple(notes)
    )
    return out if done == m else _first(out, done)


def _component_labels(fit: Fit) -> list[str]:
    """Return labels of the components of the random terms and of the residuals."""
    labels = list(component_labels(fit))
    if fit.design.residual is None:
        return labels
    return labels[: len(varcorr(fit)) - 1] + residual_names(fit)


def _component_values(fit: Fit) -> Vector:
    vcov = varcorr(fit)["vcov"].to_numpy()
    if fit.design.residual is None:
        return vcov
    return np.append(vcov[:-1], residual_values(fit, fit.rho, fit.sigma))


def _first(out: Influence, done: int) -> Influence:
    assert out.variances is not None, "refits have variances"
    return replace(
        out,
        table=out.table.iloc[:done],
        dfbeta=out.dfbeta.iloc[:done],
        dfbetas=out.dfbetas.iloc[:done],
        variances=out.variances.iloc[:done],
    )


def _frames(
    fit: Fit,
    groups: Grouping,
    parts: list[tuple[pd.DataFrame, Matrix, Matrix]],
    refit: bool,
    variances: pd.DataFrame | None,
    notes: tuple[str, ...],
) -> Influence:
    names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    table = pd.concat([part[0] for part in parts]).set_axis(groups.labels, axis=0)
    lost = int(table["cook"].isna().sum())
    if lost and not refit:
        notes = (f"without {lost} of them a fixed effect cannot be estimated.",)
    index = groups.labels if groups.name == "row" else groups.labels.rename(groups.name)
    return Influence(
        group=groups.name,
        refit=refit,
        table=table.set_axis(index, axis=0),
        dfbeta=pd.DataFrame(np.vstack([part[1] for part in parts]), index, names),
        dfbetas=pd.DataFrame(np.vstack([part[2] for part in parts]), index, names),
        variances=None if variances is None else variances.set_axis(index, axis=0),
        notes=notes,
    )
