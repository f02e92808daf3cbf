"""Time the association scan: 1 000 animals by 50 000 markers, and two peers.

    OPENBLAS_NUM_THREADS=2 python tests/benchmarks/scan.py [animals markers]

Simulated with a fixed seed: a genomic relationship of 5 000 of the markers, one record
for each animal, then four. Peers, whose answers must agree: generalized least squares
with the dense V for each marker (one run of 100 markers, V factored once), and all
markers rotated by the eigenvectors of K at once, which is what EMMAX and FaST-LMM do
where each animal has one record. Seconds, the median of three; genotypes are int8.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import mixform as mf

REPEATS = 3
LOOPED = 100


def simulate(m: int, s: int) -> tuple[Any, pd.DataFrame]:
    """Return genotypes (m, s) and a blended genomic relationship."""
    rng = np.random.default_rng(1)
    G = rng.binomial(2, rng.uniform(0.05, 0.5, s), (m, s)).astype(np.int8)
    K = mf.genomic(G[:, : min(s, 5000)], ids=range(m)).K
    return G, 0.99 * K + 0.01 * np.eye(m)


def records(G: Any, repeats: int) -> pd.DataFrame:
    """Return records with the effects of 20 markers."""
    rng = np.random.default_rng(2)
    animal = np.repeat(np.arange(len(G)), repeats)
    u = G[:, :20].sum(axis=1) * 0.3 + rng.normal(size=len(G))
    x = rng.normal(size=len(animal))
    y = x + u[animal] + rng.normal(size=len(animal))
    return pd.DataFrame({"y": y, "x": x, "animal": animal})


def median(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median time of a call, and what it returned."""
    seconds: list[float] = []
    found = None
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


def looped(m: Any, K: Any, data: pd.DataFrame, G: Any) -> Any:
    """Return t of each marker by generalized least squares with the dense V."""
    variances = m.varcorr["vcov"].to_numpy()
    at = data["animal"].to_numpy()
    V = variances[0] / variances[1] * K[np.ix_(at, at)] + np.eye(len(at))
    half = np.linalg.inv(np.linalg.cholesky(V))
    y, X = half @ data["y"].to_numpy(), half @ m.design.X.to_numpy()
    out = np.empty(G.shape[1])
    for j in range(G.shape[1]):
        W = np.column_stack([X, half @ G[at, j].astype(float)])
        inverse = np.linalg.inv(W.T @ W)
        beta = inverse @ (W.T @ y)
        rest = y - W @ beta
        out[j] = beta[-1] / np.sqrt(
            rest @ rest / (len(y) - len(beta)) * inverse[-1, -1]
        )
    return out


def rotated(m: Any, K: Any, data: pd.DataFrame, G: Any) -> Any:
    """Return t of all markers, one record for each animal, from eigenvectors of K."""
    variances = m.varcorr["vcov"].to_numpy()
    values, vectors = np.linalg.eigh(K)
    half = vectors.T / np.sqrt(variances[0] / variances[1] * values + 1.0)[:, None]
    Q = np.linalg.qr(half @ m.design.X.to_numpy())[0]
    y = half @ data["y"].to_numpy()
    y -= Q @ (Q.T @ y)
    out: list[Any] = []
    for start in range(0, G.shape[1], 1024):
        W = half @ G[:, start : start + 1024].astype(float)
        W -= Q @ (Q.T @ W)
        Wy, WW = W.T @ y, np.einsum("ns,ns->s", W, W)
        sigma2 = (y @ y - Wy**2 / WW) / (len(y) - Q.shape[1] - 1)
        out.append(Wy / np.sqrt(WW * sigma2))
    return np.concatenate(out)


def compare(G: Any, K: Any, repeats: int) -> str:
    """Return the times of a scan and its peers in words."""
    m_animals, s = G.shape
    data = records(G, repeats)
    m = mf.fit("y ~ x + (1 | animal)", data, relationship={"animal": K})
    seconds, found = median(lambda: mf.scan(m, G, by="animal", ids=range(m_animals)))
    t = found["t_value"].to_numpy()
    start = time.perf_counter()
    some = looped(m, K.to_numpy(), data, G[:, :LOOPED])
    loop = (time.perf_counter() - start) * s / LOOPED
    apart = np.abs(t[:LOOPED] - some).max()
    line = f"{len(data)} records: scan {seconds:.2f} s; loop {loop:.0f} s, "
    line += f"{loop / seconds:.0f} times, t apart {apart:.1e}"
    if repeats == 1:
        peer, every = median(lambda: rotated(m, K.to_numpy(), data, G))
        apart = np.abs(t - every).max()
        line += f"; rotation {peer:.2f} s, t apart {apart:.1e}"
    return line


def main() -> None:
    """Print a row for one record and for four of each animal."""
    m, s = (int(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (1000, 50_000)
    G, K = simulate(m, s)
    print(f"{m} animals, {s} markers")
    for repeats in (1, 4):
        print(compare(G, K, repeats))


if __name__ == "__main__":
    main()
