"""Whether models are of the same data, so that their likelihoods compare."""

from __future__ import annotations

import numpy as np

from mixform.design import Design
from mixform.errors import InferenceError


def require_same_data(one: Design, two: Design, names: tuple[str, str]) -> None:
    """Refuse models of different rows, responses, weights or offsets."""
    first, second = names
    hint = "Fit all models to the same rows, e.g. with the same subset=."
    if not one.row_index.equals(two.row_index):
        counts = f"{first} has {len(one.y)} rows, {second} {len(two.y)}"
        extra = [
            f"{len(gone)} of {whose} not in the other (the first: {gone[0]!r})"
            for whose, gone in (
                (first, one.row_index.difference(two.row_index, sort=False)),
                (second, two.row_index.difference(one.row_index, sort=False)),
            )
            if len(gone)
        ]
        detail = "; ".join(extra) or "in another order"
        raise InferenceError(
            f"The models are of different rows: {counts}; {detail}.",
            hint="Missing values may have dropped them. " + hint,
        )
    ones, nothing = np.ones(len(one.y)), np.zeros(len(one.y))
    pairs = {
        "responses": (one.y, two.y),
        "weights": tuple(ones if d.weights is None else d.weights for d in (one, two)),
        "offsets": tuple(nothing if d.offset is None else d.offset for d in (one, two)),
    }
    for what, (a, b) in pairs.items():
        apart = ~np.isclose(a, b, rtol=1e-9, atol=0.0)
        if apart.any():
            text = "" if what != "responses" else _responses(one, two)
            raise InferenceError(
                f"The {what} of {first} and {second} differ{text} in "
                f"{int(apart.sum())} of {len(a)} rows.",
                hint="Likelihoods of different data are not comparable.",
            )


def _responses(one: Design, two: Design) -> str:
    texts = one.formula.response.text, two.formula.response.text
    return "" if texts[0] == texts[1] else f" ({texts[0]!r} and {texts[1]!r})"
