"""R at given parameters: whitening, determinant, derivatives against dense matrices."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.residual import RESIDUALS
from mixform.residual.model import build_residual_model

# The parameters are chosen, not estimated.
pytestmark = pytest.mark.filterwarnings("ignore::mixform.errors.ConvergenceWarning")

POSITIONS = {"exp": "lat + lon", "gau": "lat + lon", "mat": "lat + lon"}


def table():
    """12 subjects of 2 arms, visits missing here and there, in no order."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(12), 4), "visit": np.tile([1, 2, 3, 5], 12)}
    )
    frame["arm"] = np.where(frame.id % 2, "a", "b")
    frame["lat"], frame["lon"], frame["x"] = rng.normal(size=(3, 48))
    frame["y"] = rng.normal(size=48)
    return frame.sample(n=41, random_state=3).reset_index(drop=True)


def model_of(residual, dispersion=None):
    design = mf.fit(
        "y ~ x", table(), residual=residual, dispersion=dispersion,
        control={"max_evaluations": 1},
    ).design  # fmt: skip
    return build_residual_model(design.residual), design


@pytest.fixture(params=RESIDUALS)
def model(request):
    name = request.param
    where = POSITIONS.get(name, "visit")
    return model_of(f"{name}({where} | arm/id)", "~ x")


def parameters(model):
    rng = np.random.default_rng(2)
    return model.start() + 0.2 * rng.normal(size=model.n_parameters)


def dense(model, rho):
    """R (n, n), from the color of unit vectors."""
    half = model.at(rho).color(np.eye(model.n))
    return half @ half.T


class TestResidual:
    def test_residuals_of_different_subjects_are_independent(self, model):
        model, design = model
        R = dense(model, parameters(model))
        ids = design.residual.subjects
        assert np.all(R[ids[:, None] != ids] == 0.0)

    def test_blocks_are_those_of_the_positions(self, model):
        model, design = model
        rho = parameters(model)
        R = dense(model, rho)
        strata = design.residual.strata
        x = design.residual.dispersion_values[:, 0]
        if not model.layout.grids[0].labels:
            pytest.skip("no common positions")
        for s, grid in enumerate(model.layout.grids):
            full = model.covariance(rho, s)
            rows = np.flatnonzero(strata == s)
            visit = design.residual.coordinates["visit"].iloc[rows].astype(str)
            at = [grid.labels.index(v) for v in visit]
            D = np.exp(rho[model.delta][0] * x[rows])
            expected = full[np.ix_(at, at)] * np.outer(D, D)
            same = np.equal.outer(*(design.residual.subjects[rows],) * 2)
            if model.structure.name == "diag":
                same = np.eye(len(rows), dtype=bool)
            np.testing.assert_allclose(
                R[np.ix_(rows, rows)], np.where(same, expected, 0.0), atol=1e-12
            )

    def test_whitening_undoes_coloring(self, model):
        model, _ = model
        here = model.at(parameters(model))
        A = np.random.default_rng(1).normal(size=(model.n, 3))
        np.testing.assert_allclose(here.whiten(here.color(A)), A, atol=1e-12)
        half = here.color(np.eye(model.n))
        np.testing.assert_allclose(here.color_transposed(A), half.T @ A, atol=1e-12)

    def test_determinant(self, model):
        model, _ = model
        rho = parameters(model)
        expected = np.linalg.slogdet(dense(model, rho))[1]
        assert model.at(rho).logdet == pytest.approx(expected, abs=1e-11)

    def test_products_and_traces_are_those_of_the_derivatives(self, model):
        model, _ = model
        rho = parameters(model)
        here = model.at(rho)
        half = here.whiten(np.eye(model.n))
        E = here.products(np.eye(model.n))
        S = np.random.default_rng(4).normal(size=(model.n, 6))
        traces = here.traces(here.block_sums(S, S))
        for a, unit in enumerate(np.eye(model.n_parameters)):
            h = 1e-4
            low, lower, upper, high = (
                dense(model, rho + s * h * unit) for s in (-2, -1, 1, 2)
            )
            dR = (low - 8 * lower + 8 * upper - high) / (12 * h)
            expected = half @ dR @ half.T
            np.testing.assert_allclose(E[a], expected, atol=1e-9)
            assert traces[a] == pytest.approx(np.vdot(E[a] @ S, S), abs=1e-9)


def test_gaps_of_integer_positions_count_in_ar1():
    model, _ = model_of("ar1(visit | id)")
    C = model.covariance(np.arctanh([0.5]), 0)
    np.testing.assert_allclose(C[0], [1.0, 0.5, 0.25, 0.0625])
    assert model.layout.grids[0].labels == ("1", "2", "3", "5")


def test_categories_are_positions_in_their_order():
    frame = table()
    frame["visit"] = pd.Categorical(frame.visit.map(str), ["5", "3", "2", "1"])
    m = mf.fit("y ~ x", frame, residual="ar1(visit | id)")
    model = build_residual_model(m.design.residual)
    assert model.layout.grids[0].labels == ("5", "3", "2", "1")
    np.testing.assert_allclose(
        model.covariance(np.arctanh([0.5]), 0)[0], [1.0, 0.5, 0.25, 0.125]
    )
