"""The scaled problem: what the search sees, and which terms are refused."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf
from mixform.design import build_design
from mixform.errors import DesignError
from mixform.estimate.problem import build_problem, split_blocks
from mixform.formula import parse_formula


def problem_of(formula, data, *, reml=True, **keywords):
    formula = parse_formula(formula, ("us", "diag"))
    return build_problem(build_design(formula, data, **keywords), reml=reml)


def two_groupings(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "y": rng.normal(size=n),
        "x": rng.normal(size=n) * 1e6 + 3e6,
        "g": np.arange(n) % 6,
        "h": np.arange(n) % 5,
        "w": rng.uniform(0.5, 2.0, n),
    }


@pytest.mark.parametrize("weights", [None, "w"])
def test_response_is_projected_off_X_and_scaled(weights):
    data = two_groupings()
    problem = problem_of("y ~ x + (1 | g)", data, weights=weights)
    assert problem.yty == pytest.approx(problem.n - problem.p)
    root = 1.0 if weights is None else np.sqrt(data["w"])
    X = np.column_stack([np.ones(30), data["x"]])
    W = np.eye(30) if weights is None else np.diag(data["w"])
    beta = np.linalg.solve(X.T @ W @ X, X.T @ W @ data["y"])
    rest = root * (data["y"] - X @ beta)
    assert problem.y_scale == pytest.approx(np.sqrt(rest @ rest / 28))


@pytest.mark.parametrize("weights", [None, "w"])
def test_columns_of_Z_have_unit_root_mean_square(weights):
    problem = problem_of("y ~ x + (x | g)", two_groupings(), weights=weights)
    design = problem.blocks[0].design
    np.testing.assert_allclose(np.mean(design**2, axis=0), 1.0)


def test_log_determinant_of_R_is_that_of_the_weights():
    data = two_groupings()
    problem = problem_of("y ~ x + (1 | g)", data, weights="w")
    assert problem.logdet_R == pytest.approx(-np.log(data["w"]).sum())


@pytest.mark.parametrize(("reml", "expected"), [(True, 28), (False, 30)])
def test_residual_df_is_n_minus_p_under_reml(reml, expected):
    problem = problem_of("y ~ x + (1 | g)", two_groupings(), reml=reml)
    assert problem.residual_df == expected


def test_parameters_of_terms_stand_side_by_side():
    problem = problem_of("y ~ x + (x | g) + (x || h)", two_groupings())
    assert problem.theta_slices == (slice(0, 3), slice(3, 5))
    np.testing.assert_array_equal(problem.start(), [0.7, 0.0, 0.7, 0.7, 0.7])
    assert problem.n_theta == 5


def test_arrays_are_cut_by_block_level_and_coefficient():
    problem = problem_of("y ~ x + (x | g) + (1 | h)", two_groupings())
    first, second = split_blocks(np.arange(17.0), problem.blocks)
    assert first.shape == (6, 2)
    assert second.shape == (5, 1)
    assert first[1].tolist() == [2.0, 3.0]
    assert second[:, 0].tolist() == [12.0, 13.0, 14.0, 15.0, 16.0]


def one_row_each(n=12):
    rng = np.random.default_rng(1)
    return {"y": rng.normal(size=n), "x": rng.normal(size=n), "g": np.arange(n)}


def test_intercept_with_a_level_for_each_row_is_refused():
    with pytest.raises(DesignError, match="cannot be told from the residual") as caught:
        problem_of("y ~ x + (1 | g)", one_row_each())
    assert "12 effects for 12 rows" in str(caught.value)
    start = "y ~ x + (1 | g)".index("(")
    assert caught.value.span == (start, len("y ~ x + (1 | g)"))


def test_slope_with_a_level_for_each_row_is_identified():
    # Its variance grows with x squared, the residual's does not.
    assert problem_of("y ~ x + (0 + x | g)", one_row_each()).n_theta == 1


def test_slope_of_a_sign_with_a_level_for_each_row_is_refused():
    data = one_row_each() | {"s": np.tile([1.0, -1.0], 6)}
    with pytest.raises(DesignError, match="cannot be told from the residual"):
        problem_of("y ~ x + (0 + s | g)", data)


def test_intercept_and_slope_of_pairs_at_two_times_are_refused():
    # 2 x 2 covariance + sigma^2 I: the residual is inside the family.
    data = {"y": np.arange(12.0) ** 2, "t": np.arange(12) % 2, "g": np.arange(12) // 2}
    with pytest.raises(DesignError, match="cannot be told from the residual"):
        problem_of("y ~ t + (t | g)", data)


def test_intercept_and_slope_of_pairs_at_random_times_are_identified():
    rng = np.random.default_rng(2)
    data = {"y": np.arange(12.0) ** 2, "t": rng.normal(size=12)}
    data["g"] = np.arange(12) // 2
    assert problem_of("y ~ t + (t | g)", data).n_theta == 3


def test_diagonal_pairs_at_two_times_are_identified():
    # Var of the second time exceeds that of the first: no multiple of the identity.
    data = {"y": np.arange(12.0) ** 2, "t": np.arange(12) % 2, "g": np.arange(12) // 2}
    assert problem_of("y ~ t + (t || g)", data).n_theta == 2


def test_weights_make_a_level_for_each_row_identified():
    """As in a meta-analysis: the residual variances are known up to a factor."""
    data = one_row_each() | {"w": np.linspace(1.0, 4.0, 12)}
    assert problem_of("y ~ x + (1 | g)", data, weights="w").n_theta == 1


def test_zero_coefficient_is_refused():
    data = two_groupings() | {"z": np.zeros(30)}
    with pytest.raises(DesignError, match=r"'z' of .* is zero in all rows"):
        problem_of("y ~ x + (0 + z | g)", data)


def test_constant_response_is_refused():
    data = two_groupings() | {"y": np.full(30, 3.7)}
    with pytest.raises(DesignError, match="The response 'y' is constant"):
        problem_of("y ~ x + (1 | g)", data)


def test_response_that_X_fits_exactly_is_refused():
    data = two_groupings()
    data["y"] = 1.0 + 2.0 * data["x"]
    with pytest.raises(DesignError, match="fixed effects fit the response 'y' exactly"):
        mf.fit("y ~ x + (1 | g)", data)
