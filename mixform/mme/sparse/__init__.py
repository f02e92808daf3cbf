"""Sparse linear algebra for large mixed model equations, compiled by numba.

Imported only when a model needs it: the first use on a machine compiles the kernels,
which takes 15 to 20 seconds, and later ones load them from disk.

    ordering       which column to eliminate first
    tree           what depends on what, and how many entries there will be
    supernodes     columns worked as one dense block
    symbolic       where every entry goes
    numeric        the factor
    triangular     solves with it
    selected_inverse   entries of M^-1 on the pattern of M
    cholesky       the six above for any symmetric matrix: `analyze`
    crossproduct, assembly   M from codes and designs
    backend        the two together: `SparseEquations`
    jit, blas      how kernels are compiled, and how they reach BLAS
"""

from mixform.mme.sparse.assembly import ZtX as ZtX
from mixform.mme.sparse.backend import SparseEquations as SparseEquations
from mixform.mme.sparse.backend import SparseFactor as SparseFactor
from mixform.mme.sparse.cholesky import (
    NotPositiveDefiniteError as NotPositiveDefiniteError,
)
from mixform.mme.sparse.cholesky import analyze as analyze
