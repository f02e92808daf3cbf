"""How related levels enter the equations: by a precision, or by a loading."""

from __future__ import annotations

from collections.abc import Sequence

from mixform._typing import Matrix
from mixform.design import Design, RandomBlock, Relation
from mixform.errors import DesignError
from mixform.mme import ZBlock

#: Random effects up to which a model with a dense covariance is solved densely, if no
#: more than half of them, or this few, are of other terms.
LOADING_LIMIT = 6000
FEW_OTHERS = 400
#: Random effects up to which it is solved densely because K is singular: a minute for
#: each evaluation.
SINGULAR_LIMIT = 12_000


def by_precision(design: Design, backend: str) -> bool:
    """Whether dense covariances enter by K^-1, which the sparse backend needs.

    A loading loses no digits where K is nearly singular, and costs no more as long as
    the equations are small enough to be dense.

    Raises
    ------
    DesignError : a covariance has no inverse, and the sparse backend is asked for or
        the model is too large for the dense one
    """
    q = sum(block.m * block.k for block in design.blocks)
    loaded = [b for b in design.blocks if b.relation and b.relation.loading is not None]
    own = sum(block.m * block.k for block in loaded)
    small = q <= LOADING_LIMIT and q - own <= max(own, FEW_OTHERS)
    if backend == "dense" or (backend == "auto" and small):
        return False
    for block in loaded:
        relation = block.relation
        assert relation is not None, "a loaded block has a relation"
        if relation.precision is not None:
            continue
        if backend == "auto" and q <= SINGULAR_LIMIT:
            return False
        raise DesignError(
            f"The {relation.description} of {block.term.group_label!r} has no inverse, "
            f"which {q} random effects need for the sparse solver.",
            hint='Blend K, 0.99 K + 0.01 I, or ask for control={"backend": "dense"}.',
        )
    return True


def relations_of(
    blocks: Sequence[ZBlock], design: Design
) -> tuple[Relation | None, ...]:
    """Return the relation of each block's columns of Z; empty if all are independent.

    The factors of a loading are.
    """
    relations = tuple(
        None if block.precision is None else term.relation
        for block, term in zip(blocks, design.blocks, strict=True)
    )
    return () if all(relation is None for relation in relations) else relations


def logdet_P(blocks: Sequence[ZBlock], relations: Sequence[Relation | None]) -> float:
    """Return log|P|, of precisions A^-1 (x) I_k."""
    return -sum(
        block.k * relation.logdet
        for block, relation in zip(blocks, relations, strict=False)
        if relation is not None
    )


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
