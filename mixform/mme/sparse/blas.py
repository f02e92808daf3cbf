"""BLAS and LAPACK inside compiled kernels, through SciPy's own library.

SciPy publishes the addresses of its BLAS and LAPACK for Cython code. Each routine
needed here is registered with the just-in-time linker under a name of its own, and a
kernel calls it by that name; a kernel cached on disk is linked again to the present
addresses when it is loaded. Arrays are passed as addresses (``array.ctypes.data`` plus
eight times an offset), sizes and scalars by value, options as character codes. All
matrices are column-major.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from scipy.linalg import cython_blas, cython_lapack

L, N, R, T = ord("L"), ord("N"), ord("R"), ord("T")


def _address(library: Any, name: str) -> int:
    """Return the address of one routine that SciPy exports to Cython."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = library.__pyx_capi__[name]
    signature: bytes = api.PyCapsule_GetName(capsule)
    if b"int *" not in signature:
        raise ImportError(
            f"SciPy's {name} does not take 32-bit integers: {signature!r}"
        )
    return int(api.PyCapsule_GetPointer(capsule, signature))


def _declare(library: Any, name: str, kinds: str) -> Any:
    """Return a function for kernels that calls one Fortran routine.

    `kinds` has one letter per argument: c character code, i integer, d double (each
    passed to Fortran by reference), p address of an array. A last letter r stands for
    LAPACK's ``info``: it is not an argument of the returned function but its value.
    """
    symbol = f"mixform_{name}"
    llvmlite.binding.add_symbol(symbol, _address(library, name))
    pointer = ir.IntType(8).as_pointer()
    storage = {"c": ir.IntType(8), "i": ir.IntType(32), "d": ir.DoubleType()}
    storage["r"] = storage["i"]
    numba_type = {"c": types.intp, "i": types.intp, "d": types.float64, "p": types.intp}
    inputs = kinds.rstrip("r")
    returns_info = inputs != kinds

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def reference(kind: str, value: Any) -> Any:
            if kind == "p":
                return builder.inttoptr(value, pointer)
            slot = cgutils.alloca_once(builder, storage[kind])
            if kind in "ci":
                value = builder.trunc(value, storage[kind])
            builder.store(value, slot)
            return builder.bitcast(slot, pointer)

        passed = [reference(*pair) for pair in zip(inputs, args, strict=True)]
        info = cgutils.alloca_once(builder, storage["i"])
        if returns_info:
            passed.append(builder.bitcast(info, pointer))
        function_type = ir.FunctionType(ir.VoidType(), [pointer] * len(passed))
        routine = cgutils.get_or_insert_function(builder.module, function_type, symbol)
        builder.call(routine, passed)
        if returns_info:
            return builder.sext(builder.load(info), ir.IntType(64))
        return context.get_dummy_value()

    result = types.intp if returns_info else types.void
    signature = result(*(numba_type[kind] for kind in inputs))
    names = ", ".join(f"a{i}" for i in range(len(inputs)))
    scope: dict[str, Any] = {"signature": signature, "codegen": codegen}
    exec(f"def {name}(context, {names}):\n    return signature, codegen\n", scope)
    decorate: Any = intrinsic
    return decorate(scope[name])


dpotrf = _declare(cython_lapack, "dpotrf", "cipir")
dpotri = _declare(cython_lapack, "dpotri", "cipir")
dtrsm = _declare(cython_blas, "dtrsm", "cccciidpipi")
dsyrk = _declare(cython_blas, "dsyrk", "cciidpidpi")
dsymm = _declare(cython_blas, "dsymm", "cciidpipidpi")
dgemm = _declare(cython_blas, "dgemm", "cciiidpipidpi")
