"""Draws have the mean and covariance of the model, whoever draws them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.inference.resampling.simulation import seed_sequence, simulate


def small_data():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": rng.normal(size=12)})
    data["y"] = 2.0 + data["x"] + rng.normal(size=12)
    data["y"] += 2.0 * rng.normal(size=4).repeat(3)
    data["w"], data["o"] = rng.uniform(0.5, 4.0, 12), rng.normal(size=12)
    return data.set_index(pd.Index([f"row {i}" for i in range(12)]))


@pytest.fixture(scope="module")
def weighted():
    return mf.fit("y ~ x + (x | g)", small_data(), weights="w", offset="o")._fit


def dense_moments(fit):
    design, n = fit.design, fit.n
    V = np.diag(fit.sigma**2 / design.weights)
    for block, T in zip(design.blocks, fit.T, strict=True):
        Z = block.Z.toarray()
        V += fit.sigma**2 * Z @ np.kron(np.eye(block.m), T @ T.T) @ Z.T
    assert V.shape == (n, n)
    return design.fixed.X @ fit.beta + design.offset, V


def test_draws_have_the_mean_and_covariance_of_the_model(weighted):
    nsim = 20_000
    draws = simulate(weighted, nsim, seed=1).to_numpy()
    mean, V = dense_moments(weighted)
    sd = np.sqrt(np.diag(V))
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 4.5 * sd / np.sqrt(nsim))
    # Var(s_ij) = (V_ii V_jj + V_ij^2) / nsim for normal draws.
    error = np.sqrt((np.outer(sd**2, sd**2) + V**2) / nsim)
    assert np.all(np.abs(np.cov(draws) - V) < 4.5 * error)


def test_draws_with_kept_effects_scatter_about_the_fitted_values(weighted):
    nsim = 20_000
    draws = simulate(weighted, nsim, seed=2, use_u=True).to_numpy()
    fitted = dense_moments(weighted)[0]
    for block, b in zip(weighted.design.blocks, weighted.b, strict=True):
        fitted = fitted + block.Z @ b.ravel()
    sd = weighted.sigma / np.sqrt(weighted.design.weights)
    assert np.all(np.abs(draws.mean(axis=1) - fitted) < 4.5 * sd / np.sqrt(nsim))
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=4.5 / np.sqrt(2 * nsim))
    within = np.corrcoef(draws) - np.eye(12)
    assert np.abs(within).max() < 5.0 / np.sqrt(nsim)


def test_effects_of_named_terms_are_kept():
    fit = mf.fit(
        "strength ~ 1 + (1 | batch) + (1 | cask)", mf.datasets.load("Pastes")
    )._fit
    draws = simulate(fit, 4000, seed=3, use_u="batch").to_numpy()
    mean = fit.beta[0] + fit.b[0][fit.design.blocks[0].codes, 0]
    sd = fit.sigma * np.sqrt(1.0 + fit.T[1][0, 0] ** 2)
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 4.5 * sd / np.sqrt(4000))


def test_frame_has_the_index_of_the_rows_in_the_model():
    data = small_data()
    data.loc["row 4", "x"] = np.nan
    draws = simulate(mf.fit("y ~ x + (1 | g)", data)._fit, 2, seed=1)
    assert list(draws.columns) == ["sim_1", "sim_2"]
    assert list(draws.index) == [f"row {i}" for i in range(12) if i != 4]


def test_fewer_draws_are_the_first_of_more(weighted):
    more, fewer = simulate(weighted, 1203, seed=5), simulate(weighted, 700, seed=5)
    pd.testing.assert_frame_equal(more.iloc[:, :700], fewer)


@pytest.mark.parametrize("seed", [7, np.int64(7), np.random.SeedSequence(7)])
def test_same_seed_same_draws(weighted, seed):
    first, second = simulate(weighted, 3, seed=seed), simulate(weighted, 3, seed=seed)
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, simulate(weighted, 3, seed=7))


def test_generator_moves_on_and_no_seed_is_a_new_one(weighted):
    rng = np.random.default_rng(1)
    first, second = simulate(weighted, 1, seed=rng), simulate(weighted, 1, seed=rng)
    assert not np.allclose(first, second)
    again = simulate(weighted, 1, seed=np.random.default_rng(1))
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(simulate(weighted), simulate(weighted))


def test_global_random_state_is_left_alone(weighted):
    np.random.seed(3)  # noqa: NPY002 - what users of it would see
    expected = np.random.normal()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    simulate(weighted, 5)
    assert np.random.normal() == expected  # noqa: NPY002


def test_singular_model_draws_no_effects():
    fit = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))._fit
    draws = simulate(fit, 5000, seed=1).to_numpy()
    batch_means = draws.reshape(6, 5, -1).mean(axis=1)
    assert batch_means.var() == pytest.approx(fit.sigma**2 / 5, rel=0.1)


def test_model_without_random_terms_is_drawn_from():
    fit = mf.fit("y ~ x", small_data())._fit
    draws = simulate(fit, 4000, seed=1).to_numpy()
    np.testing.assert_allclose(draws.std(axis=1), fit.sigma, rtol=0.07)


# New data.


def test_new_rows_of_the_old_data_have_the_same_distribution(weighted):
    nsim = 20_000
    draws = simulate(weighted, nsim, seed=4, newdata=small_data()).to_numpy()
    mean, V = dense_moments(weighted)
    sd = np.sqrt(np.diag(V))
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 4.5 * sd / np.sqrt(nsim))
    error = np.sqrt((np.outer(sd**2, sd**2) + V**2) / nsim)
    assert np.all(np.abs(np.cov(draws) - V) < 4.5 * error)


def test_new_levels_get_effects_of_their_own():
    fit = mf.fit("y ~ x + (1 | g)", small_data())._fit
    new = pd.DataFrame({"x": np.zeros(4), "g": ["new", "a", "new", "other"]})
    for use_u in (False, True):
        draws = simulate(fit, 4000, seed=1, newdata=new, use_u=use_u).to_numpy()
        cor = np.corrcoef(draws)
        ratio = fit.T[0][0, 0] ** 2 / (1.0 + fit.T[0][0, 0] ** 2)
        assert cor[0, 2] == pytest.approx(ratio, abs=0.06)
        assert abs(cor[0, 3]) < 0.07
        assert abs(cor[0, 1]) < 0.07
        total = fit.sigma * np.sqrt(1.0 + fit.T[0][0, 0] ** 2)
        assert draws[0].std() == pytest.approx(total, rel=0.06)
        kept = fit.sigma if use_u else total
        assert draws[1].std() == pytest.approx(kept, rel=0.06)


def test_incomplete_new_rows_are_nan_with_the_index_kept():
    fit = mf.fit("y ~ x + (1 | g)", small_data())._fit
    new = pd.DataFrame({"x": [0.0, np.nan, 1.0], "g": ["a", "b", None]})
    new.index = pd.Index([5, 3, 9])
    draws = simulate(fit, 2, seed=1, newdata=new)
    assert draws.index.tolist() == [5, 3, 9]
    assert draws.isna().all(axis=1).tolist() == [False, True, True]


def test_offset_is_evaluated_on_the_new_rows(weighted):
    data = small_data()
    shifted = data.assign(o=data["o"] + 100.0)
    one = simulate(weighted, 2, seed=1, newdata=data)
    two = simulate(weighted, 2, seed=1, newdata=shifted)
    np.testing.assert_allclose(two - one, 100.0)


# Bad input.


@pytest.mark.parametrize("nsim", [0, -3, 2.5, True, "10"])
def test_number_of_draws_must_be_positive_and_whole(weighted, nsim):
    with pytest.raises(InferenceError, match="nsim must be a whole number"):
        simulate(weighted, nsim)


@pytest.mark.parametrize("seed", [-1, "a", 1.5, True])
def test_unusable_seed_is_refused(seed):
    with pytest.raises(InferenceError, match="The seed is"):
        seed_sequence(seed)


def test_unknown_term_is_named(weighted):
    with pytest.raises(InferenceError, match="'h'"):
        simulate(weighted, use_u="h")


def test_new_data_without_a_column_are_refused(weighted):
    with pytest.raises(DesignError, match="'o'"):
        simulate(weighted, newdata=small_data().drop(columns="o"))
