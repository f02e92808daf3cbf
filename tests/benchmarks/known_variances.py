"""Time, memory and iterations of an animal model at given variances.

    python tests/benchmarks/known_variances.py [cg | sparse] [animals ...]

One record of each animal, ten generations of 100 sires each, h^2 = 1/3, sex as fixed
effect. Threads are pinned to 1 before NumPy is loaded.
"""

from __future__ import annotations

import os
import resource
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import mixform as mf  # noqa: E402

VARIANCES = {"animal": 20.0, "residual": 40.0}
SIRES = 100


def simulate(n: int) -> tuple[pd.DataFrame, mf.Pedigree]:
    """Return records and pedigree: animals of a generation are sons first."""
    rng = np.random.default_rng(n)
    size = n // 10
    number = np.arange(size * 10)
    generation = number // size
    before = (generation - 1) * size
    sire = before + rng.integers(0, SIRES, len(number))
    dam = before + rng.integers(SIRES, size, len(number))
    founder = generation == 0
    pedigree = mf.Pedigree(
        pd.DataFrame(
            {
                "animal": number + 1,
                "sire": np.where(founder, 0, sire + 1),
                "dam": np.where(founder, 0, dam + 1),
            }
        )
    )
    u = np.sqrt(20.0) * pedigree.times_root(rng.standard_normal((len(number), 1)))
    where = pedigree.labels.get_indexer((number + 1).astype(str))
    male = rng.random(len(number)) < 0.5
    y = 100.0 + 5.0 * male + u[where, 0] + np.sqrt(40.0) * rng.standard_normal(len(u))
    sex = np.where(male, "male", "female")
    return pd.DataFrame({"animal": number + 1, "sex": sex, "y": y}), pedigree


def main(backend: str, sizes: list[int]) -> None:
    """Fit each size once, and print what it took."""
    for n in sizes:
        start = time.perf_counter()
        data, pedigree = simulate(n)
        simulated = time.perf_counter()
        m = mf.fit(
            "y ~ sex + (1 | animal)",
            data,
            relationship={"animal": pedigree},
            varcomp=VARIANCES,
            control={"backend": backend},
            progress=False,
        )
        seconds = time.perf_counter() - simulated
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{backend} {n} animals: fit {seconds:.1f} s (pedigree and data "
            f"{simulated - start:.1f} s), peak {peak:.2f} GB; sex "
            f"{m.params.iloc[1]:.6f} ({m.bse.iloc[1]:.6f}); {m.convergence.message}"
        )


if __name__ == "__main__":
    backends = [one for one in sys.argv[1:2] if not one.isdigit()] or ["cg"]
    main(backends[0], [int(one) for one in sys.argv[1:] if one.isdigit()] or [10**6])
