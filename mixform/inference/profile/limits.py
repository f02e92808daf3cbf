"""Limits of curved structures on the way of a profile.

Where a correlation is at its limit the criterion is stationary in it by symmetry, as in
`estimate.limits`, so that a search that was there stays when the minimum moves inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixform._typing import Vector
from mixform.covariance import is_curved
from mixform.estimate.certificate import EIGENVALUE_TOLERANCE
from mixform.inference.profile.coordinates import Coordinates
from mixform.inference.profile.criterion import Value

#: How far inside the slope is taken, an angle.
PROBE = 1e-3


def directions_inward(
    coordinates: Coordinates, kappa: float, x: Vector
) -> list[tuple[Vector, Vector]]:
    """Return x at limits that it is near to, and a direction from each."""
    w, _ = coordinates.place(kappa, x)
    chart = coordinates.chart
    out: list[tuple[Vector, Vector]] = []
    for structure, where, basis in zip(
        chart.structures, chart.slices, chart.bases, strict=True
    ):
        if not is_curved(structure):
            continue
        k = basis.shape[1]
        own = structure.canonical(w[where], k)
        for near in [own, *structure.snapped(own, k)][:2]:
            for step in structure.inward(near, k):
                i = where.start + int(np.argmax(np.abs(step)))
                place = coordinates.position(i)
                if place < 0:
                    continue
                at_limit, direction = x.copy(), np.zeros_like(x)
                at_limit[place] = near[i - where.start]
                direction[place] = step[i - where.start]
                out.append((at_limit, direction))
    return out


def leave_limit(
    evaluate: Callable[[Vector], Value | None],
    coordinates: Coordinates,
    kappa: float,
    x: Vector,
    value: Value,
) -> tuple[Vector, Value] | None:
    """Step off a limit along which the criterion falls; None if there is none."""
    for at_limit, direction in directions_inward(coordinates, kappa, x):
        probe = evaluate(at_limit + PROBE * direction)
        if probe is None:
            continue
        slope = float(probe.gradient @ direction) / PROBE
        if slope >= -EIGENVALUE_TOLERANCE:
            continue
        size = 0.5
        while size > PROBE:
            trial = at_limit + size * direction
            there = evaluate(trial)
            if there is not None and there.criterion < value.criterion - 1e-9:
                return trial, there
            size /= 4.0
    return None
