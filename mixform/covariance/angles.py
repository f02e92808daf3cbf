"""Angles as parameters of correlations: limits at a finite distance, T smooth there.

A correlation r = sin(x) reaches 1 at x = pi / 2, where the conditional standard
deviation cos(x) goes through zero and changes its sign, as a pivot of an unstructured T
does. Beyond, the same correlations come again.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Vector

HALF_PI = float(np.pi / 2.0)


def sine_cosine(x: Vector) -> tuple[Vector, Vector]:
    """Return sin and cos; exactly 1 and 0 at a right angle."""
    right = np.abs(x) == HALF_PI
    return np.where(right, np.sign(x), np.sin(x)), np.where(right, 0.0, np.cos(x))


def fold_signed(x: Vector) -> Vector:
    """Return the angles of the same sine in [-pi / 2, pi / 2].

    Examples
    --------
    >>> fold_signed(np.array([3.0, -6.0])).round(6)
    array([0.141593, 0.283185])
    """
    turned = np.where(
        np.abs(x) > np.pi, np.remainder(x + np.pi, 2.0 * np.pi) - np.pi, x
    )
    return np.where(
        np.abs(turned) > HALF_PI, np.copysign(np.pi, turned) - turned, turned
    )


def fold_quarter(x: Vector) -> Vector:
    """Return the angles of the same squared sine in [0, pi / 2]."""
    return np.abs(fold_signed(x))
