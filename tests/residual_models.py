"""Models with residual structures of one data set, and their n x n matrices."""

import numpy as np
import pandas as pd

import mixform as mf
from mixform.residual import RESIDUALS

POSITIONS = {"exp": "lat + lon", "gau": "lat + lon", "mat": "lat + lon"}


def longitudinal(seed=3, n_subjects=24, share=0.85):
    """Subjects of 2 arms at 4 visits, some missing, rows in no order."""
    rng = np.random.default_rng(seed)
    v = 4
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n_subjects), v),
            "visit": np.tile([1, 2, 3, 4], n_subjects),
        }
    )
    frame["arm"] = np.where(frame.id % 2, "a", "b")
    frame["site"] = frame.id // 6
    n = len(frame)
    frame["lat"], frame["lon"], frame["x"] = rng.normal(size=(3, n))
    frame["plot"] = rng.integers(0, 6, n)
    frame["w"] = rng.uniform(0.5, 2.0, n)
    frame["lat"] += frame.visit
    place = frame[["lat", "lon"]].to_numpy()
    apart = np.linalg.norm(place[:, None] - place, axis=2)
    same = frame.id.to_numpy()[:, None] == frame.id.to_numpy()
    C = 0.8 * np.exp(-apart / 3.0) * (0.3 + 0.7 * same) + 0.2 * np.eye(n)
    e = np.linalg.cholesky(C) @ rng.normal(size=n) * (0.6 + 0.3 * frame.visit)
    frame["y"] = (
        1.0
        + frame.x
        + e
        + rng.normal(size=n_subjects)[frame.id]
        + 0.7 * rng.normal(size=6)[frame["plot"]]
    )
    return frame.sample(frac=share, random_state=1).reset_index(drop=True)


#: Formula, residual, dispersion, weights. Every structure alone, and combinations.
MODELS = [
    *[("y ~ x", f"{name}({POSITIONS.get(name, 'visit')} | id)", None, None)
      for name in RESIDUALS],
    ("y ~ x", "us(visit | arm/id)", None, "w"),
    ("y ~ x", "exp(lat + lon, nugget=True)", None, None),
    ("y ~ x", "mat(lat + lon | arm/site, nu=1.5)", "~ x", None),
    ("y ~ x", None, "~ arm + x", None),
    ("y ~ x + (1 | id)", "ar1(visit | id)", None, None),
    ("y ~ x + (x | site)", "csh(visit | id)", "~ arm", "w"),
    ("y ~ x + (1 | plot)", None, "~ arm", None),
    ("y ~ x + (x | plot)", "ar1(visit | id)", None, "w"),
    ("y ~ x + (1 | plot) + (1 | id)", "exp(lat + lon)", None, None),
]  # fmt: skip


def name_of(model):
    return " ".join(str(part) for part in model if part)


def fit_of(model, data=None, **arguments):
    formula, residual, dispersion, weights = model
    return mf.fit(
        formula, longitudinal() if data is None else data, residual=residual,
        dispersion=dispersion, weights=weights, **arguments,
    )  # fmt: skip


def dense_R(m, psi=None):
    """Var(e) over sigma^2, (n, n), at parameters of the scaled problem."""
    fit = m._fit
    problem, n = fit.evaluation.problem, fit.n
    psi = fit.scaled_theta if psi is None else psi
    R = np.eye(n)
    if problem.rows is not None:
        half = problem.rows.model.at(psi[problem.n_theta :]).color(np.eye(n))
        R = half @ half.T
    if fit.design.weights is not None:
        R = R / np.sqrt(np.outer(fit.design.weights, fit.design.weights))
    return R


def dense_G(m):
    """Var(b) over sigma^2, (q, q)."""
    blocks = [
        np.kron(np.eye(block.m), T @ T.T)
        for block, T in zip(m.design.blocks, m._fit.T, strict=True)
    ]
    out = np.zeros((sum(map(len, blocks)),) * 2)
    start = 0
    for block in blocks:
        end = start + len(block)
        out[start:end, start:end] = block
        start = end
    return out


def dense(m):
    """R, V and P over sigma^2, and X."""
    R, X, Z = dense_R(m), m.design.fixed.X, m.design.Z.toarray()
    V = R + Z @ dense_G(m) @ Z.T
    Vi = np.linalg.inv(V)
    ViX = Vi @ X
    return R, V, Vi - ViX @ np.linalg.solve(X.T @ ViX, ViX.T), X
