"""The residual structure in the user's units: parameters with standard errors.

Natural parameters are standard deviations (of positions, or one) and correlations;
their standard errors are by the delta method from the observed information of (theta,
rho, sigma), as those of variance components.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.determination import parameter_names
from mixform.inference.satterthwaite import variance_model
from mixform.residual.model import ResidualModel


def residual_model(fit: Fit) -> ResidualModel:
    """Return the residual structure of a fit.

    Raises
    ------
    InferenceError : its residuals are independent with equal variance
    """
    rows = fit.evaluation.problem.rows
    if rows is None:
        raise InferenceError(
            "The residuals of this fit are independent with equal variance.",
            hint='Fit with residual="us(visit | id)" or dispersion="~ x".',
        )
    return rows.model


def residual_parameters(fit: Fit) -> pd.DataFrame:
    """Return standard deviations, correlations and dispersion coefficients.

    Returns
    -------
    frame : ``estimate, se`` by name: ``sd`` or ``sd(visit)``, names of the
        correlation parameters, ``log sd: column``; in strata ``stratum:name``. An SD
        with dispersion is that where its columns are zero, or at the mean of those
        that are farther from zero than their values are apart, such as years. se is
        NaN where the observed information gives none, at the edge of a parameter's
        range, and where it is held

    Raises
    ------
    InferenceError : there is no residual structure
    """
    names, values, J = natural_parameters(fit)
    se = np.full(len(values), np.nan)
    if not fit.known:
        V_phi = variance_model(fit).V_phi
        if V_phi is not None:
            # The last rows of V_phi are the interior rho and sigma.
            free = fit.interior[fit.evaluation.problem.n_theta :]
            J = J[:, np.append(free, True)]
            V = V_phi[-J.shape[1] :, -J.shape[1] :]
            variance = np.einsum("ia,ab,ib->i", J, V, J)
            se = np.sqrt(np.where(variance > 0.0, variance, np.nan))
            se[np.isin(names, names_at_edge(fit))] = np.nan
    return pd.DataFrame({"estimate": values, "se": se}, index=pd.Index(names))


def names_at_edge(fit: Fit) -> tuple[str, ...]:
    """Return the parameters of the residual structure at the edge of their range."""
    problem = fit.evaluation.problem
    names, free = parameter_names(problem), problem.free
    return tuple(
        names[k]
        for k in range(problem.n_theta, len(fit.interior))
        if free[k] and not fit.interior[k]
    )


def natural_parameters(fit: Fit) -> tuple[list[str], Vector, Matrix]:
    """Return names, values (c,), derivatives (c, r + 1) by rho and sigma / sigma^."""
    model, rho = residual_model(fit), fit.rho
    names: list[str] = []
    values: list[float] = []
    rows: list[Vector] = []
    r = model.n_parameters
    for s, grid in enumerate(model.layout.grids):
        prefix = f"{model.layout.strata[s]}:" if model.layout.strata[s] else ""
        for i, (place, sd) in enumerate(
            zip(model.eta[s], fit.sigma * model.deviations(rho, s), strict=True)
        ):
            which = f"({grid.labels[i]})" if model.structure.heterogeneous else ""
            names.append(f"{prefix}sd{which}")
            values.append(float(sd))
            row = np.zeros(r + 1)
            row[r] = sd
            if place >= 0:
                row[place] = sd
            rows.append(row)
        family, x = model.structure.family, rho[model.x[s]]
        names += [prefix + name for name in family.names(grid.labels)]
        values += model.natural(rho, s).tolist()
        for slope in family.jacobian(x, grid.size):
            row = np.zeros(r + 1)
            row[model.x[s]] = slope
            rows.append(row)
    names += [f"log sd: {name}" for name in model.dispersion_names]
    values += model.dispersion(rho).tolist()
    rows += list(np.eye(r + 1)[model.delta] / model.dispersion_unit[:, None])
    return names, np.array(values), np.array(rows)


def residual_covariance(
    fit: Fit, stratum: object = None, *, subject: object = None
) -> pd.DataFrame:
    """Return the covariance of the residuals of one subject, units of y^2.

    Parameters
    ----------
    stratum : label of the stratum, where there are several
    subject : label of a subject of the data: its rows, with their weights and
        dispersion, in place of all positions of the stratum

    Returns
    -------
    frame : positions by positions; or rows by rows, with their index

    Raises
    ------
    InferenceError : no residual structure; no such stratum or subject; times and
        coordinates have no common positions, name a subject
    """
    model = residual_model(fit)
    if subject is not None:
        return _of_subject(fit, model, str(subject))
    strata = model.layout.strata
    if (stratum is None and len(strata) > 1) or (
        stratum is not None and (str(stratum) not in strata)
    ):
        raise InferenceError(
            "Each stratum has a covariance of its own."
            if stratum is None
            else f"There is no stratum {stratum!r}.",
            hint=suggest(str(stratum), strata, "Strata"),
        )
    s = 0 if stratum is None else strata.index(str(stratum))
    labels = list(model.layout.grids[s].labels)
    if not labels or labels == [""]:
        raise InferenceError(
            "The residuals stand at positions of their own.",
            hint="Name a subject: residual_covariance(subject=...).",
        )
    Sigma = fit.sigma**2 * model.covariance(fit.rho, s)
    return pd.DataFrame(Sigma, index=labels, columns=labels)


def _of_subject(fit: Fit, model: ResidualModel, subject: str) -> pd.DataFrame:
    part = fit.design.residual
    assert part is not None, "there is a structure"
    labels = [str(label) for label in part.labels]
    if subject not in labels:
        raise InferenceError(
            f"There is no subject {subject!r}.",
            hint=suggest(subject, labels, "Subjects"),
        )
    rows = np.flatnonzero(part.subjects == labels.index(subject))
    Sigma = fit.sigma**2 * row_covariance(fit, rows)
    index = fit.design.row_index[rows]
    return pd.DataFrame(Sigma, index=index, columns=index)


def row_covariance(fit: Fit, rows: np.ndarray) -> Matrix:
    """Return R / w of some rows (c,), in units of sigma^2."""
    problem = fit.evaluation.problem
    units = np.zeros((fit.n, len(rows)))
    units[rows, np.arange(len(rows))] = 1.0
    if problem.rows is not None:
        here = problem.rows.residual
        # R = C C': rows of C for these rows are C' unit vectors.
        units = here.color_transposed(units)
    R = units.T @ units
    weights = fit.design.weights
    return R if weights is None else R / np.sqrt(np.outer(weights[rows], weights[rows]))
