"""The parameters of a fit that can be profiled: names, estimates, coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.covariance import Patterned
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.criterion import require_rows
from mixform.inference.natural_parameters import residual_names, residual_values
from mixform.inference.profile.coordinates import (
    Chart,
    Coordinates,
    CorCoordinates,
    FixedCoordinates,
    SdCoordinates,
    SigmaCoordinates,
    ordered_chart,
    plain_chart,
)
from mixform.inference.profile.criterion import ChartHessian, chart_hessian, origin
from mixform.inference.profile.error_coordinates import plain_errors
from mixform.inference.profile.error_parameters import (
    ErrorProfiles,
    error_parameters,
    obstacle,
    with_errors,
)
from mixform.inference.profile.path import Knot, Path
from mixform.inference.variance_components import block_labels

Kind = Literal["sd", "cor", "sigma", "residual", "fixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a fit.

    Attributes
    ----------
    name : as it is printed: ``sd(g: x)``, ``cor(g: x, z)``, ``sigma``, a coefficient
    lme4_name : in lme4's profiles: ``.sig01``, ``.sigma``, or the coefficient
    kind : what it is
    place : block and coefficients of an SD or a correlation; the column of X; which of
        the residual parameters
    estimate : in the user's units, NaN if there is none
    obstacle : why it has no profile, None if it has one
    """

    name: str
    lme4_name: str
    kind: Kind
    place: tuple[int, ...]
    estimate: float
    obstacle: str | None = None


def list_parameters(fit: Fit) -> tuple[Parameter, ...]:
    """Return SDs and correlations by term, sigma, and all coefficients.

    In the place of sigma those of a residual structure, of which it is the first.
    """
    fixed = fit.design.fixed
    found = [*_random_parameters(fit), *_residual_parameters(fit)]
    beta = dict(zip(fixed.kept, fit.beta.tolist(), strict=True))
    for column, name in enumerate(fixed.names):
        aliased = "aliased: a combination of other columns of X"
        found.append(
            Parameter(
                name=name,
                lme4_name="(Intercept)" if name == "Intercept" else name,
                kind="fixed",
                place=(column,),
                estimate=beta.get(column, np.nan),
                obstacle=None if column in beta else aliased,
            )
        )
    return tuple(found)


def _residual_parameters(fit: Fit) -> list[Parameter]:
    """Return sigma, or the parameters of the residual structure."""
    if fit.evaluation.problem.rows is None:
        kinds: list[Kind] = ["sigma"]
        obstacles: list[str | None] = [None]
    else:
        own = error_parameters(fit)
        kinds = ["residual"] * len(own)
        obstacles = [obstacle(fit, parameter) for parameter in own]
    names = residual_names(fit)
    estimates = residual_values(fit, fit.rho, fit.sigma).tolist()
    taken = fit.design.fixed.names
    return [
        Parameter(
            name=name if name not in taken else f".{name}",
            lme4_name=".sigma" if place == 0 else name,
            kind=kind,
            place=(place,),
            estimate=estimate,
            obstacle=reason,
        )
        for place, (name, kind, estimate, reason) in enumerate(
            zip(names, kinds, estimates, obstacles, strict=True)
        )
    ]


def _random_parameters(fit: Fit) -> list[Parameter]:
    """Return the SDs and correlations, each term's as lme4 orders its theta."""
    pairs = [_pairs(fit, j) for j in range(len(fit.T))]
    # lme4 sorts its terms by falling number of levels.
    order = sorted(range(len(pairs)), key=lambda j: -fit.design.blocks[j].m)
    numbers: dict[tuple[int, ...], int] = {}
    for j in order:
        for pair in pairs[j]:
            numbers[j, *pair] = len(numbers) + 1
    values = describe_random(fit, [T[None] for T in fit.T], np.array([fit.sigma]))[0]
    width = max(2, len(str(len(numbers))))
    found: list[Parameter] = []
    for j, label in enumerate(block_labels(fit)):
        names = fit.design.blocks[j].columns
        for pair in pairs[j]:
            one, two = names[pair[0]], names[pair[-1]]
            is_sd = len(pair) == 1
            obstacle = _structure_obstacle(fit, j, is_sd=is_sd)
            if not is_sd and j in fit.singular_terms:
                obstacle = f"no limits: the covariance of {label} is singular"
            found.append(
                Parameter(
                    name=f"sd({label}: {one})"
                    if is_sd
                    else f"cor({label}: {one}, {two})",
                    lme4_name=f".sig{numbers[j, *pair]:0{width}d}",
                    kind="sd" if is_sd else "cor",
                    place=(j, *pair),
                    estimate=float(values[len(found)]),
                    obstacle=obstacle,
                )
            )
    return found


def _structure_obstacle(fit: Fit, j: int, *, is_sd: bool) -> str | None:
    """Return why the covariance structure of block j has no profile of a parameter."""
    structure = fit.evaluation.problem.structures[j]
    if structure.mixes and structure.rank(len(fit.T[j])) == len(fit.T[j]):
        return None
    if is_sd and (isinstance(structure, Patterned) or not structure.couples):
        return None
    what = "standard deviations" if is_sd else "correlations"
    return f"no limits: {structure.name} has no parameters for these {what}"


def _pairs(fit: Fit, j: int) -> list[tuple[int, ...]]:
    """Return the coefficients of a block's SDs (c,) and correlations (c, r)."""
    k = fit.design.blocks[j].k
    couples = fit.evaluation.problem.structures[j].couples
    pairs: list[tuple[int, ...]] = []
    for c in range(k):
        pairs.append((c,))
        pairs += [(c, r) for r in range(c + 1, k) if couples]
    return pairs


def describe_random(fit: Fit, T: Sequence[Stack], sigma: Vector) -> Matrix:
    """Return SDs and correlations, (s, .), in the order of `list_parameters`.

    Parameters
    ----------
    T : (s, k, k) factors of each block, of the user's coefficients
    sigma : (s,) residual standard deviations, in the user's units
    """
    values: list[Vector] = []
    for j, factors in enumerate(T):
        norms = np.sqrt(np.einsum("sij,sij->si", factors, factors))
        for pair in _pairs(fit, j):
            if len(pair) == 1:
                values.append(sigma * norms[:, pair[0]])
                continue
            c, r = pair
            products = np.einsum("sj,sj->s", factors[:, c], factors[:, r])
            with np.errstate(invalid="ignore"):
                values.append(products / (norms[:, c] * norms[:, r]))
    return np.array(values).reshape(-1, len(sigma)).T


def choose(
    parameters: Sequence[Parameter], chosen: str | Sequence[str] | None
) -> tuple[Parameter, ...]:
    """Return the parameters asked for, by name or by lme4's name.

    Raises
    ------
    InferenceError : unknown name
    """
    if chosen is None:
        return tuple(parameters)
    known = {p.lme4_name: p for p in reversed(parameters)}
    known |= {p.name: p for p in reversed(parameters)}
    found: list[Parameter] = []
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if name not in known:
            raise InferenceError(
                f"Unknown parameter {name!r}.",
                hint=suggest(str(name), [p.name for p in parameters], "Parameters"),
            )
        found.append(known[name])
    return tuple(dict.fromkeys(found))


@dataclass(slots=True, eq=False)
class Profiler:
    """The paths of a fit's parameters; charts that they share are built once."""

    fit: Fit
    plain: Chart = field(init=False)
    errors: ErrorProfiles = field(init=False)
    charts: dict[tuple[int, ...], Chart] = field(default_factory=dict)
    hessians: dict[int, ChartHessian] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plain = with_errors(plain_chart(self.fit), plain_errors(self.fit))
        self.errors = ErrorProfiles(fit=self.fit, plain=self.plain)

    def path(self, parameter: Parameter) -> Path:
        """Return the path of a parameter that has no obstacle."""
        coordinates = self._coordinates(parameter)
        problem, chart = self.fit.evaluation.problem, coordinates.chart
        if id(chart) not in self.hessians:  # self.charts keeps the chart alive
            self.hessians[id(chart)] = chart_hessian(problem, chart)
        return Path(
            problem=problem,
            coordinates=coordinates,
            origin=origin(coordinates, self.hessians[id(chart)]),
            careful=bool(self.fit.singular_terms),
        )

    def describe(self, knots: Sequence[Knot]) -> Matrix:
        """Return all parameters at knots, (s, P), aliased coefficients left out."""
        fit = self.fit
        problem = fit.evaluation.problem
        found = [
            (fit.evaluation, fit.evaluation.sigma2)
            if knot.minimum is None
            else (knot.minimum.value.here, knot.minimum.value.sigma2)
            for knot in knots
        ]
        sigma = np.sqrt([sigma2 for _, sigma2 in found]) * problem.y_scale
        T = [
            np.linalg.solve(C, np.stack([here.T[j] for here, _ in found]))
            for j, C in enumerate(problem.Z_scales)
        ]
        beta = np.stack([here.beta for here, _ in found])
        scaled = problem.projection + problem.y_scale * beta
        beta = np.linalg.solve(fit.design.fixed.R, scaled.T).T
        random = describe_random(fit, T, sigma)
        if problem.rows is None:
            return np.column_stack([random, sigma, beta])
        errors = [
            residual_values(fit, require_rows(here.problem).residual.rho, own)
            for (here, _), own in zip(found, sigma.tolist(), strict=True)
        ]
        return np.column_stack([random, np.array(errors), beta])

    def _coordinates(self, parameter: Parameter) -> Coordinates:
        fit = self.fit
        problem = fit.evaluation.problem
        if parameter.kind == "sigma":
            return SigmaCoordinates(
                chart=self.plain, y_scale=problem.y_scale, estimate=fit.sigma
            )
        if parameter.kind == "residual":
            return self.errors.coordinates(error_parameters(fit)[parameter.place[0]])
        if parameter.kind == "fixed":
            j = fit.design.fixed.kept.index(parameter.place[0])
            unit = np.zeros(problem.p)
            unit[j] = 1.0
            row = np.linalg.solve(fit.design.fixed.R.T, unit)
            return FixedCoordinates(
                chart=self.plain,
                row=row,
                centre=float(row @ problem.projection),
                y_scale=problem.y_scale,
                estimate=float(fit.beta[j]),
            )
        j, *coefficients = parameter.place
        chart = self._chart(parameter.place)
        start = problem.theta_slices[j].start
        if parameter.kind == "cor":
            k = len(fit.T[j])
            return CorCoordinates(chart=chart, one=start, low=start + 1, two=start + k)
        c = coefficients[0]
        C = problem.Z_scales[j]
        structure = problem.structures[j]
        # The first pivot of an unstructured T; else the place of the coefficient's SD.
        first = structure.couples and not structure.scales_columns
        own = structure.curved or not structure.couples
        return SdCoordinates(
            chart=chart,
            d=start + c if own and not first else start,
            unit=float(np.linalg.norm(C[:, c])) / problem.y_scale,
            sigma=float(np.sqrt(fit.evaluation.sigma2)),
        )

    def _chart(self, place: tuple[int, ...]) -> Chart:
        if place not in self.charts:
            j, *first = place
            self.charts[place] = ordered_chart(self.fit, self.plain, j, tuple(first))
        return self.charts[place]
