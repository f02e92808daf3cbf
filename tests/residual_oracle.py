"""Linear models with any covariance V(phi), by dense n x n algebra.

Independent of mixform. Parameters phi are natural ones, in SAS's choice: covariances
for us, cs and toep, variances and correlations for the others. V(phi) takes complex
numbers, so that its derivatives come from the complex step, exact to rounding (Squire
and Trapp 1998, SIAM Rev. 40), and its second derivatives from differences of those.

With P = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1, V_i = dV/dphi_i and V_ij likewise, for REML

    -2 log L = log|V| + log|X'V^-1X| + y'Py + (n-p) log 2 pi
    gradient = tr(P V_i) - y'P V_i P y
    Hessian  = tr(P V_ij) - tr(P V_i P V_j) + 2 y'P V_i P V_j P y - y'P V_ij P y

and for ML V^-1 in place of P in the traces, no log|X'V^-1X|, n in place of n-p.
Kenward and Roger (1997, Biometrics 53, 983-997) is written out below in their letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

# ---- structures ----------------------------------------------------------------------


def _correlated(sd, C):
    return C * np.multiply.outer(sd, sd)


def _powers(rho, D):
    return np.where(D == 0.0, 1.0, rho ** np.where(D == 0.0, 1.0, D))


def _distances(z):
    z = np.asarray(z, dtype=float)
    z = z[:, None] if z.ndim == 1 else z
    return np.sqrt(((z[:, None, :] - z[None, :, :]) ** 2).sum(axis=2))


def _lags(size):
    return np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def us(phi, size):
    """Covariances of the lower triangle by rows."""
    V = np.zeros((size, size), dtype=np.asarray(phi).dtype)
    V[np.tril_indices(size)] = phi
    return V + V.T - np.diag(np.diag(V))


def diag(phi, size):
    """One variance for each position."""
    return np.diag(np.asarray(phi))


def cs(phi, size):
    """Covariance, and the variance in excess of it."""
    return phi[0] + phi[1] * np.eye(size)


def csh(phi, size):
    """Variances, correlation."""
    C = np.full((size, size), phi[-1]) + (1.0 - phi[-1]) * np.eye(size)
    return _correlated(np.sqrt(phi[:-1]), C)


def ar1(phi, size):
    """Correlation, variance."""
    return phi[1] * _powers(phi[0], _lags(size))


def arh1(phi, size):
    """Variances, correlation."""
    return _correlated(np.sqrt(phi[:-1]), _powers(phi[-1], _lags(size)))


def toep(phi, size):
    """Covariances by lag from 1, variance."""
    return np.append(phi[-1], phi[:-1])[_lags(size)]


def toeph(phi, size):
    """Variances, correlations by lag."""
    C = np.append(1.0, phi[size:])[_lags(size)]
    return _correlated(np.sqrt(phi[:size]), C)


def ante1(phi, size):
    """Variances, correlations of neighbors; others are their products."""
    C = np.eye(size, dtype=np.asarray(phi).dtype)
    for i in range(size):
        for j in range(i):
            C[i, j] = C[j, i] = np.prod(phi[size + j : size + i])
    return _correlated(np.sqrt(phi[:size]), C)


def car1(phi, z):
    """Correlation at distance one, variance."""
    return phi[1] * _powers(phi[0], _distances(z))


def exp(phi, z):
    """Range, variance, share of it that is nugget (none if left out)."""
    return _with_nugget(np.exp(-_distances(z) / phi[0]), phi)


def gau(phi, z):
    """Range, variance, share of it that is nugget."""
    return _with_nugget(np.exp(-((_distances(z) / phi[0]) ** 2)), phi)


def mat32(phi, z):
    """Matern's family at smoothness 3/2: range, variance, share that is nugget."""
    t = _distances(z) / phi[0]
    return _with_nugget((1.0 + t) * np.exp(-t), phi)


def _with_nugget(C, phi):
    share = 1.0 - phi[2] if len(phi) > 2 else 1.0
    off = ~np.eye(len(C), dtype=bool)
    return phi[1] * np.where(off, share * C, 1.0)


#: Of positions 0, ..., size - 1; the others are of times or coordinates.
POSITIONS = {f.__name__: f for f in (us, diag, cs, csh, ar1, arh1, toep, toeph, ante1)}
COORDINATES = {f.__name__: f for f in (car1, exp, gau, mat32)}


# ---- models --------------------------------------------------------------------------


@dataclass(frozen=True)
class Oracle:
    """y ~ N(X beta, V(phi)).

    Attributes
    ----------
    y : (n,)
    X : (n, p), of full rank
    V : (t,) parameters, real or complex, to (n, n)
    reml : whether the likelihood is restricted
    """

    y: np.ndarray
    X: np.ndarray
    V: Callable[[np.ndarray], np.ndarray]
    reml: bool = True


def subject_covariance(structure, subjects, where, strata=None, scale=None, size=None):
    """Return V(phi): blocks of subjects, zero between them.

    Parameters
    ----------
    structure : name in `POSITIONS` or `COORDINATES`
    subjects : (n,) labels
    where : (n,) positions from 0, or times (n,) or coordinates (n, d)
    strata : (n,) labels; phi then holds the parameters of each in sorted order
    scale : (n,) factors of the SDs, e.g. w^-1/2
    size : number of positions, the largest seen + 1 unless given
    """
    subjects, where = np.asarray(subjects), np.asarray(where)
    strata = np.zeros(len(subjects)) if strata is None else np.asarray(strata)
    scale = np.ones(len(subjects)) if scale is None else np.asarray(scale)
    size = int(np.max(where)) + 1 if size is None and structure in POSITIONS else size
    names = np.unique(strata)
    rows = [np.flatnonzero(subjects == label) for label in np.unique(subjects)]

    def V(phi):
        phi = np.asarray(phi)
        out = np.zeros((len(subjects), len(subjects)), dtype=phi.dtype)
        parts = dict(zip(names, np.split(phi, len(names)), strict=True))
        for i in rows:
            p = parts[strata[i[0]]]
            if structure in POSITIONS:
                grid = POSITIONS[structure](p, size)
                block = grid[np.ix_(where[i], where[i])]
            else:
                block = COORDINATES[structure](p, where[i])
            out[np.ix_(i, i)] = block * np.outer(scale[i], scale[i])
        return out

    return V


def random_covariance(Z, groups):
    """Return V(phi) of a random term: phi the lower triangle of G by rows.

    Parameters
    ----------
    Z : (n, k) covariates
    groups : (n,) labels
    """
    Z, groups = np.asarray(Z, dtype=float), np.asarray(groups)
    same = np.equal.outer(groups, groups)

    def V(phi):
        return np.where(same, Z @ us(np.asarray(phi), Z.shape[1]) @ Z.T, 0.0)

    return V


def total(*parts):
    """Return V(phi) of a sum of (V, number of parameters); phi is in their order."""
    ends = np.cumsum([0, *[t for _, t in parts]])

    def V(phi):
        phi = np.asarray(phi)
        pieces = (phi[a:b] for a, b in pairwise(ends))
        return sum(f(piece) for (f, _), piece in zip(parts, pieces, strict=True))

    return V


# ---- derivatives of V ----------------------------------------------------------------


def first(V, phi):
    """Return dV/dphi, (t, n, n): the complex step."""
    out = []
    for k in range(len(phi)):
        moved = np.asarray(phi, dtype=complex)
        moved[k] += 1e-30j
        out.append(np.imag(V(moved)) / 1e-30)
    return np.array(out)


def second(V, phi, step=1e-3):
    """Return d2V/dphi2 (t, t, n, n): fourth order differences of the complex step."""
    phi = np.asarray(phi, dtype=float)
    t, out = len(phi), []
    for k in range(t):
        h = step * max(abs(phi[k]), 0.1)
        side = {s: first(V, phi + s * h * np.eye(t)[k]) for s in (-2, -1, 1, 2)}
        out.append((side[-2] - 8 * side[-1] + 8 * side[1] - side[2]) / (12 * h))
    D = np.array(out)
    return (D + np.swapaxes(D, 0, 1)) / 2.0


# ---- likelihood ----------------------------------------------------------------------


@dataclass(frozen=True)
class At:
    """What V at one phi gives; H and g are of -2 log L."""

    criterion: float
    beta: np.ndarray
    Phi: np.ndarray
    V_inverse: np.ndarray
    P: np.ndarray
    V_i: np.ndarray = field(repr=False)
    V_ij: np.ndarray | None = field(repr=False)
    g: np.ndarray
    H: np.ndarray | None
    expected: np.ndarray


def at(model, phi, hessian=True):
    """Evaluate the likelihood and its derivatives at phi."""
    y, X = model.y, model.X
    n, p = X.shape
    V = np.asarray(model.V(np.asarray(phi, dtype=float)))
    L = np.linalg.cholesky(V)
    V_inverse = np.linalg.inv(V)
    XtVX = X.T @ V_inverse @ X
    Phi = np.linalg.inv(XtVX)
    P = V_inverse - V_inverse @ X @ Phi @ X.T @ V_inverse
    Py = P @ y
    df = n - p if model.reml else n
    criterion = 2 * np.log(np.diag(L)).sum() + y @ Py + df * np.log(2 * np.pi)
    if model.reml:
        criterion += np.linalg.slogdet(XtVX)[1]
    M = P if model.reml else V_inverse
    V_i = first(model.V, phi)
    MV = np.array([M @ D for D in V_i])
    traces = np.einsum("iab,jba->ij", MV, MV)
    q = np.array([D @ Py for D in V_i])
    g = np.trace(MV, axis1=1, axis2=2) - q @ Py
    V_ij, H = None, None
    if hessian:
        V_ij = second(model.V, phi)
        H = np.einsum("ba,ijab->ij", M, V_ij) - traces
        H += 2.0 * q @ P @ q.T - np.einsum("a,ijab,b->ij", Py, V_ij, Py)
    return At(
        criterion, Phi @ X.T @ V_inverse @ y, Phi, V_inverse, P, V_i, V_ij, g, H, traces
    )


def fit(model, start, steps=200, tolerance=1e-12):
    """Return the phi that minimizes -2 log L: Fisher scoring, then Newton steps."""
    phi = np.asarray(start, dtype=float)
    here = at(model, phi, hessian=False)
    for _ in range(steps):
        move = -np.linalg.solve(here.expected, here.g)
        if -here.g @ move < 1e-6:
            break
        phi, here = _descend(model, phi, here, move)
    for _ in range(5):
        here = at(model, phi)
        move = -np.linalg.solve(here.H, here.g)
        phi = phi + move
        if abs(here.g @ move) < tolerance:
            return phi
    raise RuntimeError("no convergence")


def _descend(model, phi, here, move):
    """Take a step, halved until -2 log L falls."""
    for _ in range(40):
        try:
            new = at(model, phi + move, hessian=False)
        except np.linalg.LinAlgError:
            new = None
        if new is not None and new.criterion < here.criterion:
            return phi + move, new
        move = move / 2.0
    raise RuntimeError("no descent")


# ---- tests of L beta -----------------------------------------------------------------


def _of_V_beta(model, here):
    """P_i of Kenward and Roger: -X'V^-1 V_i V^-1 X; dPhi/dphi_i = -Phi P_i Phi."""
    A = here.V_inverse @ model.X
    return np.array([-A.T @ D @ A for D in here.V_i])


def satterthwaite(model, phi, L):
    """Return F, df1, df2 of L beta = 0: a t^2 per eigenvector, as Fai and Cornelius.

    df2 of several rows is 2 E / (E - q), E = sum of nu / (nu - 2) over nu > 2.
    """
    L = np.atleast_2d(np.asarray(L, dtype=float))
    here = at(model, phi)
    V_phi = 2.0 * np.linalg.inv(here.H)
    slopes = np.array([-here.Phi @ P @ here.Phi for P in _of_V_beta(model, here)])
    values, vectors = np.linalg.eigh(L @ here.Phi @ L.T)
    K = vectors.T @ L
    nus = []
    for k, value in zip(K, values, strict=True):
        g = np.array([k @ D @ k for D in slopes])
        nus.append(2.0 * value**2 / (g @ V_phi @ g))
    F = np.mean((K @ here.beta) ** 2 / values)
    if len(nus) == 1:
        return F, 1, nus[0]
    E = sum(nu / (nu - 2.0) for nu in nus if nu > 2.0)
    return F, len(nus), 2.0 * E / (E - len(nus)) if len(nus) < E else 2.0


def kenward_roger(model, phi, L, *, linear=False, information="observed"):
    """Return Phi_A, F, df1, df2 of L beta = 0 (Kenward and Roger 1997).

    Parameters
    ----------
    linear : leave out the second derivatives R_ij, as SAS's kr(linear) does; they are
        zero where V is linear in phi
    information : of which W is the inverse: "observed", SAS, or "expected", pbkrtest
    """
    L = np.atleast_2d(np.asarray(L, dtype=float))
    here = at(model, phi)
    Phi, A = here.Phi, here.V_inverse @ model.X
    P = _of_V_beta(model, here)
    VA = np.array([D @ A for D in here.V_i])
    Q = np.einsum("iap,ab,jbq->ijpq", VA, here.V_inverse, VA)
    R = np.einsum("ap,ijab,bq->ijpq", A, here.V_ij, A)
    I = here.H if information == "observed" else here.expected
    W = 2.0 * np.linalg.inv(I)
    inner = Q - np.einsum("ipa,ab,jbq->ijpq", P, Phi, P)
    if not linear:
        inner = inner - R / 4.0
    Phi_A = Phi + 2.0 * Phi @ np.einsum("ij,ijpq->pq", W, inner) @ Phi
    q = len(L)
    Theta = L.T @ np.linalg.solve(L @ Phi @ L.T, L)
    T = np.array([Theta @ Phi @ D @ Phi for D in P])
    A1 = np.einsum("ij,iaa,jbb->", W, T, T)
    A2 = np.einsum("ij,iab,jba->", W, T, T)
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    below = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2.0 - g) / below
    E = 1.0 / (1.0 - A2 / q)
    spread = 2.0 / q * (1.0 + c1 * B) / ((1.0 - c2 * B) ** 2 * (1.0 - c3 * B))
    ratio = spread / (2.0 * E**2)
    df2 = 4.0 + (q + 2.0) / (q * ratio - 1.0)
    scale = df2 / (E * (df2 - 2.0))
    estimate = L @ here.beta
    F = scale / q * estimate @ np.linalg.solve(L @ Phi_A @ L.T, estimate)
    return Phi_A, F, q, df2
