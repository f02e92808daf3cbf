"""Time the sparse engine on five systems: median of seven, one BLAS thread.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/sparse_engine.py [case ...]

InstEval is read from R's lme4 and left out where there is no R; the others are
simulated with fixed seeds. Columns, in milliseconds: building Z'Z and the pattern,
ordering and symbolic analysis (both once per fit); refilling M, factor, selected
inverse and traces (each once per evaluation).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import io
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from mixform.mme import ZBlock
from mixform.mme.sparse.assembly import assemble
from mixform.mme.sparse.backend import SparseEquations
from mixform.mme.sparse.cholesky import analyze

REPEATS = 7


def factor_block(codes: Any, precision: Any = None) -> ZBlock:
    """Return the block of a random intercept."""
    m = int(codes.max()) + 1 if precision is None else precision.shape[0]
    return ZBlock(codes.astype(np.int32), np.ones((codes.size, 1)), m, precision)


def insteval() -> list[ZBlock]:
    """Return lme4's InstEval: students, lecturers, departments."""
    program = "write.csv(lme4::InstEval[c('s', 'd', 'dept')], row.names = FALSE)"
    printed = subprocess.run(
        ["Rscript", "-e", program], capture_output=True, check=True, text=True
    ).stdout.replace('"', "")
    table = np.loadtxt(io.StringIO(printed), delimiter=",", skiprows=1, dtype=int)
    return [
        factor_block(np.unique(column, return_inverse=True)[1]) for column in table.T
    ]


def slopes() -> list[ZBlock]:
    """Return 125 066 groups of four rows with intercept and slope."""
    codes = np.repeat(np.arange(125_066, dtype=np.int32), 4)
    x = np.random.default_rng(0).normal(size=codes.size)
    return [ZBlock(codes, np.column_stack([np.ones(x.size), x]), 125_066)]


def animals(n: int) -> list[ZBlock]:
    """Return n animals of ten generations, one record each, in herds of fifty."""
    rng = np.random.default_rng(2)
    start = np.searchsorted(np.sort(rng.integers(0, 10, n)), np.arange(11))
    sire, dam = np.full(n, -1), np.full(n, -1)
    for g in range(1, 10):
        own, size = slice(start[g], start[g + 1]), start[g + 1] - start[g]
        sires = rng.integers(start[g - 1], start[g], max(1, size // 50))
        sire[own] = rng.choice(sires, size)
        dam[own] = rng.integers(start[g - 1], start[g], size)
    # Henderson's rules: A^-1 = (I - W)' D^-1 (I - W), W one half at the parents.
    known = np.flatnonzero(sire >= 0)
    rows = np.concatenate([known, known])
    parents = np.concatenate([sire[known], dam[known]])
    W = sparse.csc_array((np.full(rows.size, 0.5), (rows, parents)), shape=(n, n))
    residual = sparse.eye_array(n) - W
    weights = sparse.diags_array(np.where(sire >= 0, 2.0, 1.0))
    precision = residual.T @ weights @ residual
    herds = rng.integers(0, n // 50, n)
    return [factor_block(np.arange(n), precision), factor_block(herds)]


def ratings() -> list[ZBlock]:
    """Return 10^6 ratings, 6 040 users by 3 706 items, both heavy-tailed."""
    rng = np.random.default_rng(1)
    users, items = rng.lognormal(0.0, 1.0, 6_040), rng.lognormal(0.0, 1.6, 3_706)
    u = rng.choice(6_040, 1_350_000, p=users / users.sum()).astype(np.int64)
    keys = np.unique(u * 3_706 + rng.choice(3_706, u.size, p=items / items.sum()))
    keys = rng.permutation(keys)[:1_000_000]
    return [factor_block(keys // 3_706), factor_block(keys % 3_706)]


CASES: dict[str, Callable[[], list[ZBlock]]] = {
    "InstEval": insteval,
    "125 066 groups x 2": slopes,
    "50 000 animals": lambda: animals(50_000),
    "100 000 animals": lambda: animals(100_000),
    "10^6 ratings": ratings,
}


def median_ms(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median time of a call, in milliseconds."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main(names: list[str]) -> None:
    """Print one line per case."""
    small = factor_block(np.array([0, 1, 1, 0])), factor_block(np.array([0, 0, 1, 2]))
    SparseEquations(small).factor([np.eye(1)] * 2).traces()
    print(
        f"{'case':20s}{'q':>8s}{'build':>8s}{'analyze':>8s}{'refill':>8s}{'factor':>8s}"
        f"{'inverse':>8s}{'traces':>8s}{'solve':>8s}{'nnz L':>10s}"
        f"{'flops':>9s}{'MB':>7s}"
    )
    for name in names or CASES:
        if name == "InstEval" and shutil.which("Rscript") is None:
            continue
        blocks = CASES[name]()
        equations = SparseEquations(blocks)
        held = equations.assembly
        T = [0.7 * np.eye(block.k) for block in blocks]
        factor = equations.factor(T)
        values = held.refill(T)
        once = [
            median_ms(lambda blocks=blocks: assemble(blocks), 3),
            median_ms(lambda held=held: analyze(held.indptr, held.indices), 3),
        ]
        selected = factor.selected
        y = np.ones(equations.q)
        every = [
            median_ms(lambda held=held, T=T: held.refill(T)),
            median_ms(lambda e=equations, values=values: e.symbolic.factor(values)),
            median_ms(lambda factor=factor: factor.factor.selected_inverse()),
            median_ms(lambda held=held, T=T, s=selected: held.traces(T, s)),
            median_ms(lambda factor=factor, y=y: factor.solve(y)),
        ]
        work = equations.work
        print(
            f"{name:20s}{equations.q:8d}"
            + "".join(f"{ms:8.1f}" for ms in once + every)
            + f"{work.nnz_L:10d}{work.flops:9.1e}{work.bytes / 1e6:7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
