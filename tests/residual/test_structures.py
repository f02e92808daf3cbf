"""Every registered residual structure: derivatives, round trips, published forms."""

import numpy as np
import pytest

from mixform.residual import RESIDUALS, make_structure

#: Each structure with each set of its options.
CASES = [
    (name, options)
    for name, (_, _, known) in RESIDUALS.items()
    for options in (
        {},
        *([{"nugget": True}] if "nugget" in known else []),
        *([{"nu": 0.8}] if "nu" in known else []),
    )
]
LABELS = ("a", "b", "c", "d", "e")


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{case[1] or ''}")
def case(request):
    """A family, its number of positions, differences of positions, a point r."""
    name, options = request.param
    family = make_structure(name, options).family
    rng = np.random.default_rng(5)
    if family.kind == "distance":
        points = rng.normal(size=(5, 2))
        D = np.linalg.norm(points[:, None] - points, axis=2)[None]
        size, labels = 1, ()
    else:
        places = np.array([0, 1, 2, 4, 5]) if family.kind == "integer" else np.arange(5)
        D = np.abs(places[:, None] - places)
        size, labels = 5, LABELS
    c = len(family.names(labels))
    x = family.start(size, 1.3) + 0.3 * rng.normal(size=c)
    return family, size, D, x


def differences(function, point):
    """Central differences of fourth order, one for each entry of the point."""
    out = []
    for k, unit in enumerate(np.eye(len(point))):
        h = 1e-3 * max(abs(point[k]), 0.3)
        low, lower, upper, high = (
            function(point + s * h * unit) for s in (-2, -1, 1, 2)
        )
        out.append((low - 8 * lower + 8 * upper - high) / (12 * h))
    return np.array(out)


def test_natural_and_unconstrained_parameters_undo_each_other(case):
    family, size, _, x = case
    np.testing.assert_allclose(
        family.internal(family.natural(x, size), size), x, rtol=1e-10
    )


def test_jacobian_is_that_of_the_natural_parameters(case):
    family, size, _, x = case
    if not len(x):
        pytest.skip("no parameters")
    expected = differences(lambda at: family.natural(at, size), x).T
    np.testing.assert_allclose(family.jacobian(x, size), expected, atol=1e-9)


@pytest.mark.parametrize("far", [1.0, 4.0])
def test_every_point_gives_a_positive_definite_correlation_matrix(case, far):
    family, size, D, x = case
    rng = np.random.default_rng(1)
    for _ in range(20):
        r = family.natural(x + far * rng.normal(size=len(x)) / 2.0, size)
        C = np.asarray(family.correlation(r, D)).reshape(5, 5)
        np.testing.assert_allclose(C, C.T, atol=0)
        np.testing.assert_allclose(C.diagonal(), 1.0, atol=0)
        assert np.linalg.eigvalsh(C)[0] > -1e-13


def test_derivatives_by_natural_parameters(case):
    family, size, D, x = case
    if not len(x):
        pytest.skip("no parameters")
    r = family.natural(x, size)
    expected = differences(lambda at: family.correlation(at, D), r)
    np.testing.assert_allclose(family.derivatives(r, D), expected, atol=1e-9)
    expected = differences(lambda at: family.derivatives(at, D), r)
    # Twice by Matern's smoothness: rounding of Bessel functions over a squared step.
    smooth = "nu" in family.names(LABELS)
    np.testing.assert_allclose(
        family.second_derivatives(r, D), expected, atol=1e-7 if smooth else 1e-8
    )


def test_names_are_as_many_as_parameters():
    for name, options in CASES:
        family = make_structure(name, options).family
        size = 1 if family.kind == "distance" else 5
        labels = () if size == 1 else LABELS
        assert len(family.names(labels)) == len(family.start(size, 1.0))


def test_published_forms_of_the_correlations():
    lags = np.abs(np.arange(4)[:, None] - np.arange(4))
    ar1 = make_structure("ar1", {}).family.correlation(np.array([-0.5]), lags)
    np.testing.assert_array_equal(ar1[0], [1.0, -0.5, 0.25, -0.125])
    ante = make_structure("ante1", {}).family
    C = ante.correlation(np.array([0.5, 0.25, -0.5]), lags)
    np.testing.assert_array_equal(C[0], [1.0, 0.5, 0.125, -0.0625])
    toep = make_structure("toep", {}).family
    C = toep.correlation(np.array([0.5, 0.25, 0.1]), lags)
    np.testing.assert_array_equal(C[3], [0.1, 0.25, 0.5, 1.0])
    D = np.array([[[0.0, 2.0], [2.0, 0.0]]])
    gau = make_structure("gau", {"nugget": True}).family
    np.testing.assert_allclose(
        gau.correlation(np.array([1.0, 0.25]), D)[0, 0, 1], 0.75 * np.exp(-4.0)
    )


def test_matern_has_its_closed_forms():
    """Smoothness 1/2 is exponential; 3/2 is (1 + t) exp(-t) (Matern 1960)."""
    D = np.array([[[0.0, 1.7], [1.7, 0.0]]])
    half = make_structure("mat", {"nu": 0.5}).family
    np.testing.assert_allclose(
        half.correlation(np.array([0.9]), D)[0, 0, 1], np.exp(-1.7 / 0.9), rtol=1e-14
    )
    free = make_structure("mat", {}).family
    t = 1.7 / 0.9
    np.testing.assert_allclose(
        free.correlation(np.array([0.9, 1.5]), D)[0, 0, 1],
        (1.0 + t) * np.exp(-t),
        rtol=1e-14,
    )


def test_toeplitz_of_one_partial_autocorrelation_is_ar1():
    toep = make_structure("toep", {}).family
    r = toep.natural(np.arctanh([0.6, 0.0, 0.0]), 4)
    np.testing.assert_allclose(r, [0.6, 0.36, 0.216], rtol=1e-14)
