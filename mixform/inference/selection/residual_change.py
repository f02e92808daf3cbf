"""How the residual structures of two models differ, one inside the other or not."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixform._typing import Codes
from mixform.design import Design, ResidualPart
from mixform.design.frame import factorize
from mixform.design.reduce import is_within
from mixform.design.residual import same_residuals
from mixform.formula import ResidualTerm

#: Not at all; the larger holds the smaller; it does so only at the edge of the range of
#: a parameter; it does not.
ResidualChange = Literal["same", "held", "edge", "other"]

#: Structure -> those that hold it for the same subjects and positions.
HOLDERS = {
    "cs": {"csh", "toep", "toeph", "us"},
    "csh": {"toeph", "us"},
    "ar1": {"arh1", "toep", "toeph", "ante1", "us"},
    "arh1": {"toeph", "ante1", "us"},
    "car1": {"us"},
    "toep": {"toeph", "us"},
    "toeph": {"us"},
    "ante1": {"us"},
    "diag": {"csh", "arh1", "toeph", "ante1", "us"},
    "exp": {"mat"},
}

#: Structures that take positions by their rank, which is as good as integers where
#: these are equally spaced.
BY_RANK = {"toep", "toeph", "ante1"}

#: Structures without a parameter value inside its range that makes residuals
#: independent with equal variance.
INDEPENDENT_AT_EDGE = {"car1", "exp", "gau", "mat"}


def residual_change(small: Design, large: Design) -> ResidualChange:
    """Return how the residual structure of the larger model differs."""
    one, two = small.residual, large.residual
    if same_residuals(one, two):
        return "same"
    if two is None or not _dispersion_held(one, two):
        return "other"
    term = None if one is None else one.term
    if term is None:
        at_edge = two.term is not None and two.term.structure in INDEPENDENT_AT_EDGE
        return "edge" if at_edge else "held"
    assert one is not None, "there is a structure"
    if two.term is None:
        return "other"
    return _of_structures(one, two, term, two.term)


def _of_structures(
    one: ResidualPart, two: ResidualPart, term: ResidualTerm, other: ResidualTerm
) -> ResidualChange:
    """Return how two structures differ."""
    same_place = set(term.coordinates) == set(other.coordinates)
    alone = term.structure == "diag"
    if not same_place or not (alone or _refines(one.subjects, two.subjects)):
        return "other"
    if not alone and not _refines(two.subjects, one.subjects):
        return "other"
    if not _refines(two.strata, one.strata):
        return "other"
    if term.structure == other.structure:
        return _by_options(dict(term.options), dict(other.options))
    if other.structure not in HOLDERS.get(term.structure, set()):
        return "other"
    if term.structure in {"ar1", "arh1"} and other.structure in BY_RANK:
        return "held" if _equally_spaced(one) else "other"
    if other.structure == "mat":
        nu = dict(other.options).get("nu", 0.5)
        options = {n: v for n, v in other.options if n != "nu"}
        return _by_options(dict(term.options), options) if nu == 0.5 else "other"
    return "held"


def _by_options(small: dict[str, object], large: dict[str, object]) -> ResidualChange:
    """Return how structures of one name differ by what was written with them."""
    if small.get("nu") != large.get("nu") and "nu" in large:
        return "other"
    nuggets = bool(small.get("nugget")), bool(large.get("nugget"))
    if nuggets == (True, False):
        return "other"
    return "edge" if nuggets == (False, True) else "held"


def _refines(fine: Codes, coarse: Codes) -> bool:
    """Whether rows that are together in the first are together in the second."""
    pairs = np.unique(np.column_stack([fine, coarse]), axis=0)
    return len(pairs) == len(np.unique(fine))


def _equally_spaced(part: ResidualPart) -> bool:
    """Whether the positions of each stratum are."""
    ((name, column),) = part.coordinates.items()
    codes, levels = factorize(column, name)
    if levels.dtype.kind not in "iuf":
        values = np.arange(len(levels), dtype=np.float64)
    else:
        values = levels.to_numpy(dtype=np.float64)
    for s in range(len(part.stratum_labels)):
        gaps = np.diff(values[np.unique(codes[part.strata == s])])
        if len(gaps) and not np.all(gaps == gaps[0]):
            return False
    return True


def _dispersion_held(one: ResidualPart | None, two: ResidualPart) -> bool:
    if one is None or not one.dispersion_names:
        return True
    ones = np.ones((len(two.subjects), 1))
    return is_within(one.dispersion_values, np.hstack([ones, two.dispersion_values]))


def model_text(design: Design) -> str:
    """Return the formula with the residual structure, if there is one."""
    part, text = design.residual, design.formula.source
    if part is not None and part.term is not None:
        text += f", residual {part.term.source}"
    if part is not None and part.dispersion_names:
        text += f", dispersion ~ {' + '.join(part.dispersion_names)}"
    return text
