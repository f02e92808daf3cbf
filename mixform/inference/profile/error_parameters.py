"""Which parameters a residual structure has, and the coordinates of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from mixform.estimate import Fit
from mixform.estimate.criterion import require_rows
from mixform.inference.natural_parameters import (
    as_arctanh,
    in_units,
    is_separable,
    of_family,
)
from mixform.inference.profile.coordinates import (
    Chart,
    Coordinates,
    ErrorChart,
    SigmaCoordinates,
)
from mixform.inference.profile.error_coordinates import (
    EntryCoordinates,
    NaturalErrors,
    PlainErrors,
    ResidualSdCoordinates,
    edge,
)

AT_EDGE = "no limits: at the edge of its range"
OTHERS_AT_EDGE = "no limits: a correlation of its stratum is at the edge of its range"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorParameter:
    """A natural parameter of the residuals.

    Attributes
    ----------
    kind : what it is
    place : in rho; -1 for the SD that sigma is
    s, j : stratum, and number of a correlation parameter in it
    """

    kind: Literal["sd", "correlation", "dispersion"]
    place: int
    s: int = 0
    j: int = 0


def error_parameters(fit: Fit) -> list[ErrorParameter]:
    """Return the parameters in the order of `residual_names`."""
    model = require_rows(fit.evaluation.problem).model
    out: list[ErrorParameter] = []
    for s, (places, x) in enumerate(zip(model.eta, model.x, strict=True)):
        out += [ErrorParameter(kind="sd", place=int(place), s=s) for place in places]
        out += [
            ErrorParameter(kind="correlation", place=place, s=s, j=j)
            for j, place in enumerate(range(x.start, x.stop))
        ]
    places = range(model.delta.start, model.delta.stop)
    return out + [ErrorParameter(kind="dispersion", place=place) for place in places]


def obstacle(fit: Fit, parameter: ErrorParameter) -> str | None:
    """Return why a parameter has no profile, None if it has one."""
    model = require_rows(fit.evaluation.problem).model
    interior = fit.interior[fit.evaluation.problem.n_theta :]
    if parameter.place >= 0 and not interior[parameter.place]:
        return AT_EDGE
    s = parameter.s
    if parameter.kind != "correlation" or is_separable(model, fit.rho, s):
        return None
    return None if interior[model.x[s]].all() else OTHERS_AT_EDGE


def with_errors(chart: Chart, errors: PlainErrors | NaturalErrors | None) -> Chart:
    """Return a chart of the factors with residual parameters behind them."""
    if errors is None:
        return chart
    w = np.append(chart.w[: len(chart.columns)], errors.start())
    return replace(chart, w=w, errors=errors)


@dataclass(slots=True, eq=False)
class ErrorProfiles:
    """Coordinates of the parameters of a residual structure; charts are built once."""

    fit: Fit
    plain: Chart
    charts: dict[int, Chart] = field(default_factory=dict)

    def coordinates(self, parameter: ErrorParameter) -> Coordinates:
        """Return the coordinates of a parameter that has no obstacle."""
        fit, chart, k = self.fit, self.plain, parameter.place
        problem = fit.evaluation.problem
        if k < 0:
            return SigmaCoordinates(
                chart=chart, y_scale=problem.y_scale, estimate=fit.sigma
            )
        t, model = len(chart.columns), require_rows(problem).model
        i = t + _position(chart.errors, k)
        if parameter.kind == "sd":
            return ResidualSdCoordinates(
                chart=chart,
                i=i,
                y_scale=problem.y_scale,
                sigma=float(np.sqrt(fit.evaluation.sigma2)),
            )
        if parameter.kind == "dispersion":
            unit = float(model.dispersion_unit[k - model.delta.start])
            return EntryCoordinates(chart=chart, i=i, reading=in_units(unit))
        s = parameter.s
        if not is_separable(model, fit.rho, s):
            return EntryCoordinates(chart=self._natural(s), i=i, reading=as_arctanh())
        return EntryCoordinates(
            chart=chart,
            i=i,
            reading=of_family(model, fit.rho, s, parameter.j),
            lower=edge(model, fit.rho, k, -1.0),
            upper=edge(model, fit.rho, k, 1.0),
        )

    def _natural(self, s: int) -> Chart:
        """Return the chart with the correlations of stratum s."""
        if s not in self.charts:
            plain = self.plain.errors
            assert isinstance(plain, PlainErrors), "the plain chart"
            model = require_rows(self.fit.evaluation.problem).model
            errors = NaturalErrors(plain=plain, model=model, stratum=s)
            self.charts[s] = with_errors(self.plain, errors)
        return self.charts[s]


def _position(errors: ErrorChart | None, k: int) -> int:
    assert isinstance(errors, PlainErrors), "the plain chart"
    return errors.position(k)
