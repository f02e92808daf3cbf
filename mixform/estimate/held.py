"""Variances that are held while others are estimated.

The search moves in T with Var(b) = sigma^2 T T'. What is held relative to sigma^2 has
no parameter left: T stands. So it is where sigma^2 itself is held. Where Sigma = H H'
is held and sigma is not, T = s H with s = 1 / sigma, one parameter that all such terms
share; sigma is then no longer profiled out, and the criterion is

    log dets + df log(2 pi sigma^2) + r^2(theta) / sigma^2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.covariance import Structure, semidefinite_cholesky
from mixform.covariance.structure import Coordinates, Natural
from mixform.errors import DesignError

#: Residual variance to start from where another is held, as shares of that of y.
LEAST_START = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """What the user gave, in the user's units.

    Attributes
    ----------
    names : of what is held, as `Fit.held` lists them
    Sigma : for each random term its covariance (k, k); None if it is not held, or
        held relative to the residual variance
    ratio : for each random term Sigma / sigma^2 (k, k), likewise
    sigma2 : residual variance; None if it is estimated
    rho : (r,) parameters of the residual structure; None if they are estimated
    """

    names: tuple[str, ...]
    Sigma: tuple[Matrix | None, ...]
    ratio: tuple[Matrix | None, ...]
    sigma2: float | None = None
    rho: Vector | None = None

    @property
    def blocks(self) -> tuple[bool, ...]:
        """Which random terms are held."""
        pairs = zip(self.Sigma, self.ratio, strict=True)
        return tuple(one is not None or two is not None for one, two in pairs)


class HeldFactor:
    """The factor of a held term: T = H, or T = s H with the one parameter s = 1/sigma.

    Attributes
    ----------
    H : (k, k) on the scaled problem, lower triangular
    tied : whether s is a parameter
    own : the structure that the term has in the formula
    """

    name = "held"
    scales_columns = True
    couples = False
    mixes = False
    linear = True
    curved = False
    coordinates: Coordinates = "none"
    least = 1

    def __init__(self, H: Matrix, *, tied: bool, own: Structure) -> None:
        self.H, self.tied, self.own = H, tied, own

    def placed(
        self, positions: Vector | None, options: Mapping[str, int]
    ) -> HeldFactor:
        return self

    def n_parameters(self, k: int) -> int:
        return int(self.tied)

    def start(self, k: int) -> Vector:
        return np.ones(int(self.tied))

    def factor(self, theta: Vector, k: int) -> Matrix:
        if self.tied:
            return theta[..., :, None] * self.H
        return np.broadcast_to(self.H, (*theta.shape[:-1], k, k))

    def derivatives(self, theta: Vector, k: int) -> Stack:
        return self.H[None] if self.tied else np.empty((0, k, k))

    def from_factor(self, T: Matrix) -> Vector:
        if not self.tied:
            return np.empty((*T.shape[:-2], 0))
        s = np.einsum("...ij,ij->...", T, self.H) / np.sum(self.H**2)
        return np.asarray(s)[..., None]

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        return self.from_factor(semidefinite_cholesky(Sigma, tolerance))

    def spanning(self, k: int) -> Stack:
        return np.empty((0, k, k))

    def rank(self, k: int) -> int:
        return k

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """What is held, on the scaled problem.

    Attributes
    ----------
    given : in the user's units
    sigma2 : residual variance, None if it is estimated
    tied : the first term with T = s H, None if there is none
    H : its H (k, k)
    slot : where s stands in theta
    s_start : of s
    """

    given: Given
    sigma2: float | None
    tied: int | None
    H: Matrix | None
    slot: int
    s_start: float

    @property
    def profiled(self) -> bool:
        """Whether sigma is profiled out of the criterion."""
        return self.sigma2 is None and self.tied is None

    def residual_variance(self, T: Sequence[Matrix]) -> float:
        """Return sigma^2 of the scaled problem where it is not profiled out."""
        if self.sigma2 is not None:
            return self.sigma2
        assert self.tied is not None, "sigma is not profiled out"
        assert self.H is not None, "there is a tied term"
        return (float(np.sum(self.H**2)) / float(np.sum(T[self.tied] * self.H))) ** 2


def hold(
    given: Given | None,
    own: tuple[Structure, ...],
    Z_scales: Sequence[Matrix],
    y_scale: float,
) -> tuple[tuple[Structure, ...], Held | None]:
    """Return the structures of the terms with held ones replaced, and the record.

    Parameters
    ----------
    own : structure of each term in the formula
    Z_scales, y_scale : as in `Problem`
    """
    if given is None:
        return own, None
    structures: list[Structure] = []
    tied: int | None = None
    first: Matrix | None = None
    share = 0.0
    for j, (structure, Sigma, ratio, C) in enumerate(
        zip(own, given.Sigma, given.ratio, Z_scales, strict=True)
    ):
        if Sigma is None and ratio is None:
            structures.append(structure)
            continue
        absolute = Sigma is not None and given.sigma2 is None and bool(np.any(Sigma))
        if Sigma is not None and not absolute:
            ratio = Sigma / given.sigma2 if given.sigma2 else np.zeros_like(Sigma)
        V = Sigma / y_scale**2 if absolute and Sigma is not None else ratio
        assert V is not None, "the term is held"
        scaled = C @ V @ C.T
        H = semidefinite_cholesky(scaled, 1e-14 * float(np.abs(scaled).max()))
        structures.append(HeldFactor(H, tied=absolute, own=structure))
        if absolute:
            tied, first = (j, H) if tied is None else (tied, first)
            share += float(np.trace(scaled))
    sigma2 = None if given.sigma2 is None else given.sigma2 / y_scale**2
    held = Held(
        given=given,
        sigma2=sigma2,
        tied=tied,
        H=first,
        slot=-1,
        s_start=1.0 / np.sqrt(max(LEAST_START, 1.0 - share)),
    )
    return tuple(structures), held


def slices_of(
    structures: Sequence[Structure], sizes: Sequence[int], held: Held | None
) -> tuple[tuple[slice, ...], Held | None]:
    """Return where each term's parameters stand in theta; tied terms share a place."""
    out: list[slice] = []
    end = 0
    slot = -1
    for structure, k in zip(structures, sizes, strict=True):
        if slot >= 0 and is_tied(structure):
            out.append(slice(slot, slot + 1))
            continue
        start, end = end, end + structure.n_parameters(k)
        out.append(slice(start, end))
        if is_tied(structure):
            slot = start
    return tuple(out), None if held is None else replace(held, slot=slot)


def is_tied(structure: Structure) -> bool:
    """Whether a term has T = s H."""
    return isinstance(structure, HeldFactor) and structure.tied


def is_held(structure: Structure) -> bool:
    """Whether a term's covariance is held."""
    return isinstance(structure, HeldFactor)


def own_structure(structure: Structure) -> Structure:
    """Return the structure that a term has in the formula."""
    return structure.own if isinstance(structure, HeldFactor) else structure


def require_given(
    structures: Sequence[Structure], held: Held | None, *, structured: bool
) -> None:
    """Refuse conjugate gradients where there is something to search for.

    Parameters
    ----------
    structured : whether the residuals have a structure

    Raises
    ------
    DesignError : a variance, or the residual structure, is to be estimated
    """
    if held is not None and held.tied is None and structures:
        given = all(is_held(structure) for structure in structures)
        if given and (not structured or held.given.rho is not None):
            return
    raise DesignError(
        "Conjugate gradients solve the equations of random terms at given variances; "
        "they cannot estimate any.",
        hint='Give all of them in varcomp=, or leave backend="cg" out.',
    )


def rescaled(
    structures: Sequence[Structure], held: Held, by: float
) -> tuple[tuple[Structure, ...], Held]:
    """Return the structures and the record when y is divided by ``by`` once more."""
    out = tuple(
        HeldFactor(one.H / by, tied=True, own=one.own)
        if isinstance(one, HeldFactor) and one.tied
        else one
        for one in structures
    )
    sigma2 = None if held.sigma2 is None else held.sigma2 / by**2
    H = None if held.H is None else held.H / by
    return out, replace(held, sigma2=sigma2, H=H)


def add_tied(
    columns: np.ndarray, axis: int, slices: Sequence[slice], n_theta: int
) -> np.ndarray:
    """Return ``columns`` with those of one parameter added up.

    Parameters
    ----------
    columns : along ``axis`` one entry for each parameter of each term
    slices : from `slices_of`
    """
    places = np.concatenate([np.arange(s.start, s.stop) for s in slices] or [[]])
    if len(places) == n_theta:
        return columns
    moved = np.moveaxis(columns, axis, 0)
    out = np.zeros((n_theta, *moved.shape[1:]))
    np.add.at(out, places, moved)
    return np.moveaxis(out, 0, axis)
