"""Kernels compile where nothing can be cached, and reach the BLAS they name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixform import _jit as jit
from mixform._jit import CompilationNotice, Floats, kernel
from mixform.mme.sparse.blas import (
    L,
    N,
    R,
    T,
    dgemm,
    dpotrf,
    dpotri,
    dsymm,
    dsyrk,
    dtrsm,
)


def test_a_kernel_compiles_where_no_cache_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_with: Any = numba.njit

    def without_cache(*functions: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available")
        return compile_with(*functions, **options)

    monkeypatch.setattr(jit.numba, "njit", without_cache)
    assert kernel(lambda x: x + 1.0)(2.0) == 3.0


def test_other_errors_of_the_compiler_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(jit.numba, "njit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        kernel(lambda x: x)


def compiled(module: str) -> SimpleNamespace:
    function = SimpleNamespace(__module__=module)
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


def test_compilation_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    notice = CompilationNotice()
    for _ in range(3):
        notice.on_start(compiled("mixform.mme.sparse.numeric"))
    assert capsys.readouterr().err.count("compiling numerical kernels") == 1


def test_compilation_of_other_functions_is_not_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    CompilationNotice().on_start(compiled("somebody.else"))
    assert capsys.readouterr().err == ""


@numba.njit
def call_all(A: Floats, B: Floats, C: Floats, u: int, w: int) -> int:
    """Factor A (w, w); B (u, w) to B A^-T; C (u, u) to C - B B'; then further."""
    a, b, c = A.ctypes.data, B.ctypes.data, C.ctypes.data
    info = dpotrf(L, w, a, w)
    dtrsm(R, L, T, N, u, w, 1.0, a, w, b, u)
    dsyrk(L, N, u, w, -1.0, b, u, 1.0, c, u)
    return info


@numba.njit
def call_others(A: Floats, S: Floats, B: Floats, out: Floats, u: int, w: int) -> int:
    """Invert from the factor A (w, w); out (w, w) is B' S B, S (u, u) symmetric."""
    SB = np.empty(u * w)
    info = dpotri(L, w, A.ctypes.data, w)
    s, b, target = S.ctypes.data, B.ctypes.data, SB.ctypes.data
    dsymm(L, L, u, w, 1.0, s, u, b, u, 0.0, target, u)
    dgemm(T, N, w, w, u, 1.0, b, u, target, u, 0.0, out.ctypes.data, w)
    return info


def test_blas_routines_are_the_ones_they_are_named_after() -> None:
    rng = np.random.default_rng(0)
    u, w = 5, 3
    M = rng.normal(size=(w, w))
    M = M @ M.T + np.eye(w)
    B, C = rng.normal(size=(u, w)), np.eye(u)
    factor, panel, update = (np.asfortranarray(X.copy()) for X in (M, B, C))
    assert call_all(factor, panel, update, u, w) == 0
    expected = np.linalg.cholesky(M)
    assert_allclose(np.tril(factor), expected, atol=1e-12)
    assert_allclose(panel, np.linalg.solve(expected, B.T).T, atol=1e-12)
    assert_allclose(np.tril(update), np.tril(C - panel @ panel.T), atol=1e-12)

    S = rng.normal(size=(u, u))
    S, right, out = S + S.T, np.asfortranarray(B), np.empty((w, w), order="F")
    assert call_others(factor, np.asfortranarray(S), right, out, u, w) == 0
    assert_allclose(np.tril(factor), np.tril(np.linalg.inv(M)), atol=1e-12)
    assert_allclose(out, B.T @ S @ B, atol=1e-12)


def test_an_indefinite_matrix_is_reported_by_its_column() -> None:
    A = np.asfortranarray(np.diag([1.0, 2.0, -1.0]))
    assert call_all(A, np.zeros((1, 3), order="F"), np.zeros((1, 1)), 1, 3) == 3


@pytest.mark.slow
def test_kernels_are_cached_where_the_user_says(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from mixform.mme import ZBlock\n"
        "from mixform.mme.sparse import SparseEquations\n"
        "block = ZBlock(np.array([0, 0, 1]), np.ones((3, 1)), 2)\n"
        "SparseEquations([block]).factor([np.eye(1)]).traces()\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    indexes = sorted(tmp_path.rglob("*.nbi"))
    written = [path.stat().st_mtime_ns for path in indexes]
    assert indexes
    subprocess.run(command, env=environment, check=True)
    assert [path.stat().st_mtime_ns for path in indexes] == written
