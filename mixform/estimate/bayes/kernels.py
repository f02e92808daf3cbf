"""The log posterior density, compiled: coordinates, priors, and small models whole.

A sampler evaluates the same small model tens of thousands of times, which makes calls
of numpy on 2 by 2 matrices dear. The coordinates are those of
`estimate.bayes.coordinates`, priors those of `mixform.priors`, sums those of
`estimate.bayes.compact`.
"""

from __future__ import annotations

from math import cosh, exp, log, log1p, tanh

import numpy as np

from mixform._jit import Floats, Index, inlined, kernel
from mixform.estimate.bayes.arrays import (
    HALF_NORMAL,
    HALF_T,
    INVERSE_GAMMA,
    INVERSE_WISHART,
    POWER,
    Components,
    Terms,
)

#: Logarithm beyond which exp(2 x) is not a number any more.
LARGEST = 350.0


@inlined
def factorize(M: Floats, n: Index) -> Index:
    """Put the Cholesky factor into the lower triangle of M; return its log determinant.

    NaN where M is not positive definite.
    """
    logdet = 0.0
    for j in range(n):
        total = M[j, j]
        for l in range(j):
            total -= M[j, l] * M[j, l]
        if not total > 0.0:
            return np.nan
        pivot = total**0.5
        logdet += 2.0 * log(pivot)
        M[j, j] = pivot
        for i in range(j + 1, n):
            total = M[i, j]
            for l in range(j):
                total -= M[i, l] * M[j, l]
            M[i, j] = total / pivot
    return logdet


@inlined
def invert_lower(L: Floats, n: Index, out: Floats) -> None:
    """Write the inverse of the lower triangle of L."""
    for j in range(n):
        for i in range(n):
            total = 1.0 if i == j else 0.0
            for l in range(j, i):
                total -= L[i, l] * out[l, j]
            out[i, j] = total / L[i, i] if i >= j else 0.0


@inlined
def multiply(A: Floats, B: Floats, out: Floats) -> None:
    """Write A B; of 2 by 2 matrices a loop is faster than BLAS."""
    for i in range(A.shape[0]):
        for j in range(B.shape[1]):
            total = 0.0
            for l in range(A.shape[1]):
                total += A[i, l] * B[l, j]
            out[i, j] = total


@inlined
def prior_of_sd(kind: Index, values: Floats, log_sd: Index) -> tuple[Index, Index]:
    """Return the log density of log(sd), and its derivative."""
    if kind == POWER:
        return values[1] + values[0] * log_sd, values[0]
    nu, scale, constant = values[0], values[1], values[2]
    if kind == INVERSE_GAMMA:
        ratio = scale * exp(2.0 * min(-log_sd, LARGEST))
        return constant - nu * log_sd - ratio / 2.0, ratio - nu
    moved = min(log_sd - log(scale), LARGEST)
    x2 = exp(2.0 * moved)
    if kind == HALF_NORMAL:
        return constant - x2 / 2.0 + moved, 1.0 - x2
    assert kind == HALF_T
    value = constant - (nu + 1.0) / 2.0 * log1p(x2 / nu) + moved
    return value, 1.0 - (nu + 1.0) * x2 / (nu + x2)


@inlined
def fill_factor(psi: Floats, k: Index, coupled: Index, T: Floats) -> None:
    """Write the factor T of Sigma = T T' at a term's coordinates."""
    for i in range(k):
        rest = exp(psi[i])
        for j in range(i):
            T[i, j] = 0.0
            if coupled:
                x = psi[k + j * (k - 1) - j * (j - 1) // 2 + i - j - 1]
                T[i, j] = rest * tanh(x)
                rest /= cosh(x)
        T[i, i] = rest


@inlined
def pull_factor(
    psi: Floats, k: Index, coupled: Index, T: Floats, G: Floats, out: Floats
) -> None:
    """Write derivatives by a term's coordinates from those by T."""
    for i in range(k):
        rest = exp(psi[i])
        if coupled:
            for j in range(i):
                at = k + j * (k - 1) - j * (j - 1) // 2 + i - j - 1
                out[at] = rest
                rest /= cosh(psi[at])
        after = G[i, i] * T[i, i]
        for j in range(i - 1, -1, -1):
            if coupled:
                at = k + j * (k - 1) - j * (j - 1) // 2 + i - j - 1
                x = psi[at]
                out[at] = G[i, j] * out[at] / cosh(x) ** 2 - tanh(x) * after
            after += G[i, j] * T[i, j]
        out[i] = after


@inlined
def log_rest(x: Index) -> Index:
    """Return log(1 - tanh(x)^2) without loss of digits."""
    size = abs(x)
    return 2.0 * (log(2.0) - size - log1p(exp(-2.0 * size)))


@inlined
def add_wishart(
    psi: Floats, k: Index, S: Floats, T: Floats, nu: Index, out: Floats
) -> Index:
    """Add the slopes of an inverse-Wishart density; return what depends on psi of it.

    With H = T^-1 S T^-T: tr(S Sigma^-1) = tr H, and its derivative by T is
    -2 T^-T H below the diagonal.
    """
    inverse, W, H, G = np.empty((4, k, k))
    invert_lower(T, k, inverse)
    multiply(inverse, S[:k, :k], W)
    multiply(W, inverse.T, H)
    multiply(inverse.T, H, G)
    slopes = np.empty(k + k * (k - 1) // 2)
    pull_factor(psi, k, 1, T, G, slopes)
    power = nu + k + 1.0
    value = 0.0
    for i in range(k):
        value -= 0.5 * H[i, i] + power * psi[i]
        out[i] += slopes[i] - power
    for i in range(k, len(slopes)):
        value -= 0.5 * power * log_rest(psi[i])
        out[i] += slopes[i] + power * tanh(psi[i])
    return value


@kernel
def add_priors(psi: Floats, terms: Terms, T: Floats, out: Floats) -> float:
    """Add the gradient of the log prior density of psi (d,); return the density."""
    value, slope = prior_of_sd(terms.kinds[-1], terms.values[-1], psi[-1])
    out[-1] += slope
    for t in range(len(terms.k)):
        k, at = terms.k[t], terms.start[t]
        value += terms.constants[t]
        here, slopes = psi[at:], out[at:]
        for i in range(k):
            j = terms.first[t] + i
            one, slope = prior_of_sd(terms.kinds[j], terms.values[j], here[i])
            value += one
            slopes[i] += slope
        if terms.coupled[t]:
            for c in range(k * (k - 1) // 2):
                power = terms.powers[terms.first_power[t] + c]
                value += power * log_rest(here[k + c])
                slopes[k + c] -= 2.0 * power * tanh(here[k + c])
        if terms.whole[t] == INVERSE_WISHART:
            value += add_wishart(here, k, terms.S[t], T[t], terms.nu[t], slopes)
    return value


@kernel
def factors(psi: Floats, terms: Terms) -> Floats:
    """Return T (r, k, k) of the random terms, Sigma = T T', at psi (d,)."""
    r, width = terms.S.shape[:2]
    T = np.zeros((r, width, width))
    for t in range(r):
        fill_factor(psi[terms.start[t] :], terms.k[t], terms.coupled[t], T[t])
    return T


@kernel
def pull_factors(psi: Floats, terms: Terms, T: Floats, G: Floats, out: Floats) -> float:
    """Write derivatives by psi from those by T (r, k, k); return the sum of G T."""
    total = 0.0
    for t in range(len(terms.k)):
        k, at = terms.k[t], terms.start[t]
        pull_factor(psi[at:], k, terms.coupled[t], T[t], G[t], out[at:])
        for i in range(k):
            for j in range(i + 1):
                total += G[t, i, j] * T[t, i, j]
    return total


@inlined
def solve_component(
    C: Floats, Lambda: Floats, work: Floats, K: Floats, U: Floats
) -> Index:
    """Write K = Lambda M^-1 Lambda' and U = Lambda M^-1; return log|M|.

    ``work`` is (3, s, s).
    """
    s = len(C)
    M, W, inverse = work[0], work[1], work[2]
    multiply(C, Lambda, W)
    multiply(Lambda.T, W, M)
    for a in range(s):
        M[a, a] += 1.0
    logdet = factorize(M, s)
    invert_lower(M, s, inverse)
    multiply(inverse, Lambda.T, W)
    multiply(W.T, W, K)
    multiply(W.T, inverse, U)
    return logdet


@inlined
def fill_Lambda(model: Components, T: Floats, sigma: Index, out: Floats) -> None:
    """Write Lambda of a component: T_scaled = C T / sigma at each level."""
    out[:] = 0.0
    for place in range(len(model.term)):
        t, at = model.term[place], model.place[place]
        for a in range(model.k[t]):
            for b in range(model.k[t]):
                total = 0.0
                for c in range(model.k[t]):
                    total += model.Z_scales[t, a, c] * T[t, c, b]
                out[at + a, at + b] = total / sigma


@inlined
def take_off(K: Floats, sums: Floats, A: Floats) -> None:
    """Subtract the sums of components, weighted by their K, from A."""
    flat, weights = A.ravel(), K.ravel()
    for row in range(len(sums)):
        for c in range(len(flat)):
            flat[c] -= weights[row] * sums[row, c]


@inlined
def add_square(A: Floats, factor: Index, a: Floats) -> None:
    """Add factor a a' to A."""
    for i in range(len(a)):
        for j in range(len(a)):
            A[i, j] += factor * a[i] * a[j]


@inlined
def sum_slopes(
    model: Components, K: Floats, U: Floats, by_A: Floats, out: Floats
) -> None:
    """Write derivatives of log determinants + r^2 / sigma^2 by Lambda.

    dK = E' dLambda U' + U dLambda' E, E = I - C K, so they are 2 (counts C - E by_K) U.
    """
    d, s = K.shape[:2]
    by_K = np.zeros((d, s, s))
    flat, slopes = by_K.ravel(), by_A.ravel()
    for row in range(len(flat)):
        for c in range(len(slopes)):
            flat[row] += model.sums[row, c] * slopes[c]
    CK, W, slope = np.empty((3, s, s))
    out[:] = 0.0
    for g in range(d):
        multiply(model.C[g], K[g], CK)
        multiply(CK, by_K[g], W)
        for a in range(s):
            for b in range(s):
                W[a, b] += model.counts[g] * model.C[g, a, b] - by_K[g, a, b]
        multiply(W, U[g], slope)
        for a in range(s):
            for b in range(s):
                out[a, b] += 2.0 * slope[a, b]


@inlined
def take_slopes(model: Components, by_Lambda: Floats, sigma: Index, G: Floats) -> None:
    """Write derivatives of the log likelihood by T (r, k, k) from those by Lambda."""
    G[:] = 0.0
    for place in range(len(model.term)):
        t, at = model.term[place], model.place[place]
        for a in range(model.k[t]):
            for b in range(a + 1):
                for c in range(model.k[t]):
                    slope = model.Z_scales[t, c, a] * by_Lambda[at + c, at + b]
                    G[t, a, b] -= 0.5 / sigma * slope


@kernel
def density_of_components(
    psi: Floats, terms: Terms, model: Components, out: Floats
) -> float:
    """Write the gradient of the log posterior density at psi (d,); return the density.

    NaN where the equations cannot be solved.
    """
    sigma = exp(psi[-1])
    scaled2 = (sigma / model.y_scale) ** 2
    T = factors(psi, terms)
    d, s = model.C.shape[:2]
    w = len(model.WtW)
    Lambda, by_Lambda = np.empty((2, s, s))
    fill_Lambda(model, T, sigma, Lambda)
    K, U = np.empty((2, d, s, s))
    work = np.empty((3, s, s))
    logdet = 0.0
    for g in range(d):
        one = solve_component(model.C[g], Lambda, work, K[g], U[g])
        logdet += model.counts[g] * one
    A, (inverse, by_A) = model.WtW.copy(), np.empty((2, w, w))
    take_off(K, model.sums, A)
    logdet += factorize(A, w) - 2.0 * log(A[w - 1, w - 1])
    r2 = A[w - 1, w - 1] ** 2
    invert_lower(A, w, inverse)
    multiply(inverse.T, inverse, by_A)
    ratio = r2 / scaled2
    add_square(by_A, (ratio - 1.0) * r2, by_A[w - 1].copy())
    sum_slopes(model, K, U, by_A, by_Lambda)
    G = np.empty(T.shape)
    take_slopes(model, by_Lambda, sigma, G)
    out[-1] = ratio - model.ddf - pull_factors(psi, terms, T, G, out)
    value = model.constant - 0.5 * (logdet + ratio + model.ddf * log(scaled2))
    return value + add_priors(psi, terms, T, out)
