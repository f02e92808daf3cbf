"""The record of profiles: points, splines through them, limits, densities, traces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.interpolate import CubicHermiteSpline
from scipy.special import ndtri

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.inference.intervals import require_level
from mixform.inference.profile.coordinates import Coordinates
from mixform.inference.profile.parameters import Parameter


def normal_quantile(level: float) -> float:
    """Return the |zeta| of the limits of a two-sided interval."""
    require_level(level)
    return float(ndtri(0.5 * (1.0 + level)))


#: estimate, lower, upper, reason
LimitsRow = tuple[float, float, float, str]


def limits_row(
    estimate: float, lower: tuple[float, str], upper: tuple[float, str]
) -> LimitsRow:
    """Return a row of the table of limits, both reasons as one."""
    reasons = [
        f"{side}: {reason}" if lower[1] != upper[1] else reason
        for side, reason in (("lower", lower[1]), ("upper", upper[1]))
        if reason
    ]
    return estimate, lower[0], upper[0], "; ".join(dict.fromkeys(reasons))


def limits_frame(rows: dict[str, LimitsRow]) -> pd.DataFrame:
    """Return the table of limits."""
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["estimate", "lower", "upper", "reason"]
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The profile of one parameter.

    Attributes
    ----------
    parameter : which one
    coordinates : between kappa, which the path followed, and the parameter
    kappa, zeta, slope : (s,) points in order; slope is dzeta / dkappa
    criterion : (s,) minimum of the criterion there
    others : (s, P) all parameters of the fit there
    lower_reason, upper_reason : why it ends before the cutoff; None if it does not
    """

    parameter: Parameter
    coordinates: Coordinates
    kappa: Vector
    zeta: Vector
    slope: Vector
    criterion: Vector
    others: np.ndarray
    lower_reason: str | None
    upper_reason: str | None

    @cached_property
    def spline(self) -> CubicHermiteSpline:
        """Zeta as a function of kappa, through the points with their exact slopes."""
        return CubicHermiteSpline(self.kappa, self.zeta, self.slope, extrapolate=False)

    @property
    def values(self) -> Vector:
        """The parameter at the points, (s,)."""
        return np.array([self.coordinates.value(kappa) for kappa in self.kappa])

    def limit(self, target: float) -> tuple[float, str]:
        """Return where zeta is the target: first from the estimate outwards."""
        side = np.sign(target)
        start = float(self.kappa[np.flatnonzero(self.zeta == 0.0)[0]])
        roots = np.atleast_1d(self.spline.solve(target, extrapolate=False))
        roots = roots[(roots - start) * side > 0.0]
        if len(roots):
            nearest = float(roots[np.argmin(np.abs(roots - start))])
            return self.coordinates.value(nearest), ""
        reason = self.lower_reason if side < 0.0 else self.upper_reason
        at_zero = side < 0.0 and self.kappa[0] == 0.0 == self.coordinates.lower
        return (0.0 if at_zero else np.nan), reason or "the profile does not reach it"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Profile:
    """The profiles of the parameters of a fit.

    Attributes
    ----------
    method : the criterion that was profiled, REML or ML
    formula : of the model
    names : all parameters of the fit, in the order of the columns of `to_frame`
    curves : of the parameters that were profiled, by name
    missing : parameters that have no profile, and why
    cutoff : of |zeta|, up to which they were followed
    """

    method: str
    formula: str
    names: tuple[str, ...]
    curves: dict[str, Curve]
    missing: dict[str, str]
    cutoff: float

    def __repr__(self) -> str:
        return f"<Profile of {self.formula!r}: {', '.join(self.curves) or 'nothing'}>"

    def curve(self, parameter: str) -> Curve:
        """Return the curve of a parameter, by its name or lme4's.

        Raises
        ------
        InferenceError : it was not profiled
        """
        by_lme4 = {c.parameter.lme4_name: c for c in self.curves.values()}
        found = self.curves.get(parameter) or by_lme4.get(parameter)
        if found is None:
            if parameter in self.missing:
                raise InferenceError(
                    f"{parameter!r} has no profile: {self.missing[parameter]}."
                )
            raise InferenceError(
                f"{parameter!r} was not profiled.",
                hint=suggest(parameter, self.curves, "Profiled"),
            )
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return all points.

        Returns
        -------
        frame : ``parameter, lme4_name, zeta, value, criterion``, then every parameter
            of the fit at the point
        """
        parts: list[pd.DataFrame] = []
        for name, curve in self.curves.items():
            head = pd.DataFrame(
                {
                    "parameter": name,
                    "lme4_name": curve.parameter.lme4_name,
                    "zeta": curve.zeta,
                    "value": curve.values,
                    "criterion": curve.criterion,
                }
            )
            rest = pd.DataFrame(curve.others, columns=list(self.names))
            parts.append(pd.concat([head, rest], axis=1))
        if not parts:
            columns = ["parameter", "lme4_name", "zeta", "value", "criterion"]
            return pd.DataFrame(columns=[*columns, *self.names])
        return pd.concat(parts, ignore_index=True)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Return profile likelihood intervals.

        Returns
        -------
        frame : ``estimate, lower, upper, reason`` by parameter; reason says why a
            limit is one-sided or NaN, and is empty otherwise

        Raises
        ------
        InferenceError : the level is beyond what was profiled
        """
        quantile = normal_quantile(level)
        if quantile > self.cutoff:
            raise InferenceError(
                f"The profile goes to |zeta| = {self.cutoff:.3g}; level {level} "
                f"needs {quantile:.3g}.",
                hint="Profile with a higher level.",
            )
        rows = {
            name: limits_row(
                curve.parameter.estimate, curve.limit(-quantile), curve.limit(quantile)
            )
            for name, curve in self.curves.items()
        }
        for name, reason in self.missing.items():
            rows[name] = limits_row(np.nan, (np.nan, reason), (np.nan, reason))
        order = [name for name in self.names if name in rows]
        order += [name for name in rows if name not in order]
        return limits_frame({name: rows[name] for name in order})

    def zeta(self, parameter: str, values: object = None) -> pd.Series:
        """Return zeta at values of a parameter, NaN outside the profile.

        Without values, at the points of the profile. Indexed by value.
        """
        curve = self.curve(parameter)
        if values is None:
            return pd.Series(curve.zeta, index=curve.values, name=parameter)
        at = np.atleast_1d(np.asarray(values, dtype=np.float64))
        with np.errstate(invalid="ignore"):
            kappa = np.array([curve.coordinates.kappa(value) for value in at])
        return pd.Series(curve.spline(kappa), index=at, name=parameter)

    def density(self, parameter: str, n: int = 101) -> pd.DataFrame:
        """Return the density that zeta would carry over from the standard normal.

        phi(zeta(v)) dzeta/dv at n values v over the profile. It integrates to one
        less what lies beyond the ends; a standard deviation that can be zero has
        the rest of its mass there.

        Returns
        -------
        frame : ``value, density``
        """
        if n < 2:
            raise InferenceError(f"n is {n}; a density needs at least 2 points.")
        curve = self.curve(parameter)
        value = np.linspace(curve.values[0], curve.values[-1], n)
        kappa = np.array([curve.coordinates.kappa(v) for v in value])
        kappa = np.clip(kappa, curve.kappa[0], curve.kappa[-1])
        stretch = np.array([curve.coordinates.stretch(k) for k in kappa])
        phi = np.exp(-0.5 * curve.spline(kappa) ** 2) / np.sqrt(2.0 * np.pi)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = phi * curve.spline(kappa, 1) / stretch
        return pd.DataFrame({"value": value, "density": density})

    def pairs(self, one: str, two: str) -> pd.DataFrame:
        """Return the profile traces of two parameters.

        Along the profile of each, where the other is at the conditional minimum, as
        values and as zeta of its own profile (NaN beyond that): the two lines of a
        panel of a profile pairs plot.

        Returns
        -------
        frame : ``along, value_1, value_2, zeta_1, zeta_2``
        """
        parts: list[pd.DataFrame] = []
        for along in (one, two):
            curve = self.curve(along)
            columns: dict[str, object] = {"along": along}
            for i, name in enumerate((one, two), start=1):
                other = self.curve(name)
                values = curve.others[:, self.names.index(other.parameter.name)]
                columns[f"value_{i}"] = values
                columns[f"zeta_{i}"] = (
                    curve.zeta if other is curve else self.zeta(name, values).to_numpy()
                )
            parts.append(pd.DataFrame(columns))
        frame = pd.concat(parts, ignore_index=True)
        return frame[["along", "value_1", "value_2", "zeta_1", "zeta_2"]]
