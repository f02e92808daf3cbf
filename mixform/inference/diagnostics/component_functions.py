"""Variances and covariances of random terms at values of their variables.

A term with coefficients b, Var(b) = Sigma, contributes x'b to a row whose covariates
are x: with x_1 and x_2 at two values,

    var = x'Sigma x,   cov = x_1'Sigma x_2,   cor = cov / sqrt(var_1 var_2)

For x the Legendre polynomials of age this is a covariance function (Kirkpatrick,
Lofsvold and Bulmer 1990, Genetics 124, 979), for ``0 + trait`` the (co)variances of
traits. Derivatives by the components come along with each value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest

#: Label of the residual variance; any capitals will do in an expression.
RESIDUAL = "Residual"

#: Functions of a whole term, or of all.
TERM_FUNCTIONS = ("var", "cov", "cor", "total")

#: A number and its derivatives by the components, (c,).
Dual = tuple[float, Vector]


def _plain_intercept(label: str, values: Mapping[str, object]) -> Vector:
    return np.ones(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """What an expression may name.

    Attributes
    ----------
    values : label -> value, in order; ``Subject`` or ``Subject[Intercept, Days]``
    columns : term -> names of its coefficients; the residual is among the terms if it
        has several variances
    variables : term -> what its coefficients are made of; none for an intercept
    covariates : (term, variable -> value) -> covariates (k,) of its coefficients
    """

    values: Mapping[str, float]
    columns: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    covariates: Callable[[str, Mapping[str, object]], Vector] = _plain_intercept


class TermFunctions:
    """Functions of whole terms.

    Parameters
    ----------
    components : what there is
    duals : label -> value and derivatives
    text : the call, for errors
    """

    def __init__(
        self, components: Components, duals: Mapping[str, Dual], text: str
    ) -> None:
        self.components = components
        self.duals = duals
        self.text = text

    def of_term(self, name: str, label: str, values: Mapping[str, object]) -> Dual:
        """Return var, cov or cor of a term.

        Parameters
        ----------
        values : variable -> value, or a pair of them for cov and cor

        Raises
        ------
        InferenceError : values are missing, too many, or not in pairs
        """
        pairs = any(isinstance(value, tuple) for value in values.values())
        if pairs is (name == "var"):
            raise InferenceError(
                f"{self.text}: {name} is at {'one value' if pairs else 'two values'}.",
                hint=f"Write var({label}, x=1), but cov({label}, x=(1, 2)).",
            )
        self._require_needed(values, self._variables(label))
        left, right = (self._covariates(label, _one_of(values, i)) for i in (0, 1))
        between, slope = self._bilinear(label, left, right)
        if name != "cor":
            return between, slope
        (a, da), (b, db) = (self._bilinear(label, x, x) for x in (left, right))
        if not (a > 0.0 and b > 0.0):
            raise InferenceError(f"{self.text} has no value: a variance is 0.")
        size = np.sqrt(a * b)
        value = between / size
        return float(value), slope / size - 0.5 * value * (da / a + db / b)

    def total(self, values: Mapping[str, object]) -> Dual:
        """Return the sum of the variances of all terms and the residual.

        Raises
        ------
        InferenceError : a variable of a term has no value, or a value no variable
        """
        if RESIDUAL not in {*self.components.columns, *self.duals}:
            raise InferenceError(
                f"{self.text}: the residual variance differs by stratum.",
                hint="Add the variances up: var(animal) + `Residual:a`.",
            )
        labels = list(dict.fromkeys([*self.components.columns, RESIDUAL]))
        self._require_needed(values, {n for x in labels for n in self._variables(x)})
        if any(isinstance(value, tuple) for value in values.values()):
            raise InferenceError(f"{self.text}: total is at one value, not at pairs.")
        sums = 0.0, np.zeros(len(self.duals))
        for label in labels:
            own = {n: values[n] for n in self._variables(label) if n in values}
            x = self._covariates(label, own)
            part = self._bilinear(label, x, x)
            sums = sums[0] + part[0], sums[1] + part[1]
        return sums

    def _variables(self, label: str) -> tuple[str, ...]:
        return self.components.variables.get(label, ())

    def _require_needed(
        self, values: Mapping[str, object], needed: Collection[str]
    ) -> None:
        for name in values:
            if name not in needed:
                raise InferenceError(
                    f"{self.text}: no random coefficient there is of {name!r}.",
                    hint=suggest(name, sorted(needed), "Variables")
                    if needed
                    else "They are plain intercepts: leave it out.",
                )

    def _covariates(self, label: str, values: Mapping[str, object]) -> Vector:
        needed = self._variables(label)
        absent = [name for name in needed if name not in values]
        if absent:
            raise InferenceError(
                f"{self.text} needs a value of {absent[0]!r}, of which the "
                f"coefficients of {label!r} are.",
                hint=f"Write {absent[0]}=..., a number or a level.",
            )
        return self.components.covariates(label, values)

    def _bilinear(self, label: str, left: Vector, right: Vector) -> Dual:
        """Return left' Sigma right."""
        columns = self.components.columns.get(label, ("Intercept",))
        value, gradient = 0.0, np.zeros(len(self.duals))
        for i, one in enumerate(columns):
            for j, two in enumerate(columns):
                name = _entry(label, columns, (one, two) if i <= j else (two, one))
                # Independent coefficients have no component.
                entry, slope = self.duals.get(name, (0.0, 0.0))
                value += left[i] * right[j] * entry
                gradient = gradient + left[i] * right[j] * slope
        return float(value), gradient


def _entry(label: str, columns: tuple[str, ...], pair: tuple[str, str]) -> str:
    if len(columns) == 1:
        return label
    return (
        f"{label}[{pair[0]}]" if pair[0] == pair[1] else f"{label}[{', '.join(pair)}]"
    )


def _one_of(values: Mapping[str, object], side: int) -> dict[str, object]:
    """Return the values with the first or second of each pair."""
    return {n: v[side] if isinstance(v, tuple) else v for n, v in values.items()}
