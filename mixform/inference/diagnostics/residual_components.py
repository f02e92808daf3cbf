"""The residual's (co)variances as components: sigma^2, or those of the positions.

Where each position (visit, trait) has a variance of its own, the residual is a term
with a coefficient for each, ``residual[wwg, pwg]``; otherwise it has one variance. Each
stratum is a term of its own, ``Residual:stratum``. With ``dispersion=`` these are the
(co)variances where its columns are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.diagnostics.component_functions import RESIDUAL
from mixform.residual.model import ResidualModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualComponents:
    """The (co)variances of the residuals of one stratum.

    Attributes
    ----------
    label : of the term
    columns : positions with variances of their own; one, "", if the variance is one
    variables : the column of the data that says the position, if they have
    labels : of the components, variances first
    values : (c,) of the components
    jacobian : (c, r + 1) derivatives by rho and sigma / sigma^
    """

    label: str
    columns: tuple[str, ...]
    variables: tuple[str, ...]
    labels: tuple[str, ...]
    values: Vector
    jacobian: Matrix

    def covariates(self, values: Mapping[str, object]) -> Vector:
        """Return which position (k,) a level of the variable is.

        Raises
        ------
        InferenceError : it is none
        """
        if not self.variables:
            return np.ones(1)
        name = self.variables[0]
        if str(values[name]) not in self.columns:
            raise InferenceError(
                f"{name!r} has no level {values[name]!r}.",
                hint=suggest(str(values[name]), self.columns, "Levels"),
            )
        return np.array([str(values[name]) == c for c in self.columns], np.float64)


def residual_components(fit: Fit) -> tuple[ResidualComponents, ...]:
    """Return the (co)variances of the residuals, by stratum."""
    rows = fit.evaluation.problem.rows
    if rows is None:
        return (_single(RESIDUAL, fit.sigma**2, np.array([2.0 * fit.sigma**2])),)
    model = rows.model
    strata = model.layout.strata
    labels = [f"{RESIDUAL}:{s}" for s in strata] if len(strata) > 1 else [RESIDUAL]
    return tuple(_of_stratum(fit, model, s, label) for s, label in enumerate(labels))


def _single(label: str, variance: float, slope: Vector) -> ResidualComponents:
    return ResidualComponents(
        label=label,
        columns=("",),
        variables=(),
        labels=(label,),
        values=np.array([variance]),
        jacobian=slope[None],
    )


def _of_stratum(
    fit: Fit, model: ResidualModel, s: int, label: str
) -> ResidualComponents:
    Sigma, slopes = _covariance(fit, model, s)
    names = model.layout.grids[s].labels
    if not model.structure.heterogeneous or len(names) < 2:
        return _single(label, float(Sigma[0, 0]), slopes[:, 0, 0])
    pairs = [(c, c) for c in range(len(names))]
    if model.structure.family.names(names):
        pairs += [(c, r) for c in range(len(names)) for r in range(c + 1, len(names))]
    term = None if fit.design.residual is None else fit.design.residual.term
    assert term is not None, "positions come from a structure"
    left, right = np.array(pairs).T
    return ResidualComponents(
        label=label,
        columns=names,
        variables=term.coordinates[:1],
        labels=tuple(
            f"{label}[{names[c]}]" if c == r else f"{label}[{names[c]}, {names[r]}]"
            for c, r in pairs
        ),
        values=Sigma[left, right],
        jacobian=slopes[:, left, right].T,
    )


def _covariance(fit: Fit, model: ResidualModel, s: int) -> tuple[Matrix, Matrix]:
    """Return Sigma (v, v) of stratum s, and its derivatives (r + 1, v, v).

    Of a structure without common positions, such as a time, those of one residual.
    """
    grid, family, rho = model.layout.grids[s], model.structure.family, fit.rho
    deviations = fit.sigma * model.deviations(rho, s)
    if not model.structure.heterogeneous:
        deviations, C, dC = deviations[:1], np.ones((1, 1)), np.zeros((0, 1, 1))
    else:
        natural = model.natural(rho, s)
        C = np.asarray(family.correlation(natural, grid.D))
        J = family.jacobian(rho[model.x[s]], grid.size)
        dC = np.tensordot(J.T, family.derivatives(natural, grid.D), axes=1)
    scale = np.outer(deviations, deviations)
    Sigma = C * scale
    slopes = np.zeros((model.n_parameters + 1, *Sigma.shape))
    slopes[-1] = 2.0 * Sigma
    for i, place in enumerate(model.eta[s][: len(deviations)]):
        if place >= 0:
            slopes[place, i, :] += Sigma[i]
            slopes[place, :, i] += Sigma[:, i]
    if len(dC):
        slopes[model.x[s]] = dC * scale
    return Sigma, slopes
