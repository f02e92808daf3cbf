"""The quadratic subproblem is solved exactly; the secant holds what A misses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixform.estimate import trust_region
from mixform.estimate.trust_region import trust_region_step

cases = settings(max_examples=60, deadline=None, derandomize=True)


def quadratic(seed):
    rng = np.random.default_rng(seed)
    t = int(rng.integers(1, 7))
    Q = np.linalg.qr(rng.normal(size=(t, t)))[0]
    values = rng.normal(size=t) * 10.0 ** rng.uniform(-3, 3, t)
    if rng.integers(2):
        values = np.abs(values)
    return Q @ np.diag(values) @ Q.T, rng.normal(size=t) * 10.0 ** rng.uniform(-3, 3)


@cases
@given(seed=st.integers(0, 10_000), radius=st.floats(1e-3, 1e3))
def test_step_meets_the_conditions_of_the_minimum_in_the_ball(seed, radius):
    # (H + shift I) s = -g, shift >= 0, H + shift I >= 0, shift (radius - |s|) = 0.
    H, g = quadratic(seed)
    s, _, inside = trust_region_step(H, g, radius)
    assert np.linalg.norm(s) <= radius * 1.002
    shift = -(s @ (g + H @ s)) / (s @ s)
    scale = np.abs(H).max() + np.abs(g).max() / np.linalg.norm(s)
    assert shift >= -1e-9 * scale
    residual = H @ s + shift * s + g
    np.testing.assert_allclose(
        residual, 0.0, atol=1e-7 * (np.abs(g).max() + scale * np.linalg.norm(s))
    )
    assert np.linalg.eigvalsh(H)[0] + shift >= -1e-7 * scale
    if not inside:
        assert np.linalg.norm(s) == pytest.approx(radius, rel=2e-3)


@cases
@given(seed=st.integers(0, 10_000), radius=st.floats(1e-2, 1e2))
def test_predicted_decrease_is_that_of_the_quadratic(seed, radius):
    H, g = quadratic(seed)
    s, predicted, _ = trust_region_step(H, g, radius)
    assert predicted == pytest.approx(-(g @ s + 0.5 * s @ H @ s), rel=1e-6, abs=1e-12)
    assert predicted >= 0.0


def test_step_without_slope_along_the_negative_direction_still_takes_it():
    H, g = np.diag([-1.0, 2.0]), np.array([0.0, 0.2])
    s, predicted, inside = trust_region_step(H, g, 1.0)
    assert not inside
    # s2 = -0.2 / (2 + 1), the rest of the radius along the negative direction.
    assert s[1] == pytest.approx(-0.2 / 3.0, rel=1e-6)
    assert np.linalg.norm(s) == pytest.approx(1.0, rel=1e-6)
    assert predicted == pytest.approx(0.5 + 0.5 * 0.2**2 / 3.0, rel=1e-6)


def test_direction_without_curvature_and_slope_is_left_alone():
    s, _, inside = trust_region_step(np.diag([2.0, 0.0]), np.array([1.0, 0.0]), 10.0)
    assert inside
    np.testing.assert_allclose(s, [-0.5, 0.0])


@cases
@given(seed=st.integers(0, 10_000))
def test_secant_update_reproduces_the_change_of_the_gradient(seed):
    rng = np.random.default_rng(seed)
    t = int(rng.integers(1, 6))
    A, B = (M @ M.T for M in rng.normal(size=(2, t, t)))
    step, dg = rng.normal(size=(2, t))
    if abs(dg @ step) < 0.1 * np.linalg.norm(dg) * np.linalg.norm(step):
        dg = dg + step
    updated = trust_region._secant_update(B, step, dg, A)
    np.testing.assert_allclose((A + updated) @ step, dg, atol=1e-8)
    np.testing.assert_allclose(updated, updated.T, atol=1e-10)


def test_secant_update_skips_a_change_without_curvature():
    B = np.eye(2)
    step, dg = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    updated = trust_region._secant_update(B, step, dg, np.zeros((2, 2)))
    np.testing.assert_allclose(updated, 0.0)  # sized: none of B was seen in the step


@pytest.mark.parametrize(
    ("ratio", "length", "expected"),
    [
        (-1.0, 1.0, 0.25),
        (0.1, 1.0, 0.5),
        (0.5, 1.0, 1.0),
        (0.9, 1.0, 2.5),
        (0.9, 0.5, 1.0),
    ],
)
def test_radius_follows_the_quality_of_the_prediction(ratio, length, expected):
    step = np.array([length, 0.0])
    assert trust_region._next_radius(1.0, step, ratio) == expected


def test_slope_without_any_curvature_ends_at_the_radius():
    s, predicted, inside = trust_region_step(np.zeros((1, 1)), np.array([-4.0]), 0.5)
    assert not inside
    assert s[0] == pytest.approx(0.5)
    assert predicted == pytest.approx(2.0)
