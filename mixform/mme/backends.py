"""Which solver of the mixed model equations a model gets.

By estimated work: a small model is factored by LAPACK in less time than it takes to
load the sparse solver's kernels, a large one only fits in sparse form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from mixform.errors import DesignError, SolverError, suggest
from mixform.mme.dense import DenseEquations
from mixform.mme.equations import Equations, ZBlock
from mixform.mme.iterative import IterativeEquations

#: Random effects up to which the dense backend is chosen: an evaluation of a few
#: milliseconds, less in all than loading the kernels of the sparse one.
DENSE_LIMIT = 400
BACKENDS = ("auto", "dense", "sparse", "cg")

#: Multiplications of one factorisation from which two threads are worth having: in one
#: dense matrix sooner than in the fronts of a sparse one.
SHARED_FLOPS = {"dense": 1e7, "sparse": 1e9, "cg": np.inf}


def build_equations(blocks: Sequence[ZBlock], backend: str) -> Equations:
    """Return the equations of the blocks in the backend asked for.

    Parameters
    ----------
    blocks : the random terms
    backend : "dense", "sparse", "auto" to choose by the number of random effects, or
        "cg" for solutions without a factorisation; blocks with a loading are solved
        densely

    Raises
    ------
    DesignError : unknown backend
    SolverError : the equations would not fit into memory; the message says how much
        they need
    """
    if backend not in BACKENDS:
        raise DesignError(
            f"Unknown backend {backend!r}.", hint=suggest(backend, BACKENDS, "Backends")
        )
    q = sum(block.m * block.k for block in blocks)
    loaded = any(block.loading is not None for block in blocks)
    few = q == 0 or (backend == "auto" and q <= DENSE_LIMIT)
    if backend == "dense" or few or loaded:
        require_memory(DenseEquations.bytes_for(q), f"{q} random effects (dense)")
        return DenseEquations(blocks)
    if backend == "cg":
        return IterativeEquations(blocks)
    # numba takes longer to load than a small model takes to fit.
    from mixform.mme.sparse.backend import SparseEquations  # noqa: PLC0415

    equations = SparseEquations(blocks)
    work = equations.work
    require_memory(
        work.bytes,
        f"{q} random effects (sparse, {work.nnz_L:.3g} entries of the factor)",
    )
    return equations


def few_threads(equations: Equations) -> AbstractContextManager[object]:
    """Keep BLAS to one thread while factors are too small to share.

    Threads that wait for each other on small blocks are slower than one, and much
    slower where other work keeps the cores busy. Needs threadpoolctl (extra
    ``threads``); where factors are large, the user's number of threads is used.
    """
    if equations.q == 0 or equations.flops > SHARED_FLOPS[equations.name]:
        return nullcontext()
    pools = _thread_pools()
    return nullcontext() if pools is None else pools.limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _thread_pools() -> Any:
    """Return the loaded libraries that use threads, found once; None if unknown."""
    try:
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return ThreadpoolController()


def require_memory(needed: float, what: str) -> None:
    """Refuse work that needs more bytes than the machine has.

    Raises
    ------
    SolverError : with both numbers
    """
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return  # this system does not tell; let the allocation speak for itself
    if needed > available:
        raise SolverError(
            f"{what} need {needed / 1e9:.1f} GB; this machine has "
            f"{available / 1e9:.1f} GB.",
            hint="Drop a random term, use fewer levels, or aggregate the data.",
        )
