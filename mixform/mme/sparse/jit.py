"""Compiled kernels: one decorator, so that every kernel follows the same rules.

Kernels are compiled on first use and cached on disk. Numba looks for a writable place
in its own order (``NUMBA_CACHE_DIR``, beside the source file, the user's cache
directory); where there is none, on a read-only system without a home directory, the
kernel is compiled afresh in every process instead of failing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import event
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]
#: An integer inside a kernel; type checkers take an array's element for an array.
Index = Any

#: Sums may be reassociated, which lets them be vectorized; NaN and infinity are kept.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile `function` on first call, cached on disk where a place can be found."""
    compile_with: Any = numba.njit
    try:
        return compile_with(cache=True, **_OPTIONS)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return compile_with(**_OPTIONS)(function)


def inlined(function: _Function) -> _Function:
    """Compile `function` as a part of the kernels that call it, with no cache entry."""
    compile_with: Any = numba.njit
    return compile_with(**_OPTIONS)(function)


class _Once(event.Listener):
    """Call a function at the first event."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._pending = [notify]

    def on_start(self, event: object) -> None:
        while self._pending:
            self._pending.pop()()

    def on_end(self, event: object) -> None:
        pass


@contextmanager
def announcing_compilation(notify: Callable[[], None]) -> Generator[None]:
    """Call `notify` once, and only if a kernel has to be compiled inside the block.

    Loading a kernel from the cache does not count.
    """
    with event.install_listener("numba:compile", _Once(notify)):
        yield
