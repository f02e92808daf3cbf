"""Refuse priors under which the posterior is no distribution.

A proper prior gives a proper posterior wherever n > p: the restricted likelihood is
bounded. Let a subset A of the standard deviations grow with lambda, their prior density
being lambda^(c - 1) for each: c = 1 where it is flat on the standard deviation, 2 on
the variance, 0 on the logarithm. The likelihood falls as lambda^-rank(A), with rank(A)
that of the columns of Z that belong to A once X is projected out, or n - p if A has the
residual. The posterior is proper if and only if for each A

    sum of c over A < rank(A)

and at zero c > 0, but for the residual, where the distance of y from [X, Z] forbids
zero. For one random term these are the conditions of Hobert and Casella (1996, J. Am.
Stat. Assoc. 91, 1461): a flat standard deviation of m groups needs m - 1 > 1 (Gelman
2006), a flat variance m - 1 > 2.

Coefficients a of one term that grow together may do so along d < a directions only:
correlation matrices so close to singular have a mass that falls as lambda to the power
(a - d) (a - d + 1) + 2 (a - d) (eta - 1) under |R|^(eta - 1), which is taken from the
sum, and the rank is that of d directions in general position. Flat on the covariance
(k, k), c = k + 1 and eta = 1: of m groups, m - 1 > 2 k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from mixform._typing import Matrix
from mixform.design import Design, RandomBlock
from mixform.errors import DesignError
from mixform.estimate.bayes.resolved import Priors
from mixform.priors import Flat

#: Improper priors whose subsets are gone through.
MOST = 10
#: Entries of the largest Z whose rank is worked out.
LARGEST = 4_000_000
POWERS = {"sd": 1.0, "variance": 2.0, "covariance": 2.0, "log": 0.0}


@dataclass(frozen=True, slots=True)
class _Improper:
    """A standard deviation with an improper prior; its column of a random term."""

    name: str
    prior: Flat
    power: float
    block: int
    column: int


@dataclass(frozen=True, slots=True)
class _Growing:
    """Columns of one random term that grow along some directions only."""

    block: int
    columns: tuple[int, ...]
    directions: int
    cost: float


def require_proper(design: Design, priors: Priors) -> None:
    """Refuse an improper posterior.

    Raises
    ------
    DesignError : with the condition that fails
    """
    improper = _improper_terms(priors)
    for one in improper:
        if one.prior.on == "log":
            raise DesignError(
                f"The posterior is improper: {one.name} cannot have the prior "
                f"{one.prior}, which has infinite mass at zero, where the likelihood "
                "is positive.",
                hint='Use half_t(), or flat("sd").',
            )
    if len(improper) > MOST:
        raise DesignError(
            f"{len(improper)} standard deviations have improper priors; whether the "
            f"posterior is proper is decided for up to {MOST}.",
            hint="Give some of them half_t().",
        )
    if isinstance(priors.residual, Flat) and priors.residual.on == "log":
        _require_error(design)
    for names, power, rank in _conditions(design, priors, improper):
        if power >= rank:
            _refuse(names, power, rank)


def infinite_moments(design: Design, priors: Priors) -> list[tuple[str, str, int]]:
    """Return what has an infinite posterior mean or standard deviation.

    The r-th moment is one more power: it is finite only if c + r < rank.

    Returns
    -------
    name, "mean" or "standard deviation", and rank
    """
    worst: dict[str, tuple[float, int]] = {}
    for names, power, rank in _conditions(design, priors, _improper_terms(priors)):
        for name in names:
            worst[name] = max((power - rank, rank), worst.get(name, (-np.inf, 0)))
    return [
        (
            name.replace("cov(", "standard deviations in cov("),
            "mean" if excess + 1.0 >= 0.0 else "standard deviation",
            rank,
        )
        for name, (excess, rank) in worst.items()
        if excess + 2.0 >= 0.0
    ]


def _conditions(
    design: Design, priors: Priors, improper: Sequence[_Improper]
) -> Iterator[tuple[list[str], float, int]]:
    """Yield for each subset that may grow its names, sum of c, and rank or a bound."""
    n, p = design.fixed.Q.shape
    residual = priors.residual
    own = POWERS[residual.on] if isinstance(residual, Flat) else 0.0
    for size in range(len(improper) + 1):
        for subset in combinations(improper, size):
            power = sum(one.power for one in subset)
            names = [one.name for one in subset]
            if isinstance(residual, Flat):
                yield [*names, "sigma"], power + own, n - p
            for ways in product(*_ways(subset, priors)):
                left = power - sum(way.cost for way in ways)
                if ways:
                    yield names, left, _rank(design, ways, left + 2.0)


def _improper_terms(priors: Priors) -> list[_Improper]:
    out: list[_Improper] = []
    for j, term in enumerate(priors.terms):
        if isinstance(term.covariance, Flat):
            out += [
                _Improper(f"cov({term.label})", term.covariance, term.k + 1.0, j, c)
                for c in range(term.k)
            ]
            continue
        for c, (name, prior) in enumerate(zip(term.names, term.sds, strict=False)):
            if isinstance(prior, Flat):
                out.append(_Improper(name, prior, POWERS[prior.on], j, c))
    return out


def _ways(subset: tuple[_Improper, ...], priors: Priors) -> list[list[_Growing]]:
    """Return for each random term in how many directions its coefficients may grow."""
    out: list[list[_Growing]] = []
    for j in sorted({one.block for one in subset}):
        columns = tuple(one.column for one in subset if one.block == j)
        term, a = priors.terms[j], len(columns)
        eta = 1.0 if term.correlation is None else term.correlation.eta
        out.append(
            [
                _Growing(j, columns, d, (a - d) * (a - d + 1 + 2.0 * (eta - 1.0)))
                for d in range(1 if term.coupled else a, a + 1)
            ]
        )
    return out


def _rank(design: Design, ways: tuple[_Growing, ...], enough: float) -> int:
    """Return the rank of the columns of Z beyond X, or a bound above enough.

    Each level with a row counts for one, and X takes away at most p.
    """
    p = design.fixed.Q.shape[1]
    levels = max(_seen(design.blocks[way.block], way.columns[0]) for way in ways)
    if levels - p > enough:
        return levels - p
    rng = np.random.default_rng(0)
    parts: list[Matrix] = []
    for way in ways:
        block = design.blocks[way.block]
        columns = np.stack([_columns(block, c) for c in way.columns], axis=2)
        size = np.abs(columns).max(axis=(0, 1))
        size[size == 0.0] = 1.0
        V = np.eye(len(way.columns))
        if way.directions < len(V):
            V = rng.standard_normal((len(V), way.directions))
        parts.append((columns / size @ V).reshape(len(columns), -1))
    Z = np.hstack(parts)
    if design.weights is not None:
        Z = Z * np.sqrt(design.weights)[:, None]
    Q = design.fixed.Q
    sizes = np.linalg.norm(Z, axis=0)
    Z = Z[:, sizes > 0.0] / sizes[sizes > 0.0]
    Z = Z - Q @ (Q.T @ Z)
    return int(np.linalg.matrix_rank(Z, tol=1e-8 * np.sqrt(max(Z.shape))))


def _seen(block: RandomBlock, column: int) -> int:
    """Return the number of levels with a row where the coefficient counts."""
    if block.relation is not None and block.relation.loading is not None:
        return 0  # a covariance may be singular: count nothing
    return len(np.unique(block.codes[block.design[:, column] != 0.0]))


def _columns(block: RandomBlock, column: int) -> Matrix:
    """Return the columns (n, m) of Z of one coefficient, times the loading if any."""
    relation = block.relation
    values = block.design[:, column]
    if relation is not None and relation.loading is not None:
        return relation.loading[block.codes] * values[:, None]
    codes = np.unique(block.codes, return_inverse=True)[1]
    out = np.zeros((len(values), int(codes.max()) + 1))
    out[np.arange(len(values)), codes] = values
    return out


def _require_error(design: Design) -> None:
    """Refuse p(sigma^2) = 1 / sigma^2 where X and Z fit any response exactly."""
    n, p = design.fixed.Q.shape
    q = sum(block.m * block.k for block in design.blocks)
    if p + q < n:
        return
    if n * q <= LARGEST:  # else there is no saying
        parts = [_columns(b, c) for b in design.blocks for c in range(b.k)]
        W = np.hstack([design.fixed.X, *parts])
        sizes = np.linalg.norm(W, axis=0)
        W = W[:, sizes > 0.0] / sizes[sizes > 0.0]
        if int(np.linalg.matrix_rank(W, tol=1e-8 * np.sqrt(max(W.shape)))) < n:
            return
    raise DesignError(
        'The posterior is improper: flat("log") of the residual has infinite mass at '
        "zero, where fixed and random effects can fit the response exactly.",
        hint='Use half_t(), or flat("sd").',
    )


def _refuse(names: list[str], power: float, rank: int) -> None:
    which = " and ".join(dict.fromkeys(names))
    raise DesignError(
        f"The posterior is improper: with a flat prior of {which} it has infinite mass "
        f"at large values. The data have {rank} contrasts that bear on it and must "
        f"have more than {power:g}.",
        hint='Use half_t(), or flat("sd") where it is flat on the variance.',
    )
