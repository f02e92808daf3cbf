"""How related levels enter the equations: by a precision, or by a loading."""

from __future__ import annotations

from mixform._typing import Matrix
from mixform.design import Design, RandomBlock
from mixform.errors import DesignError
from mixform.mme import ZBlock

#: Random effects up to which a model with a dense covariance is solved densely.
LOADING_LIMIT = 6000


def by_precision(design: Design, backend: str) -> bool:
    """Whether dense covariances enter by K^-1, which the sparse backend needs.

    A loading loses no digits where K is nearly singular, and costs no more as long as
    the equations are small enough to be dense.

    Raises
    ------
    DesignError : the sparse backend is asked for and a covariance has no inverse
    """
    q = sum(block.m * block.k for block in design.blocks)
    if backend == "dense" or (backend == "auto" and q <= LOADING_LIMIT):
        return False
    for block in design.blocks:
        relation = block.relation
        if relation is None or relation.precision is not None:
            continue
        if backend != "sparse":
            return False
        raise DesignError(
            f"The {relation.description} of {block.term.group_label!r} has no inverse, "
            "which the sparse solver needs.",
            hint='Leave the backend to "auto", or blend K: 0.99 K + 0.01 I.',
        )
    return True


def z_block(block: RandomBlock, values: Matrix, *, inverted: bool) -> ZBlock:
    """Return a term as numbers.

    Parameters
    ----------
    values : (n, k) scaled covariates
    inverted : dense covariances enter by their inverse
    """
    relation, codes = block.relation, block.codes
    if relation is None:
        return ZBlock(codes=codes, design=values, m=block.m)
    F = relation.loading
    if F is None or inverted:
        Q = relation.precision
        return ZBlock(codes=codes, design=values, m=block.m, precision=Q)
    return ZBlock(codes=codes, design=values, m=F.shape[1], loading=F)
