"""Compiled kernels: one decorator, so that every kernel follows the same rules.

Kernels are compiled on first use and cached on disk. Numba looks for a writable place
in its own order (``NUMBA_CACHE_DIR``, beside the source file, the user's cache
directory); where there is none, on a read-only system without a home directory, the
kernel is compiled afresh in every process instead of failing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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


class CompilationNotice(event.Listener):
    """Say once, in one line on stderr, that kernels of mixform are being compiled.

    Loading a kernel from the cache is no compilation, and neither are other people's
    functions.
    """

    def __init__(self) -> None:
        self.pending = True

    def on_start(self, event: Any) -> None:
        """Print the line at the first kernel that is compiled."""
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        ours = str(getattr(function, "__module__", "")).startswith("mixform.")
        if self.pending and ours:
            self.pending = False
            sys.stderr.write(
                "mixform: compiling numerical kernels, once on this machine "
                "(about 20 seconds)\n"
            )

    def on_end(self, event: Any) -> None:
        """Do nothing: one line is enough."""


event.register("numba:compile", CompilationNotice())
