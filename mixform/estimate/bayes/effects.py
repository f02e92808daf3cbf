"""Exact draws of beta and u given the variances.

u* and e* are drawn from their distributions, y* = Z b* + e*, and

    (beta, u) = solution of Henderson's equations for y - y*, plus (0, u*)

has the posterior covariance sigma^2 C~^-1, whatever the relationship of the levels
(Garcia-Cortes and Sorensen 1996, Genet. Sel. Evol. 28, 121): one factorization a draw.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.design import Design
from mixform.estimate.bayes.density import Density
from mixform.estimate.criterion import Evaluation, evaluate_at
from mixform.estimate.problem import Problem, split_blocks

#: Draws whose random numbers are made at once, and the most numbers of that.
CHUNK = 256
CHUNK_NUMBERS = 4e6


def draw_effects(
    design: Design,
    density: Density,
    draws: Matrix,
    rng: np.random.Generator,
    advance: Callable[[int], None],
) -> tuple[Matrix, tuple[Stack, ...]]:
    """Return beta (E, p) and for each random term b (E, m, k), in the user's units.

    Parameters
    ----------
    draws : (E, d) coordinates of the variances
    advance : called with the number of draws made since the last call
    """
    problem = density.problem
    blocks = problem.blocks
    q = problem.equations.q
    beta = np.empty((len(draws), problem.p))
    b = [np.empty((len(draws), block.n_levels, block.k)) for block in blocks]
    size = int(np.clip(CHUNK_NUMBERS / (problem.n + q), 1, CHUNK))
    draw = _one_by_one if density.compact is None else _at_once
    for start in range(0, len(draws), size):
        part = draws[start : start + size]
        here = slice(start, start + len(part))
        e = rng.standard_normal((problem.n, len(part)))
        u = related(problem, rng.standard_normal((q, len(part))))
        sides = problem.equations.Zt_dot(e), design.fixed.Q.T @ e
        beta[here], drawn = draw(density, part, u, sides)
        pieces = zip(b, split_blocks(drawn, blocks), blocks, strict=True)
        for stack, piece, block in pieces:
            stack[here] = np.moveaxis(block.at_levels(piece), 2, 0)
        advance(len(part))
    if problem.p:
        beta = problem.projection + problem.y_scale * beta
        beta = np.linalg.solve(design.fixed.R, beta.T).T
    scales = [problem.y_scale * np.linalg.inv(C) for C in problem.Z_scales]
    return beta, tuple(one @ C.T for one, C in zip(b, scales, strict=True))


def _one_by_one(
    density: Density, draws: Matrix, u: Matrix, sides: tuple[Matrix, Matrix]
) -> tuple[Matrix, Matrix]:
    """Return beta (c, p) and b (q, c) of the scaled problem for draws (c, d).

    Parameters
    ----------
    u : (q, c) u* / sigma
    sides : (q, c) Z'R^-1 e* / sigma, (p, c) X'R^-1 e* / sigma
    """
    problem = density.problem
    beta, b = np.empty((len(draws), problem.p)), np.empty_like(u)
    for i, psi in enumerate(draws):
        point = density.at(psi)
        here = evaluate_at(problem, point.T)
        own = sides[0][:, [i]], sides[1][:, i]
        beta[i], drawn = perturbed(here, point.sigma / problem.y_scale, u[:, i], own)
        b[:, i] = problem.equations.Lambda_dot(point.T, drawn[:, None])[:, 0]
    return beta, b


def _at_once(
    density: Density, draws: Matrix, u: Matrix, sides: tuple[Matrix, Matrix]
) -> tuple[Matrix, Matrix]:
    """Return what `_one_by_one` does, of independent components together."""
    problem, compact = density.problem, density.compact
    assert compact is not None, "there are small components"
    points = [density.at(psi) for psi in draws]
    sigma = np.array([point.sigma for point in points]) / problem.y_scale
    T = [np.array([point.T[j] for point in points]) for j in range(len(problem.blocks))]
    place = compact.layout.place
    Zty = place(problem.ZtW[:, -1:] / sigma - sides[0])
    Xty = problem.WtW[:-1, -1:] / sigma - sides[1]
    beta, b = compact.draw(T, Zty, Xty.T, place(u))
    b = b.reshape(len(draws), -1)[:, compact.layout.where]
    return sigma[:, None] * beta, (sigma[:, None] * b).T


def related(problem: Problem, normal: Matrix) -> Matrix:
    """Return P^-1/2 times standard normal numbers (q, c)."""
    if not problem.relations:
        return normal
    parts: list[Matrix] = []
    for relation, part in zip(
        problem.relations, split_blocks(normal, problem.blocks), strict=True
    ):
        flat = part.reshape(len(part), -1)
        half = flat if relation is None else relation.half(flat)
        parts.append(half.reshape(-1, normal.shape[1]))
    return np.concatenate(parts)


def perturbed(
    here: Evaluation, sigma: float, prior: Vector, sides: tuple[Matrix, Vector]
) -> tuple[Vector, Vector]:
    """Return the solution beta (p,), u (q,) for y - y*, plus (0, u*).

    Parameters
    ----------
    here : the solution for y; everything is of the scaled problem
    sigma : residual standard deviation
    prior : (q,) u* / sigma
    sides : Z'R^-1 e* / sigma (q, 1) and X'R^-1 e* / sigma (p,)
    """
    problem = here.problem
    equations = problem.equations
    b = equations.Lambda_dot(here.T, prior[:, None])
    side = equations.Lambda_dot(here.T, equations.ZtZ_dot(b) + sides[0], transpose=True)
    V_X = here.V[:, :-1]
    Xty = problem.ZtX.T @ b[:, 0] + sides[1] - V_X.T @ side[:, 0]
    beta = here.R_inverse @ (here.R_inverse.T @ Xty)
    u = here.factor.solve(side)[:, 0] - V_X @ beta
    return here.beta - sigma * beta, here.u + sigma * (prior - u)
