"""Parameters of structured covariances of random coefficients, with standard errors.

Standard errors are by the delta method from the observed information of (theta, rho,
sigma), as those of the variance components.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.covariance import Natural, is_curved
from mixform.estimate import Fit
from mixform.estimate.limits import free_parameters
from mixform.inference.satterthwaite import variance_model
from mixform.inference.variance_components import block_labels


def natural_parameters(fit: Fit, j: int) -> Natural | None:
    """Return the parameters of random term j in the user's units."""
    problem = fit.evaluation.problem
    own = problem.structures[j].natural(
        fit.theta[problem.theta_slices[j]], fit.design.blocks[j].columns
    )
    if own is None:
        return None
    units = fit.sigma**own.powers
    return Natural(
        names=own.names,
        values=units * own.values,
        powers=own.powers,
        jacobian=units[:, None] * own.jacobian,
    )


def random_parameters(fit: Fit) -> pd.DataFrame:
    """Return the parameters of the random terms that have a structure.

    Returns
    -------
    frame : ``grp, structure, parameter, estimate, se``. se is NaN where the observed
        information gives none, and for a parameter at a limit of its range. No rows if
        all terms are unstructured or diagonal
    """
    problem = fit.evaluation.problem
    labels = block_labels(fit)
    V_phi = None
    rows: list[tuple[str, str, str, float, float]] = []
    for j, structure in enumerate(problem.structures):
        found = natural_parameters(fit, j)
        if found is None:
            continue
        if V_phi is None and not fit.known:
            V_phi = variance_model(fit).V_phi
        se = np.full(len(found.values), np.nan)
        if V_phi is not None:
            se = _standard_errors(fit, j, found, V_phi)
        for name, value, error in zip(found.names, found.values, se, strict=True):
            rows.append((labels[j], structure.name, name, float(value), float(error)))
    columns = ["grp", "structure", "parameter", "estimate", "se"]
    return pd.DataFrame(rows, columns=columns)


def _standard_errors(fit: Fit, j: int, found: Natural, V_phi: Matrix) -> Vector:
    """Return standard errors (c,); NaN where a parameter at a limit takes part."""
    problem = fit.evaluation.problem
    where = problem.theta_slices[j]
    J = np.zeros((len(found.values), len(fit.interior) + 1))
    J[:, where] = found.jacobian @ _to_user(fit, j)
    J[:, -1] = found.powers * found.values
    free = np.append(fit.interior, True)
    fixed = J[:, ~free]
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.einsum("ia,ab,ib->i", J[:, free], V_phi, J[:, free]))
    at_limit = np.any(fixed != 0.0, axis=1) | ~np.any(J[:, :-1], axis=1)
    structure = problem.structures[j]
    if is_curved(structure):
        k = len(fit.T[j])
        own = free_parameters(structure, fit.scaled_theta[where], k)
        # What depends on held parameters only has no variance to speak of.
        at_limit |= ~np.any((found.jacobian != 0.0) & own, axis=1)
    se[at_limit | ~np.isfinite(se)] = np.nan
    return se


def _to_user(fit: Fit, j: int) -> Matrix:
    """Return d theta / d scaled theta of a block, (t, t): it is linear."""
    problem = fit.evaluation.problem
    structure, C = problem.structures[j], problem.Z_scales[j]
    t, k = len(fit.theta[problem.theta_slices[j]]), len(C)
    if is_curved(structure):
        unit = np.eye(t)
        return np.array([structure.rescaled(e, 1.0 / C.diagonal()) for e in unit]).T
    basis = structure.derivatives(fit.scaled_theta[problem.theta_slices[j]], k)
    return np.array([structure.from_factor(np.linalg.solve(C, e)) for e in basis]).T


def parameters_at_limit(fit: Fit) -> list[str]:
    """Return the parameters at a limit of their range, where no covariance is zero."""
    problem = fit.evaluation.problem
    names: list[str] = []
    for j, (structure, where, label) in enumerate(
        zip(problem.structures, problem.theta_slices, block_labels(fit), strict=True)
    ):
        found = natural_parameters(fit, j)
        if found is None or not is_curved(structure) or not np.any(fit.T[j]):
            continue
        at_edge = structure.at_edge(fit.scaled_theta[where], len(fit.T[j]))
        names += [
            f"{name} of {label}"
            for name, edge in zip(found.names, at_edge, strict=True)
            if edge
        ]
    return names


def structure_lines(fit: Fit) -> list[tuple[str, str, pd.DataFrame]]:
    """Return group, structure and its parameters but the SDs, term by term."""
    table = random_parameters(fit)
    out: list[tuple[str, str, pd.DataFrame]] = []
    for j, structure in enumerate(fit.evaluation.problem.structures):
        label = block_labels(fit)[j]
        own = table[(table["grp"] == label)]
        own = own[~own["parameter"].str.match(r"sd(\(|$)")] if len(own) else own
        if len(own):
            out.append((label, structure.name, own))
    return out
