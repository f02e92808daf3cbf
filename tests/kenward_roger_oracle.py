"""Kenward and Roger (1997) on n x n matrices, V any function of its parameters.

Structures are written here once more, from their definitions; derivatives of V are by
the complex step, second derivatives by differences of those.
"""

import numpy as np
from scipy.special import gamma, kv

from mixform.inference.residual_structure import natural_parameters, residual_model


def _us(phi, lag):
    V = np.zeros(lag.shape, dtype=phi.dtype)
    V[np.tril_indices(len(lag))] = phi
    return V + V.T - np.diag(np.diag(V))


def _ante1(r, lag):
    C = np.ones(lag.shape, dtype=r.dtype)
    for i in range(len(lag)):
        for j in range(i):
            C[i, j] = C[j, i] = np.prod(r[j:i])
    return C


#: From covariances and lags, as SAS has parameters that V is linear in.
COVARIANCES = {
    "us": _us,
    "diag": lambda phi, lag: np.diag(phi),
    "cs": lambda phi, lag: np.where(lag == 0, phi[0], phi[1]),
    "toep": lambda phi, lag: phi[lag],
    "ar1": lambda phi, lag: phi[0] * phi[1] ** lag,
}
CORRELATIONS = {
    "csh": lambda r, lag: np.where(lag == 0, 1.0, r[0]),
    "arh1": lambda r, lag: r[0] ** lag,
    "toeph": lambda r, lag: np.append(1.0, r)[lag],
    "ante1": _ante1,
}


def positions(name, phi, size):
    """Return the covariance (size, size) of positions."""
    lag = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    if name in COVARIANCES:
        return COVARIANCES[name](phi, lag)
    sd = np.sqrt(phi[:size])
    return CORRELATIONS[name](phi[size:], lag) * np.outer(sd, sd)


def coordinates(name, phi, points, nugget=False):
    """Return the covariance (v, v) of points: variance, range [, nu] [, nugget]."""
    apart = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    off = apart > 0
    if name == "car1":
        C = phi[1] ** apart
    elif name in ("exp", "gau"):
        C = np.exp(-((apart / phi[1]) ** (1 if name == "exp" else 2)))
    else:
        nu, t = phi[2], np.where(off, apart, 1.0) / phi[1]
        C = 2 ** (1 - nu) / gamma(nu) * t**nu * kv(nu, t)
    share = 1 - phi[-1] if nugget else 1.0
    return phi[0] * np.where(off, share * C, 1.0)


def natural_phi(fit, name):
    """Return phi of the residuals from what the fit reports, strata then dispersion."""
    _, values, _ = natural_parameters(fit)
    model = residual_model(fit)
    d = len(model.dispersion_names)
    out: list[np.ndarray] = []
    start = 0
    for grid, eta, x in zip(model.layout.grids, model.eta, model.x, strict=True):
        sd = values[start : start + len(eta)]
        r = values[start + len(eta) : start + len(eta) + x.stop - x.start]
        start += len(eta) + len(r)
        if name == "us":
            C = np.eye(grid.size)
            C[np.tril_indices(grid.size, -1)] = r
            out.append((C * np.outer(sd, sd))[np.tril_indices(grid.size)])
        elif name in ("cs", "toep"):
            out.append(np.append(sd**2, sd**2 * r))
        else:
            out.append(np.append(sd**2, r))
    return [*out, values[len(values) - d :]]


def residual_part(fit, name, nugget=False, nu=None):
    """Return phi, and V(phi) (n, n) of the residuals of a fit, weights included."""
    part = fit.design.residual
    n = fit.n
    phi = natural_phi(fit, name)
    sizes = np.cumsum([len(piece) for piece in phi])
    spatial = name in ("car1", "exp", "gau", "mat")
    weights = np.ones(n) if fit.design.weights is None else fit.design.weights
    columns = [part.coordinates[c] for c in part.coordinates]
    alone = name == "diag"
    subjects = np.arange(n) if alone else part.subjects

    def V(psi):
        *strata, delta = np.split(psi, sizes[:-1])
        out = np.zeros((n, n), dtype=psi.dtype)
        W = part.origin + part.unit * part.dispersion_values
        scale = np.exp(W @ delta) / np.sqrt(weights)
        for s, own in enumerate(strata):
            here = part.strata == s
            whole = points = at = np.empty(0)
            if spatial:
                points = np.column_stack([np.asarray(c, float) for c in columns])
                own = np.append(own, [] if nu is None else nu)
            else:
                levels = np.unique(np.asarray(columns[0])[here])
                whole = positions(name, own, len(levels))
                at = np.searchsorted(levels, np.asarray(columns[0]))
            for subject in np.unique(subjects[here]):
                i = np.flatnonzero(here & (subjects == subject))
                out[np.ix_(i, i)] = (
                    coordinates(name, own, points[i], nugget)
                    if spatial
                    else whole[np.ix_(at[i], at[i])]
                )
        return out * np.outer(scale, scale)

    return np.concatenate(phi), V


def random_part(fit):
    """Return phi, and V(phi) of the random terms: their covariances."""
    phi, makers = [], []
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        Z = block.Z.toarray()
        A = np.eye(block.m)
        if block.relation is not None:
            A = np.linalg.inv(block.relation.precision.toarray())
        Sigma = fit.sigma**2 * T @ T.T
        diagonal = block.term.structure == "diag"
        places = (np.arange(block.k),) * 2 if diagonal else np.tril_indices(block.k)
        phi.append(Sigma[places])

        def make(psi, Z=Z, A=A, k=block.k, places=places):
            S = np.zeros((k, k), dtype=psi.dtype)
            S[places] = psi
            S[places[1], places[0]] = psi
            return Z @ np.kron(A, S) @ Z.T

        makers.append(make)
    sizes = np.cumsum([0, *map(len, phi)])

    def V(psi):
        return sum(
            make(psi[a:b])
            for make, a, b in zip(makers, sizes[:-1], sizes[1:], strict=True)
        )

    return np.concatenate([np.empty(0), *phi]), V


def independent_part(fit):
    """Return phi and V(phi) of independent residuals with known weights."""
    weights = np.ones(fit.n) if fit.design.weights is None else fit.design.weights
    return np.array([fit.sigma**2]), lambda psi: psi[0] * np.diag(1.0 / weights)


def added(*parts):
    """Return phi and V(phi) of a sum of parts."""
    parts = [part for part in parts if len(part[0])]
    sizes = np.cumsum([0, *(len(phi) for phi, _ in parts)])

    def V(psi):
        return sum(
            make(psi[a:b])
            for (_, make), a, b in zip(parts, sizes[:-1], sizes[1:], strict=True)
        )

    return np.concatenate([phi for phi, _ in parts]), V


def first(V, phi, step=None):
    """Return dV/dphi (t, n, n): complex step, or differences for Bessel functions."""
    out = []
    for k in range(len(phi)):
        unit = np.eye(len(phi))[k]
        if step is None:
            out.append(np.imag(V(phi.astype(complex) + 1e-30j * unit)) / 1e-30)
        else:
            h = step * (abs(phi[k]) if phi[k] else 0.1) * unit
            out.append((V(phi - 2 * h) - 8 * V(phi - h) + 8 * V(phi + h)
                        - V(phi + 2 * h)) / (12 * h.sum()))  # fmt: skip
    return np.array(out)


def second(V, phi, step=None):
    """Return second derivatives (t, t, n, n) by differences of the first."""
    out = []
    for k in range(len(phi)):
        h = 1e-3 * (abs(phi[k]) if phi[k] else 0.1) * np.eye(len(phi))[k]
        sides = [first(V, phi + s * h, step) for s in (-2, -1, 1, 2)]
        out.append((sides[0] - 8 * sides[1] + 8 * sides[2] - sides[3]) / (12 * h.sum()))
    return np.array(out)


def dense_kenward_roger(fit, V, phi, L, *, linear=False, W=None, step=None):
    """Return the adjusted covariance, and F, m of L beta = 0.

    Parameters
    ----------
    W : covariance of phi; None for the inverse of the expected information
    """
    X = fit.design.fixed.X
    inverse = np.linalg.inv(V(phi))
    Phi = np.linalg.inv(X.T @ inverse @ X)
    B = inverse @ X
    D = first(V, phi, step)
    P = [-B.T @ one @ B for one in D]
    r = len(phi)
    Q = {(i, j): B.T @ D[i] @ inverse @ D[j] @ B for i in range(r) for j in range(r)}
    if W is None:
        VD = [inverse @ one for one in D]
        information = [
            [
                np.sum(VD[i] * VD[j].T)
                - np.trace(Phi @ (2 * Q[i, j] - P[i] @ Phi @ P[j]))
                for j in range(r)
            ]
            for i in range(r)
        ]
        W = 2 * np.linalg.inv(information)
    change = sum(
        W[i, j] * (Q[i, j] - P[i] @ Phi @ P[j]) for i in range(r) for j in range(r)
    )
    if not linear:
        bend = np.tensordot(W, second(V, phi, step), axes=2)
        change = change - B.T @ bend @ B / 4
    adjusted = Phi + 2 * Phi @ change @ Phi
    q = len(L)
    M = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    H = [M @ Phi @ one @ Phi for one in P]
    traces = np.array([np.trace(one) for one in H])
    A1 = traces @ W @ traces
    A2 = sum(W[i, j] * np.trace(H[i] @ H[j]) for i in range(r) for j in range(r))
    B1 = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    below = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    E = 1 / (1 - A2 / q)
    variance = 2 / q * (1 + c1 * B1) / ((1 - c2 * B1) ** 2 * (1 - c3 * B1))
    m = 4 + (q + 2) / (q * variance / (2 * E**2) - 1)
    estimate = L @ fit.beta
    wald = estimate @ np.linalg.solve(L @ adjusted @ L.T, estimate) / q
    return adjusted, m / (E * (m - 2)) * wald, m


def hessian(fit, V, phi):
    """Return second derivatives (t, t) of the restricted deviance by phi."""
    X, y = fit.design.fixed.X, fit.design.y
    inverse = np.linalg.inv(V(phi))
    B = inverse @ X
    P = inverse - B @ np.linalg.solve(X.T @ B, B.T)
    Py = P @ y
    D = first(V, phi)
    bend = second(V, phi)
    PD = np.array([P @ one for one in D])
    q = np.array([one @ Py for one in D])
    out = np.einsum("ab,ijba->ij", P, bend) - np.einsum("iab,jba->ij", PD, PD)
    return out + 2.0 * q @ P @ q.T - np.einsum("a,ijab,b->ij", Py, bend, Py)
