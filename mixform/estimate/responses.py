"""Responses on the scale they are solved on: projected off X, of unit SD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import Design
from mixform.estimate.identification import (
    LEAST_VARIATION,
    require_size,
    require_variation,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Responses:
    """r responses of one design, on the scale they are solved on.

    Attributes
    ----------
    rest : (n, r) what X leaves of each, rows scaled by R^-1/2, of unit SD
    y_scale : (r,) standard deviation that each was divided by
    projection : (p, r) Q'y, what was taken out of each
    largest : (r,) largest absolute value of each, rows scaled by R^-1/2
    size : (r,) root mean square of each, relative to the largest value
    """

    rest: Matrix
    y_scale: Vector
    projection: Matrix
    largest: Vector
    size: Vector

    @property
    def determined(self) -> np.ndarray:
        """Which of them X does not fit exactly, (r,) boolean."""
        return self.y_scale > LEAST_VARIATION * self.size

    def take(self, which: np.ndarray) -> Responses:
        """Return some of them."""
        return Responses(
            rest=self.rest[:, which],
            y_scale=self.y_scale[which],
            projection=self.projection[:, which],
            largest=self.largest[which],
            size=self.size[which],
        )


def scale_responses(design: Design, Y: Matrix) -> Responses:
    """Project responses Y (n, r), in the user's units, off X and scale them."""
    if design.offset is not None:
        Y = Y - design.offset[:, None]
    if design.weights is not None:
        Y = Y * np.sqrt(design.weights)[:, None]
    Q = design.fixed.Q
    n, p = Q.shape
    # Divided by the largest value, squares neither over- nor underflow.
    largest = np.abs(Y).max(axis=0)
    unit = np.where(largest > 0.0, largest, 1.0)
    Y = Y / unit
    projection = Q.T @ Y
    rest = Y - Q @ projection
    again = Q.T @ rest  # once more: what rounding left behind
    projection += again
    rest -= Q @ again
    scale = np.sqrt(np.einsum("ij,ij->j", rest, rest) / (n - p))
    rest /= np.where(scale > 0.0, scale, 1.0)
    return Responses(
        rest=rest,
        y_scale=scale * unit,
        projection=projection * unit,
        largest=largest,
        size=np.sqrt(np.einsum("ij,ij->j", Y, Y) / n) * unit,
    )


def require_response(design: Design, responses: Responses, j: int) -> None:
    """Refuse response j, that of the design, if it leaves nothing to estimate."""
    require_size(design, float(responses.largest[j]))
    require_variation(design, float(responses.size[j]), float(responses.y_scale[j]))


def checked_response(design: Design) -> Responses:
    """Return the response of a design, scaled.

    Raises
    ------
    DesignError : it is constant or fitted exactly by X
    """
    response = scale_responses(design, design.y[:, None])
    require_response(design, response, 0)
    return response
