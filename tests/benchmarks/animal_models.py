"""Pedigrees and animal models at 10^4, 10^5, 10^6 animals, one BLAS thread.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/animal_models.py [size ...]

Twenty generations; sires are the best 2 % of the males of the last one, dams the better
half of the females of the last two, on a trait with heritability near 1/3. Labels come
in random order. Every animal has one record, in one of 500 herds:
``y ~ 1 + (1 | herd) + (1 | animal)`` by REML. Each size runs in a process of its own;
memory is the largest resident size of that process.

Columns, in seconds: checking, ordering and inbreeding of the pedigree; A^-1; the REML
fit; one supernodal factorisation of its equations, and the fit as a multiple of that.
A million animals take ten GB and some minutes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd

import mixform as mf

GENERATIONS = 20
HERDS = 500
REPEATS = 5
FORMULA = "y ~ 1 + (1 | herd) + (1 | animal)"


def simulate(m: int, seed: int = 1) -> pd.DataFrame:
    """Return animal, sire, dam, herd, y; parents 0 where unknown."""
    rng = np.random.default_rng(seed)
    sire, dam = np.zeros((2, m), dtype=np.int64)
    value = rng.standard_normal(m)
    born = np.linspace(0, m, GENERATIONS + 1).astype(int)
    male = rng.random(m) < 0.5
    for g in range(1, GENERATIONS):
        last = np.arange(born[g - 1], born[g])
        recent = np.arange(born[max(g - 2, 0)], born[g])
        fathers, mothers = last[male[last]], recent[~male[recent]]
        fathers = fathers[np.argsort(-value[fathers])][: max(5, len(fathers) // 50)]
        mothers = mothers[np.argsort(-value[mothers])][: max(10, len(mothers) // 2)]
        new = np.arange(born[g], born[g + 1])
        s, t = rng.choice(fathers, len(new)), rng.choice(mothers, len(new))
        sire[new], dam[new] = s + 1, t + 1
        value[new] = 0.5 * (value[s] + value[t]) + rng.normal(0.0, 0.7, len(new))
    herd = rng.integers(0, HERDS, m)
    y = value + rng.normal(0.0, 0.7, HERDS)[herd] + rng.normal(0.0, 1.4, m)
    columns = {"animal": np.arange(1, m + 1), "sire": sire, "dam": dam}
    table = pd.DataFrame({**columns, "herd": herd, "y": y})
    return table.sample(frac=1.0, random_state=seed)


def seconds(call: Any, repeats: int = 1) -> tuple[float, Any]:
    """Return the median time and the last result."""
    times: list[float] = []
    out = None
    for _ in range(repeats):
        start = time.perf_counter()
        out = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), out


def measure(m: int) -> None:
    """Print the row of one size."""
    # Kernels are compiled, or loaded, on a small model first.
    for size in (2000,):
        small = simulate(size)
        related = {"animal": mf.Pedigree(small[["animal", "sire", "dam"]])}
        mf.fit(FORMULA, small, relationship=related, control={"backend": "sparse"})
    data = simulate(m)
    columns = data[["animal", "sire", "dam"]]
    on_pedigree, pedigree = seconds(lambda: mf.Pedigree(columns))
    on_inverse, inverse = seconds(pedigree.A_inverse)
    largest = float(pedigree.inbreeding.max())
    line = (
        f"{m:8d} {on_pedigree:9.2f} {on_inverse:7.2f} {inverse.nnz:9d} {largest:6.3f}"
    )
    related = {"animal": pedigree}
    on_fit, model = seconds(lambda: mf.fit(FORMULA, data, relationship=related))
    here = model._fit.evaluation
    factor, T = here.problem.equations.factor, here.T
    on_factor, _ = seconds(lambda: factor(T), REPEATS)
    count = model.convergence.n_evaluations
    line += f" {on_fit:9.2f} {count:5d} {on_factor:7.3f} {on_fit / on_factor:6.1f}"
    line += f"  {model.criterion:.4f} {model.convergence.message}"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{line}  {memory:.2f} GB", flush=True)


def main() -> None:
    """Run each size in a process of its own."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        measure(int(sys.argv[2]))
        return
    print(
        f"{'animals':>8} {'pedigree':>9} {'A^-1':>7} {'entries':>9} {'max F':>6} "
        f"{'REML':>9} {'evals':>5} {'factor':>7} {'ratio':>6}"
    )
    for size in sys.argv[1:] or ["10000", "100000", "1000000"]:
        subprocess.run([sys.executable, __file__, "--one", size], check=True)


if __name__ == "__main__":
    main()
