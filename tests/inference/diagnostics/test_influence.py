"""Leaving groups out: dense algebra, brute force, refits, and lme4's influence."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.estimate.criterion import evaluate
from mixform.estimate.problem import build_problem
from mixform.estimate.reml import scaled_start
from mixform.inference.diagnostics import deletion, fewer_rows
from mixform.inference.diagnostics import influence as module
from mixform.inference.diagnostics.influence import influence, ranef_without
from tests.diagnostics_references import (
    MODELS,
    data_of,
    dense,
    matrix,
    oracle_of,
    random_fit,
    reference_fit,
)


def without(V, X, y, keep, reml):
    """Generalized least squares of some rows: beta, its covariance, sigma."""
    W = np.linalg.inv(V[np.ix_(keep, keep)])
    information = X[keep].T @ W @ X[keep]
    beta = np.linalg.solve(information, X[keep].T @ W @ y[keep])
    rest = y[keep] - X[keep] @ beta
    residual_df = keep.sum() - (X.shape[1] if reml else 0)
    sigma2 = rest @ W @ rest / residual_df
    return beta, sigma2 * np.linalg.inv(information), np.sqrt(sigma2)


def check(found, at, fit, V, X, y, keep, reml):
    beta, V_beta, sigma = without(V, X, y, keep, reml)
    change, p = beta - fit.beta, len(fit.beta)
    row = found.table.iloc[at]
    size = np.sqrt(np.diag(fit.V_beta))
    np.testing.assert_allclose(
        found.dfbeta.iloc[at] / size, change / size, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        found.dfbetas.iloc[at], change / np.sqrt(np.diag(V_beta)), rtol=1e-5, atol=1e-7
    )
    full = np.linalg.inv(fit.V_beta)
    assert row["n_rows"] == (~keep).sum()
    assert row["cook"] == pytest.approx(change @ full @ change / p, rel=1e-5)
    assert row["mdffits"] == pytest.approx(
        change @ np.linalg.solve(V_beta, change) / p, rel=1e-5
    )
    assert row["covratio"] == pytest.approx(
        np.linalg.det(V_beta) / np.linalg.det(fit.V_beta), rel=1e-5
    )
    assert row["covtrace"] == pytest.approx(
        abs(np.trace(full @ V_beta) - p), rel=1e-5, abs=1e-7
    )
    assert row["sigma"] == pytest.approx(sigma, rel=1e-7)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_deletion_at_held_theta_is_least_squares_of_the_other_rows(seed, reml):
    model, fit = random_fit(seed, reml=reml, p=2)
    V, X, y = dense(model, fit)
    single = influence(fit)
    for i in (0, 11, len(y) - 1):
        check(single, i, fit, V, X, y, np.arange(len(y)) != i, reml)
    for block in fit.design.blocks:
        found = influence(fit, block.term.group_label)
        for level in range(block.m):
            keep = block.codes != level
            if np.linalg.matrix_rank(X[keep]) == X.shape[1]:
                check(found, level, fit, V, X, y, keep, reml)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("limits", ["table", "solves", "sparse rows"])
def test_every_way_to_the_same_influence_agrees(backend, limits, monkeypatch):
    data = mf.datasets.load("Penicillin").sample(frac=0.8, random_state=1)
    formula = "diameter ~ 1 + (1|plate) + (1|sample)"
    expected = influence(mf.fit(formula, data)._fit, "sample").table
    if limits == "solves":
        monkeypatch.setattr(deletion, "LARGEST_TABLE", 0)
    if limits == "sparse rows":
        monkeypatch.setattr(deletion, "DENSE_ROWS", 0)
    fit = mf.fit(formula, data, control={"backend": backend})._fit
    # rtol: the two backends end their searches at slightly different theta.
    pd.testing.assert_frame_equal(influence(fit, "sample").table, expected, rtol=1e-5)


def test_nested_groups_need_few_solves_for_the_inverse():
    fit = reference_fit("sleep")
    rows = deletion.row_parts(fit)
    entries = deletion._InverseEntries(fit, rows.places)
    assert entries.table is not None
    assert entries.table.shape == (36, 2)  # 18 subjects that share no effect


def test_held_theta_agrees_with_the_criterion_evaluated_on_the_other_rows():
    fit = reference_fit("oats")
    found = influence(fit, "Block")
    block = next(b for b in fit.design.blocks if b.term.group_label == "Block")
    for level in (0, 4):
        design = fewer_rows._rows_of(fit.design, block.codes != level)
        problem = build_problem(design, reml=True)
        there = evaluate(problem, scaled_start(problem, fit.theta))
        beta = np.linalg.solve(
            design.fixed.R, problem.projection + problem.y_scale * there.beta
        )
        np.testing.assert_allclose(found.dfbeta.iloc[level], beta - fit.beta, rtol=1e-7)
        sigma = problem.y_scale * np.sqrt(there.sigma2)
        assert found.table["sigma"].iloc[level] == pytest.approx(sigma, rel=1e-9)


def test_a_single_row_is_a_group_of_one():
    fit = reference_fit("sleep_weighted")
    rows = influence(fit)
    groups = influence(fit, np.arange(fit.n))
    pd.testing.assert_frame_equal(
        rows.table.reset_index(drop=True),
        groups.table.reset_index(drop=True),
        rtol=1e-7,
    )
    assert list(rows.table.index) == list(fit.design.row_index)


@pytest.mark.parametrize("name", ["sleep_weighted", "oats", "penicillin"])
def test_random_effects_without_a_group_are_those_of_the_other_rows(name):
    fit = reference_fit(name)
    model = oracle_of(fit)
    block = fit.design.blocks[0]
    keep = block.codes != 2
    found = ranef_without(fit, block.term.group_label, block.levels[2])
    V, G, Z = model.relative_V(fit.theta), model.relative_G(fit.theta), model.Z()
    beta = without(V, model.X, model.y, keep, True)[0]
    rest = np.linalg.solve(V[np.ix_(keep, keep)], (model.y - model.X @ beta)[keep])
    b = G @ Z[keep].T @ rest
    start, frames = 0, []
    for own in fit.design.blocks:
        part = b[start : start + own.m * own.k].reshape(own.m, own.k)
        frames.append(part.T.ravel())
        start += own.m * own.k
    expected = np.concatenate(frames)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["estimate"], expected, atol=1e-8 * scale)
    gone = (found["grp"] == block.term.group_label) & (
        found["level"] == block.levels[2]
    )
    np.testing.assert_allclose(found.loc[gone, "estimate"], 0.0, atol=1e-8 * scale)
    np.testing.assert_allclose(
        found["estimate"] - found["change"],
        np.concatenate([old.T.ravel() for old in fit.b]),
        rtol=1e-9,
    )
    with pytest.raises(InferenceError, match="has no level 'nobody'"):
        ranef_without(fit, block.term.group_label, "nobody")


@pytest.mark.parametrize("name", MODELS)
def test_refits_agree_with_lme4_influence(name):
    fit, reference = reference_fit(name), MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = influence(fit, reference["groups"], refit=True, progress=False)
    assert found.notes == ()
    labels = reference["dfbeta"]["rows"]
    se = np.sqrt(np.diag(fit.V_beta))
    # lme4's influence refits with its default tolerances: 1e-3 of a standard error.
    np.testing.assert_allclose(
        found.dfbeta.loc[labels] / se, matrix(reference["dfbeta"]) / se, atol=1e-3
    )
    if reference.get("dfbetas"):
        np.testing.assert_allclose(
            found.dfbetas.loc[labels], matrix(reference["dfbetas"]), atol=2e-3
        )
    assert found.variances is not None
    ours = np.sqrt(np.abs(found.variances.loc[labels, "Residual"]))
    theirs = np.sqrt(matrix(reference["variances"])[:, 0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_a_refit_is_the_fit_of_the_data_without_the_group():
    reference = MODELS["sleep_weighted"]
    fit, data = reference_fit("sleep_weighted"), data_of(reference)
    found = influence(fit, "Subject", refit=True)
    rest = data[data["Subject"] != "335"]
    m = mf.fit(reference["formula"], rest, weights=1.0 + rest["Days"])
    change = m.params.to_numpy() - fit.beta
    np.testing.assert_allclose(found.dfbeta.loc["335"], change, rtol=1e-5)
    assert found.variances is not None
    np.testing.assert_allclose(
        found.variances.loc["335"], m.varcorr["vcov"], rtol=1e-5, atol=1e-8
    )
    V = m.cov_params().to_numpy()
    cook = change @ np.linalg.solve(fit.V_beta, change) / 2
    assert found.table.loc["335", "cook"] == pytest.approx(cook, rel=1e-4)
    assert found.table.loc["335", "covratio"] == pytest.approx(
        np.linalg.det(V) / np.linalg.det(fit.V_beta), rel=1e-5
    )


@pytest.mark.parametrize("refit", [False, True])
def test_a_group_that_carries_a_fixed_effect_alone_has_no_answer(refit):
    data = mf.datasets.load("sleepstudy")
    data["only"] = (data["Subject"] == "310") * data["Days"]
    fit = mf.fit("Reaction ~ Days + only + (1 | Subject)", data)._fit
    found = influence(fit, "Subject", refit=refit)
    assert np.isnan(found.table.loc["310", "cook"])
    assert found.dfbeta.loc["310"].isna().all()
    assert found.table.drop(index="310").notna().all(axis=None)
    assert len(found.notes) == 1
    assert ("only" in found.notes[0]) == refit


def test_an_interrupt_keeps_what_is_done(monkeypatch):
    fit, calls = reference_fit("sleep"), []
    refit_one = module.fit_without

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return refit_one(*arguments)

    monkeypatch.setattr(module, "fit_without", interrupted)
    found = influence(fit, "Subject", refit=True)
    assert list(found.table.index) == ["308", "309", "310"]
    assert found.variances is not None
    assert len(found.variances) == 3
    assert "interrupted: 3 of 18 groups are done." in found.notes
    calls.extend([1, 1, 1])
    calls[:] = calls[:3]
    with pytest.raises(KeyboardInterrupt):
        influence(fit, "Subject", refit=True)


def test_groups_may_be_columns_of_nested_factors_or_labels():
    fit = reference_fit("oats")
    assert influence(fit, "Variety").table.shape[0] == 3
    assert influence(fit, "Block:Variety").table.shape[0] == 18
    data = data_of(MODELS["oats"])
    by_label = influence(fit, data["Block"].iloc[::-1])
    by_name = influence(fit, "Block").dfbeta
    assert list(by_label.dfbeta.index) == list(by_name.index)
    np.testing.assert_array_equal(by_label.dfbeta, by_name)
    assert "leaving out each Block (theta held)" in str(by_label)


def test_bad_groups_are_refused():
    fit = reference_fit("oats")
    with pytest.raises(InferenceError, match="no grouping factor 'Blok'") as error:
        influence(fit, "Blok")
    assert "Did you mean 'Block'?" in str(error.value)
    with pytest.raises(InferenceError, match="group has 3 labels; the model has 62"):
        influence(fit, ["a", "b", "c"])
    with pytest.raises(InferenceError, match="labels of group are missing in 1 rows"):
        influence(fit, [None] + ["a"] * (fit.n - 1))
    with pytest.raises(InferenceError, match="All rows are in one group"):
        influence(fit, ["a"] * fit.n)
    with pytest.raises(InferenceError, match="group is a int, not a name"):
        influence(fit, 3)
    foreign = pd.Series("a", index=range(1000, 1000 + fit.n))
    with pytest.raises(InferenceError, match="index of group is not the index"):
        influence(fit, foreign)
    empty = mf.fit("Reaction ~ 0 + (1|Subject)", mf.datasets.load("sleepstudy"))._fit
    with pytest.raises(InferenceError, match="needs a fixed effect"):
        influence(empty, "Subject")
