"""Draws from a fitted model: y* = X beta + Z b* + offset + e*.

Goes in: a fit, or its parameters changed; the data of the fit or new data. Comes out:
responses. Draws come in chunks, each with a random stream of its own, so that they do
not depend on who works on which chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from mixform._typing import AnyArray, Matrix, Vector
from mixform.design import Relation
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.new_residuals import new_errors
from mixform.inference.new_rows import NewRows
from mixform.inference.prediction import chosen_blocks, normalized_residuals
from mixform.residual.model import Residual

#: Draws of one stream, and random numbers after which a stream ends earlier.
CHUNK = 500
CHUNK_NUMBERS = 5e6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parameters:
    """The parameters that responses are drawn with, in the user's units.

    Attributes
    ----------
    beta : (p,) fixed effects
    sigma : residual standard deviation
    T : relative covariance factor (k, k) of each random term
    rho : (r,) parameters of the residual structure
    """

    beta: Vector
    sigma: float
    T: tuple[Matrix, ...]
    rho: Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnTerm:
    """A random term of the rows: effects that are drawn anew, or kept.

    Attributes
    ----------
    Z : (n, m * k) sparse
    T : (k, k), Var(b of a level) = T T'
    kept : (m, k) effects that are not drawn; NaN for those that are
    relation : of the levels; None if they are independent
    """

    Z: csr_array
    T: Matrix
    kept: Matrix
    relation: Relation | None = None

    def effects(self, normal: Matrix) -> Matrix:
        """Return effects (count, m, k) of standard normal numbers of that shape."""
        drawn = normal @ self.T.T
        if self.relation is not None:
            count, m, k = drawn.shape
            flat = drawn.transpose(1, 0, 2).reshape(m, count * k)
            related = self.relation.half(flat).reshape(m, count, k)
            drawn = related.transpose(1, 0, 2)
        return np.where(np.isnan(self.kept), drawn, self.kept)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulator:
    """What a draw needs of the rows.

    Attributes
    ----------
    mean : (n,) X beta + offset
    terms : the random terms
    scale : (n,) residual standard deviations, those of a residual structure left out
    residuals : standardized residuals to draw from; None for normal ones
    structure : R of the rows; None if residuals are independent
    """

    mean: Vector
    terms: tuple[DrawnTerm, ...]
    scale: Vector
    residuals: Vector | None = None
    structure: Residual | None = None

    @property
    def chunk(self) -> int:
        """Draws of one stream."""
        numbers = len(self.mean) + sum(term.kept.size for term in self.terms)
        return int(np.clip(CHUNK_NUMBERS / max(numbers, 1), 1, CHUNK))

    def draw(self, stream: np.random.SeedSequence, count: int) -> Matrix:
        """Return ``count`` responses, (n, count)."""
        rng = np.random.default_rng(stream)
        n, effects = len(self.mean), [term.kept.size for term in self.terms]
        normal = rng.standard_normal((count, sum(effects) + n))
        ends = np.cumsum([0, *effects])
        e = normal[:, ends[-1] :]
        if self.residuals is not None:
            e = rng.choice(self.residuals, size=(count, n))
        if self.structure is not None:
            e = self.structure.color(e.T).T
        Y = self.mean[:, None] + (e * self.scale).T
        for term, start, end in zip(self.terms, ends[:-1], ends[1:], strict=True):
            drawn = normal[:, start:end].reshape(count, *term.kept.shape)
            Y += term.Z @ term.effects(drawn).reshape(count, -1).T
        return Y


def parameters(fit: Fit) -> Parameters:
    """Return the estimates of a fit."""
    return Parameters(beta=fit.beta, sigma=fit.sigma, T=fit.T, rho=fit.rho)


def simulate(
    fit: Fit,
    nsim: int = 1,
    *,
    seed: object = None,
    newdata: object = None,
    use_u: bool | str | Sequence[str] = False,
) -> pd.DataFrame:
    """Draw responses from the fitted model.

    Parameters
    ----------
    nsim : number of draws
    seed : None, an integer, `numpy.random.SeedSequence` or `numpy.random.Generator`
    newdata : a table with the model's columns; None for the rows in the model. Levels
        that the fit has not seen get effects of their own; residuals of a subject are
        correlated with each other, not with those of the fit
    use_u : False draws new random effects, True keeps the estimated ones, names of
        grouping factors or terms keep those

    Returns
    -------
    frame : ``sim_1, sim_2, ...`` with the index of the rows; NaN where newdata lack a
        needed value

    Raises
    ------
    InferenceError : nsim below 1, unusable seed, unknown random term
    """
    nsim = require_count(nsim)
    if newdata is None:
        simulator = simulator_of(fit, parameters(fit), use_u=use_u)
        index, complete = fit.design.row_index, None
    else:
        every = range(len(fit.design.blocks))
        rows = NewRows(fit, newdata, every, errors="covariances")
        simulator = new_simulator(fit, parameters(fit), rows, use_u=use_u)
        index, complete = rows.index, rows.complete
    draws = [simulator.draw(*chunk) for chunk in chunks(simulator, nsim, seed)]
    values = np.hstack(draws)
    if complete is not None and not complete.all():
        values, found = np.full((len(index), nsim), np.nan), values
        values[complete] = found
    names = [f"sim_{i}" for i in range(1, nsim + 1)]
    return pd.DataFrame(values, index=index, columns=names)


def simulator_of(
    fit: Fit,
    truth: Parameters,
    *,
    use_u: bool | str | Sequence[str] = False,
    resample: bool = False,
) -> Simulator:
    """Return what draws for the rows in the model need.

    Parameters
    ----------
    use_u : random terms whose estimates are kept
    resample : draw from the fit's residuals, centered and of variance sigma^2; with a
        residual structure from normalized ones
    """
    design = fit.design
    kept = set(chosen_blocks(fit, use_u))
    terms = tuple(
        DrawnTerm(
            Z=_sparse(block.codes, block.design, block.m),
            T=truth.sigma * truth.T[j],
            kept=fit.b[j] if j in kept else np.full((block.m, block.k), np.nan),
            relation=block.relation,
        )
        for j, block in enumerate(design.blocks)
    )
    mean = design.fixed.X @ truth.beta
    scale = np.full(len(mean), truth.sigma)
    residuals = None
    if resample:
        rest = normalized_residuals(fit)
        rest = rest - rest.mean()
        residuals = rest / np.sqrt(np.mean(rest**2))
    return Simulator(
        mean=mean if design.offset is None else mean + design.offset,
        terms=terms,
        scale=scale if design.weights is None else scale / np.sqrt(design.weights),
        residuals=residuals,
        structure=structure_of(fit, truth.rho),
    )


def structure_of(fit: Fit, rho: Vector) -> Residual | None:
    """Return R of the rows of the fit at residual parameters (r,)."""
    rows = fit.evaluation.problem.rows
    return None if rows is None else rows.model.at(rho)


def new_simulator(
    fit: Fit,
    truth: Parameters,
    rows: NewRows,
    *,
    use_u: bool | str | Sequence[str] = False,
) -> Simulator:
    """Return what draws for the complete rows of new data need."""
    kept = set(chosen_blocks(fit, use_u))
    terms: list[DrawnTerm] = []
    for j, block in enumerate(fit.design.blocks):
        codes, labels, design = rows.random(j)
        new = codes < 0
        if block.relation is not None and new.any():
            raise InferenceError(
                f"{labels[new][0]!r} is not in the relationship of "
                f"{block.term.group_label!r}.",
                hint="Add it to the relationship and fit again.",
            )
        codes = codes.copy()
        codes[new], unseen = pd.factorize(labels[new])
        codes[new] += block.m
        effects = np.full((block.m + len(unseen), block.k), np.nan)
        if j in kept:
            effects[: block.m] = fit.b[j]
        T = truth.sigma * truth.T[j]
        Z = _sparse(codes, design, len(effects))
        terms.append(DrawnTerm(Z=Z, T=T, kept=effects, relation=block.relation))
    errors = new_errors(fit, rows)
    return Simulator(
        mean=rows.X() @ truth.beta + rows.offset(),
        terms=tuple(terms),
        scale=truth.sigma / np.sqrt(errors.weights),
        structure=None if errors.placement is None else errors.placement.own(truth.rho),
    )


def chunks(
    simulator: Simulator, nsim: int, seed: object
) -> Iterator[tuple[np.random.SeedSequence, int]]:
    """Yield the stream and the number of draws of each chunk.

    Chunks depend on the model alone, so fewer draws are the first of more.
    """
    size = simulator.chunk
    starts = range(0, nsim, size)
    streams = seed_sequence(seed).spawn(len(starts))
    for start, stream in zip(starts, streams, strict=True):
        yield stream, min(size, nsim - start)


def seed_sequence(seed: object) -> np.random.SeedSequence:
    """Return the root of all random streams.

    A SeedSequence gives the same answer each time; a Generator moves on.

    Raises
    ------
    InferenceError : not a seed
    """
    if isinstance(seed, np.random.SeedSequence):
        return np.random.SeedSequence(
            entropy=seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size
        )
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence(seed.integers(0, 2**32, size=4).tolist())
    if seed is None:
        return np.random.SeedSequence()
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0:
        return np.random.SeedSequence(int(seed))
    raise InferenceError(
        f"The seed is {seed!r}.",
        hint="Give an integer from 0 on, a numpy SeedSequence or Generator, or None.",
    )


def require_count(nsim: object, name: str = "nsim") -> int:
    """Return a number of draws.

    Raises
    ------
    InferenceError : not a whole number, or below 1
    """
    whole = isinstance(nsim, int | np.integer) and not isinstance(nsim, bool)
    if not whole or int(nsim) < 1:  # pyright: ignore[reportArgumentType]
        raise InferenceError(
            f"{name} must be a whole number of at least 1, got {nsim!r}.",
            hint="1000 draws are usual.",
        )
    return int(nsim)  # pyright: ignore[reportArgumentType]


def _sparse(codes: AnyArray, design: Matrix, m: int) -> csr_array:
    """Return Z (n, m * k), row i holding ``design[i]`` at level ``codes[i]``."""
    n, k = design.shape
    places = np.asarray(codes)[:, None] * k + np.arange(k)
    starts = np.arange(0, n * k + 1, k)
    return csr_array((design.ravel(), places.ravel(), starts), shape=(n, m * k))
