"""Linear mixed models by dense n x n algebra: what every fit is checked against.

Nothing of mixform is used here. All functions take complex numbers, so that derivatives
come from the complex step, exact to rounding (Squire and Trapp 1998, SIAM Rev. 40).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Term:
    """A random term: level of each row, covariates (n, k), whether it is diagonal."""

    codes: np.ndarray
    covariates: np.ndarray
    diagonal: bool = False

    @property
    def m(self):
        return int(self.codes.max()) + 1

    @property
    def k(self):
        return self.covariates.shape[1]

    @property
    def n_theta(self):
        return self.k if self.diagonal else self.k * (self.k + 1) // 2

    def Z(self):
        n = len(self.codes)
        Z = np.zeros((n, self.m * self.k))
        for i in range(n):
            start = self.codes[i] * self.k
            Z[i, start : start + self.k] = self.covariates[i]
        return Z

    def T(self, theta):
        T = np.zeros((self.k, self.k), dtype=np.asarray(theta).dtype)
        values = iter(theta)
        for column in range(self.k):
            rows = [column] if self.diagonal else range(column, self.k)
            for row in rows:
                T[row, column] = next(values)
        return T


@dataclass(frozen=True)
class Model:
    """y = X beta + Z b + e, Var(e) = sigma^2 diag(1 / weights)."""

    y: np.ndarray
    X: np.ndarray
    terms: tuple[Term, ...]
    weights: np.ndarray
    reml: bool

    @property
    def n_theta(self):
        return sum(term.n_theta for term in self.terms)

    @property
    def residual_df(self):
        return len(self.y) - (self.X.shape[1] if self.reml else 0)

    def Ts(self, theta):
        ends = np.cumsum([0, *[term.n_theta for term in self.terms]])
        return [
            term.T(theta[start:end])
            for term, start, end in zip(self.terms, ends, ends[1:], strict=False)
        ]

    def Z(self):
        parts = [term.Z() for term in self.terms]
        return np.hstack(parts) if parts else np.zeros((len(self.y), 0))

    def relative_G(self, theta):
        """Var(b) / sigma^2, (q, q)."""
        blocks = []
        for term, T in zip(self.terms, self.Ts(theta), strict=True):
            blocks.append(np.kron(np.eye(term.m), T @ T.T))
        return block_diagonal(blocks)

    def relative_V(self, theta):
        """Var(y) / sigma^2, (n, n)."""
        Z = self.Z()
        return np.diag(1.0 / self.weights) + Z @ self.relative_G(theta) @ Z.T


@dataclass(frozen=True)
class Solution:
    """Generalized least squares and BLUP at one theta."""

    beta: np.ndarray
    b: np.ndarray
    sigma2: complex
    V_beta: np.ndarray
    P: np.ndarray
    criterion: complex


def block_diagonal(blocks):
    size = sum(len(block) for block in blocks)
    out = np.zeros((size, size), dtype=np.result_type(float, *blocks))
    start = 0
    for block in blocks:
        end = start + len(block)
        out[start:end, start:end] = block
        start = end
    return out


def log_determinant(A):
    sign, size = np.linalg.slogdet(A)
    return size + 1j * np.angle(sign) if np.iscomplexobj(A) else size


def solve(model, theta):
    """Fit beta, sigma^2 and b at theta: P = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1."""
    y, X = model.y, model.X
    V = model.relative_V(theta)
    inverse = np.linalg.inv(V)
    XtVinvX = X.T @ inverse @ X
    VinvX = inverse @ X
    beta = np.linalg.solve(XtVinvX, VinvX.T @ y)
    P = inverse - VinvX @ np.linalg.solve(XtVinvX, VinvX.T)
    r2 = y @ P @ y
    sigma2 = r2 / model.residual_df
    criterion = log_determinant(V) + model.residual_df * (
        1.0 + np.log(2.0 * np.pi * sigma2)
    )
    if model.reml:
        criterion = criterion + log_determinant(XtVinvX)
    return Solution(
        beta=beta,
        b=model.relative_G(theta) @ model.Z().T @ inverse @ (y - X @ beta),
        sigma2=sigma2,
        V_beta=sigma2 * np.linalg.inv(XtVinvX),
        P=P,
        criterion=criterion,
    )


def deviance(model, phi):
    """-2 log (restricted) likelihood at phi = (theta, sigma), beta profiled out."""
    theta, sigma2 = phi[:-1], phi[-1] ** 2
    X = model.X
    V = model.relative_V(theta)
    here = solve(model, theta)
    out = log_determinant(V) + model.residual_df * np.log(2.0 * np.pi * sigma2)
    out = out + model.residual_df * here.sigma2 / sigma2
    if model.reml:
        out = out + log_determinant(X.T @ np.linalg.inv(V) @ X)
    return out


def V_beta(model, phi):
    """Covariance of the generalized least squares estimate at phi = (theta, sigma)."""
    V = phi[-1] ** 2 * model.relative_V(phi[:-1])
    return np.linalg.inv(model.X.T @ np.linalg.inv(V) @ model.X)


def derivatives(function, at, which=None):
    """Derivatives of a function by the entries of its argument: the complex step."""
    found = []
    for k in range(len(at)) if which is None else which:
        moved = np.asarray(at, dtype=complex)
        moved[k] += 1e-30j
        found.append(np.imag(function(moved)) / 1e-30)
    return np.array(found)


def hessian(function, at, which=None, step=1e-5):
    """Second derivatives: central differences of the complex step."""
    which = range(len(at)) if which is None else which
    rows = []
    for k in which:
        h = step * max(1e-2, abs(at[k]))
        sides = []
        for sign in (1.0, -1.0):
            moved = np.array(at, dtype=float)
            moved[k] += sign * h
            sides.append(derivatives(function, moved, which))
        rows.append((sides[0] - sides[1]) / (2.0 * h))
    H = np.array(rows)
    return (H + H.T) / 2.0


def satterthwaite_df(model, theta, sigma, ell, interior=None):
    """2 f^2 / (g' V_phi g), f = ell' V_beta ell, g = df / dphi, V_phi = 2 H^-1."""
    phi = np.append(theta, sigma)
    free = list(range(len(theta))) if interior is None else list(interior)
    free.append(len(theta))
    H = hessian(lambda at: deviance(model, at), phi, free)

    def variance(at):
        return ell @ V_beta(model, at) @ ell

    slope = derivatives(variance, phi, free)
    return 2.0 * variance(phi) ** 2 / (slope @ (2.0 * np.linalg.inv(H)) @ slope)


def random_model(seed, *, reml=True, terms=None, p=None, weighted=None, n=None):
    """Draw a model and write it as data frame and formula.

    Returns
    -------
    model, frame, formula, keywords of `fit`
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(24, 45)) if n is None else n
    p = int(rng.integers(0, 5)) if p is None else p
    weighted = bool(rng.integers(2)) if weighted is None else weighted
    covariates = {f"x{j}": rng.normal(size=n) * 10.0 ** (2 * j - 2) for j in range(3)}
    data = pd.DataFrame(covariates)
    fixed = {"1": np.ones(n), **covariates}
    chosen = list(fixed)[:p] if rng.integers(2) else list(fixed)[4 - p :]
    X = np.column_stack([fixed[name] for name in chosen] or [np.empty((n, 0))])
    parts = [*chosen, "0"] if "1" not in chosen else chosen
    made = []
    for j in range(int(rng.integers(1, 4)) if terms is None else terms):
        m, k = int(rng.integers(2, 7)), int(rng.integers(1, 4))
        codes = np.append(np.arange(m), rng.integers(0, m, n - m))
        group = f"g{j}"
        data[group] = codes
        if j == 1 and rng.integers(2):  # nested in the first
            both = data["g0"].to_numpy() * 10 + codes
            codes, group = np.unique(both, return_inverse=True)[1], "g0:g1"
        names = list(rng.permutation(["1", "x0", "x1", "x2"])[:k])
        names.sort()
        diagonal = bool(rng.integers(2)) and k > 1
        left = " + ".join(names if "1" in names else ["0", *names])
        parts.append(f"({left} {'||' if diagonal else '|'} {group})")
        Z = np.column_stack([fixed[name] for name in names])
        made.append(Term(codes, Z, diagonal))
    y = rng.normal(size=n) * 3.0 + 10.0
    y += rng.normal(size=6)[data["g0"]] if "g0" in data else 0.0
    weights, offset = np.ones(n), np.zeros(n)
    keywords = {"method": "REML" if reml else "ML"}
    if weighted:
        data["w"] = weights = 10.0 ** rng.uniform(-1.0, 1.0, n)
        data["o"] = offset = rng.normal(size=n) * 5.0
        keywords |= {"weights": "w", "offset": "o"}
    data["y"] = y
    model = Model(y - offset, X, tuple(made), weights, reml)
    return model, data, f"y ~ {' + '.join(parts)}", keywords


def random_theta(model, seed):
    """Draw theta away from the boundary, each column of T on its covariate's scale."""
    rng = np.random.default_rng(seed)
    parts = []
    for term in model.terms:
        size = np.sqrt(np.mean(term.covariates**2, axis=0))
        T = np.tril(rng.normal(size=(term.k, term.k)))
        T[np.diag_indices(term.k)] = rng.uniform(0.3, 1.5, term.k)
        T = T / size[:, None]
        rows, columns = np.triu_indices(term.k)
        lower = T[columns, rows]
        parts.append(np.diag(T) if term.diagonal else lower)
    return np.concatenate(parts) if parts else np.empty(0)
