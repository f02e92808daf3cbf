"""The variances that a user gives: read, checked, and what they rule out later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.covariance import STRUCTURES
from mixform.design import Design, RandomBlock
from mixform.design.random import block_labels
from mixform.errors import DesignError, InferenceError, suggest
from mixform.estimate.fit import Fit
from mixform.estimate.held import Given
from mixform.residual.model import ResidualModel, build_residual_model

RESIDUAL = "residual"


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """A (co)variance relative to the residual variance, sigma_a^2 / sigma_e^2.

    The inverse of the alpha, or lambda, of animal breeders.

    Attributes
    ----------
    value : number, or matrix (k, k)
    """

    value: object

    def __repr__(self) -> str:
        return f"ratio({self.value!r})"


def ratio(value: object) -> Ratio:
    """Return a (co)variance relative to the residual variance, for ``varcomp=``.

    ``varcomp=`` of `fit` holds variances, all or some, by label of the random term: a
    number, a covariance (k, k) of a term with k coefficients (a frame is put in the
    order of the coefficients by its labels), or a ratio. ``"residual"`` is the residual
    variance, or with ``residual="us(...)"`` or ``"diag(...)"`` a covariance over the
    positions, by stratum in a mapping. What is not named is estimated.

    Parameters
    ----------
    value : number, or matrix (k, k) for a term with k coefficients

    Examples
    --------
    >>> ratio(0.5)  # V_e is twice V_a
    ratio(0.5)
    """
    return Ratio(deepcopy(value))


def require_estimated(fit: Fit, what: str) -> None:
    """Refuse what is about estimated variances.

    Raises
    ------
    InferenceError : the variances of the fit were given, or come from mean squares
    """
    require_likelihood(fit, what)
    if fit.known:
        raise InferenceError(
            f"{what} is about estimated variances; those of this fit were given.",
            hint="Fit the model without varcomp=.",
        )


def require_likelihood(fit: Fit, what: str) -> None:
    """Refuse what is about a likelihood that was maximized.

    Raises
    ------
    InferenceError : the fit is by analysis of variance
    """
    if fit.anova is not None:
        raise InferenceError(
            f"{what} needs a likelihood that was maximized; these variances come from "
            "mean squares.",
            hint='Fit the model with method="REML", as update(method="REML") does.',
        )


def require_free(fit: Fit, what: str) -> None:
    """Refuse what is for fits in which every variance is estimated.

    Raises
    ------
    InferenceError : some variances of the fit were given
    """
    require_estimated(fit, what)
    if fit.held:
        raise InferenceError(
            f"{what} needs all variances estimated; those of {', '.join(fit.held)} "
            "were given.",
            hint="Fit the model without varcomp=.",
        )


def given_for(fit: Fit, design: Design) -> Given | None:
    """Return what a refit of another design with the same random terms holds.

    Raises
    ------
    InferenceError : all variances of the fit were given; some, and the random terms
        are others
    """
    require_estimated(fit, "A refit")
    if block_labels(design.blocks) != block_labels(fit.design.blocks):
        require_free(fit, "A refit with other random terms")
    return fit.given


def require_same_held(one: Fit, two: Fit) -> None:
    """Refuse to compare fits in which other variances are held.

    Raises
    ------
    InferenceError : all variances were given; terms that are held in one only, or at
        other values
    """
    for fit in (one, two):
        require_estimated(fit, "A likelihood-ratio test")
    if _held_values(one) == _held_values(two):
        return
    shown = [", ".join(fit.held) or "none" for fit in (one, two)]
    raise InferenceError(
        f"The models hold different variances: {shown[0]}; {shown[1]}.",
        hint="Give the same varcomp= to all of them.",
    )


def _held_values(fit: Fit) -> dict[str, object]:
    given = fit.given
    if given is None:
        return {}
    labels = block_labels(fit.design.blocks)
    pairs = zip(labels, given.Sigma, given.ratio, strict=True)
    values: dict[str, object] = {
        name: [None if part is None else part.tolist() for part in (one, two)]
        for name, one, two in pairs
        if (one is not None) or (two is not None)
    }
    rho = None if given.rho is None else given.rho.tolist()
    return {**values, RESIDUAL: (given.sigma2, rho)}


def read_variances(design: Design, varcomp: Mapping[str, object]) -> Given | None:
    """Return the variances that are held; None if there are none.

    Parameters
    ----------
    varcomp : variance, covariance (k, k) or `Ratio`, by label of the random term; and
        "residual": a variance, or for a residual structure the covariance of its
        positions, or one for each stratum by its label

    Raises
    ------
    DesignError : an unknown term; a value is no (co)variance, or none of the term's
        structure
    """
    if not isinstance(varcomp, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DesignError(
            f"varcomp is a {type(varcomp).__name__}, not a mapping.",
            hint='Write varcomp={"animal": 20.0, "residual": 40.0}.',
        )
    if not varcomp:
        return None
    labels = (*block_labels(design.blocks), RESIDUAL)
    values = {RESIDUAL if n == "Residual" else n: v for n, v in varcomp.items()}
    for name in values:
        if name not in labels:
            raise DesignError(
                f"varcomp names {name!r}, which is no random term.",
                hint=suggest(str(name), labels, "Terms"),
            )
    sigma2, rho = None, None
    if RESIDUAL in values:
        sigma2, rho = _residual(design, values[RESIDUAL])
    Sigma: list[Matrix | None] = []
    ratios: list[Matrix | None] = []
    for name, block in zip(labels, design.blocks, strict=False):
        one, two = None, None
        if name in values:
            value = values[name]
            relative = isinstance(value, Ratio)
            given = _covariance(name, value.value if relative else value, block)
            if relative and sigma2 is None:
                two = given
            else:
                one = given * sigma2 if relative and sigma2 is not None else given
        Sigma.append(one)
        ratios.append(two)
    return Given(
        names=tuple(name for name in labels if name in values),
        Sigma=tuple(Sigma),
        ratio=tuple(ratios),
        sigma2=sigma2,
        rho=rho,
    )


def _residual(design: Design, value: object) -> tuple[float, Vector | None]:
    """Return sigma^2, and the parameters (r,) of the residual structure if given."""
    if isinstance(value, Ratio):
        raise DesignError(
            "The residual variance in varcomp is a ratio, which is relative to itself.",
            hint="Leave it out: it is then estimated.",
        )
    plain = not isinstance(value, Mapping) and np.ndim(cast("Matrix", value)) < 2
    if plain or design.residual is None:
        number = _numbers(RESIDUAL, value)
        if number.shape != (1, 1) or not number[0, 0] > 0.0:
            raise DesignError(
                "The residual variance in varcomp is not a positive number."
            )
        return float(number[0, 0]), None
    return _structured(build_residual_model(design.residual), value)


def _structured(model: ResidualModel, value: object) -> tuple[float, Vector]:
    """Return sigma^2 and rho (r,) of given residual covariances."""
    strata = model.layout.strata
    if not isinstance(value, Mapping):
        value = dict.fromkeys(strata, value)
    matrices = {
        str(name): one for name, one in cast("dict[str, object]", value).items()
    }
    if set(matrices) != set(strata):
        raise DesignError(
            "varcomp must give the residual covariance of each stratum: "
            f"{', '.join(strata)}.",
            hint=f"It gives {', '.join(matrices)}.",
        )
    if model.dispersion_names:
        raise DesignError(
            "A residual covariance cannot be held together with dispersion=.",
            hint="Hold the residual variance alone, a number.",
        )
    whole = [_over_positions(model, s, matrices[name]) for s, name in enumerate(strata)]
    sigma2 = float(whole[0][0, 0])
    rho = np.zeros(model.n_parameters)
    for s, R in enumerate(whole):
        sd = np.sqrt(R.diagonal() / sigma2)
        places = model.eta[s]
        own = places >= 0
        rho[places[own]] = np.log(sd)[own]
        C = R / np.sqrt(np.outer(R.diagonal(), R.diagonal()))
        lower = C[np.tril_indices(len(C), -1)]
        family = model.structure.family
        if model.x[s].stop > model.x[s].start:
            rho[model.x[s]] = family.internal(lower, len(C))
    return sigma2, rho


def _over_positions(model: ResidualModel, s: int, value: object) -> Matrix:
    """Return the covariance (size, size) given for the positions of a stratum."""
    name = model.structure.name
    labels = model.layout.grids[s].labels
    if name not in ("us", "diag"):
        raise DesignError(
            f"A residual covariance matrix cannot be held for {name!r}, whose "
            "parameters it does not determine.",
            hint="Use us(), or hold the variance alone, a number.",
        )
    R = _numbers(RESIDUAL, _in_order(RESIDUAL, value, labels))
    if R.shape != (len(labels), len(labels)):
        raise DesignError(
            f"The residual covariance has shape {R.shape}, but there are {len(labels)} "
            f"positions: {', '.join(labels)}.",
            hint="Give a matrix over the positions, in this order.",
        )
    _require_semidefinite(RESIDUAL, R)
    if not np.linalg.eigvalsh(R)[0] > 1e-12 * float(np.abs(R).max()):
        raise DesignError("The residual covariance is singular.")
    if name == "diag" and np.any(np.diag(R.diagonal()) != R):
        raise DesignError(
            "diag has independent residuals, but the residual covariance is not "
            "diagonal."
        )
    return R


def _numbers(name: str, value: object) -> Matrix:
    try:
        numbers = np.atleast_2d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise DesignError(f"The variance of {name!r} is not numeric.") from None
    if not np.all(np.isfinite(numbers)):
        raise DesignError(f"The variance of {name!r} is not finite.")
    return cast("Matrix", numbers)


def _in_order(name: str, value: object, labels: Sequence[str]) -> object:
    """Return a frame's covariances in the order of the labels; others as they are."""
    if not isinstance(value, pd.DataFrame):
        return value
    short = [
        label.rpartition("[")[2].rstrip("]").removeprefix("T.") for label in labels
    ]
    rows, columns = list(map(str, value.index)), list(map(str, value.columns))
    for names in (list(labels), short):
        if sorted(rows) == sorted(columns) == sorted(names):
            by_row = [rows.index(one) for one in names]
            by_column = [columns.index(one) for one in names]
            return value.to_numpy()[np.ix_(by_row, by_column)]
    raise DesignError(
        f"The covariance of {name!r} is labelled {', '.join(rows)} by "
        f"{', '.join(columns)}.",
        hint=f"Label it {', '.join(labels)}, or give an array in this order.",
    )


def _covariance(name: str, value: object, block: RandomBlock) -> Matrix:
    Sigma = _numbers(name, _in_order(name, value, block.columns))
    k = block.k
    if Sigma.shape != (k, k):
        raise DesignError(
            f"The variance of {name!r} has shape {Sigma.shape}, but the term has {k} "
            f"coefficient{'s' if k > 1 else ''}.",
            hint=f"Give a covariance matrix of {', '.join(block.columns)}."
            if k > 1
            else "Give one number.",
        )
    _require_semidefinite(name, Sigma)
    structure = STRUCTURES[block.term.structure]
    if structure.curved or structure.rank(k) < k:
        raise DesignError(
            f"The covariance of {name!r} cannot be held in the structure "
            f"{block.term.structure!r}.",
            hint="Write us(...): a covariance that is held needs no structure.",
        )
    if not structure.couples and np.any(Sigma != np.diag(Sigma.diagonal())):
        raise DesignError(
            f"{block.term.source} has independent coefficients, but the covariance of "
            f"{name!r} is not diagonal."
        )
    return Sigma


def _require_semidefinite(name: str, Sigma: Matrix) -> None:
    if not np.allclose(Sigma, Sigma.T, rtol=1e-10, atol=0.0):
        raise DesignError(f"The covariance of {name!r} is not symmetric.")
    smallest = float(np.linalg.eigvalsh(Sigma)[0])
    if smallest < -1e-12 * float(np.abs(Sigma).max()):
        raise DesignError(
            f"The covariance of {name!r} is indefinite: its smallest eigenvalue is "
            f"{smallest:.4g}."
        )
