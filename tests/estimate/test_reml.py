"""Options of the search, starts in the user's units, and the record it leaves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import ConvergenceWarning, DesignError
from mixform.estimate import Control, resolve_control

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return mf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def fitted(sleepstudy):
    return mf.fit(FORMULA, sleepstudy)


def test_ordinary_optimum_is_certified_in_a_few_evaluations(fitted):
    assert fitted.convergence.message == "certified optimum"
    assert fitted.convergence.n_evaluations <= 12
    assert fitted.convergence.predicted_decrease < 1e-9
    assert fitted.convergence.smallest_eigenvalue == np.inf
    assert fitted.convergence.backend == "dense"


def test_start_is_in_the_units_of_theta(sleepstudy, fitted):
    m = mf.fit(FORMULA, sleepstudy, start=fitted.theta)
    assert m.convergence.n_evaluations <= 3
    np.testing.assert_allclose(m.theta, fitted.theta, rtol=1e-6)


@pytest.mark.parametrize(
    "start",
    [
        [1e-3, 0.0, 1e-3],
        [100.0, 50.0, 30.0],
        [-1.0, 0.1, -0.2],
        [0.0, 0.0, 1.0],
        [1e4, 0.0, 1e-4],
    ],
)
def test_optimum_does_not_depend_on_the_start(sleepstudy, fitted, start):
    m = mf.fit(FORMULA, sleepstudy, start=start)
    assert m.converged
    assert m.criterion == pytest.approx(fitted.criterion, abs=1e-8)
    np.testing.assert_allclose(m.theta, fitted.theta, rtol=1e-4)


@pytest.mark.parametrize("start", [[1.0], [1.0, 0.0, np.nan], [[1.0, 0.0, 1.0]]])
def test_start_of_another_shape_is_refused(sleepstudy, start):
    with pytest.raises(DesignError, match="start must be 3 finite numbers"):
        mf.fit(FORMULA, sleepstudy, start=start)


def test_search_cut_short_warns_with_the_decrease_left(sleepstudy):
    with pytest.warns(ConvergenceWarning, match="may still fall by") as caught:
        m = mf.fit(FORMULA, sleepstudy, control={"max_evaluations": 1})
    assert not m.converged
    (warning,) = (entry.message for entry in caught)
    assert m.convergence.predicted_decrease > 1e-6
    assert str(warning).startswith("The fit is not certified")


def test_trace_prints_a_line_for_each_evaluation(sleepstudy, capsys):
    m = mf.fit(FORMULA, sleepstudy, control=Control(trace=True))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == m.convergence.n_evaluations
    assert lines[0].split()[0] == "1"
    assert lines[0].split()[2:] == ["0.7", "0", "0.7"]


def test_unknown_option_names_the_nearest():
    with pytest.raises(DesignError, match="Unknown control option 'tolerence'") as e:
        resolve_control({"tolerence": 1e-3})
    assert "tolerance" in str(e.value)


@pytest.mark.parametrize("option", ["tolerance", "certified_decrease"])
def test_tolerances_must_be_positive(option):
    with pytest.raises(DesignError, match="tolerances must be positive"):
        resolve_control({option: 0.0})


def test_number_of_evaluations_must_be_positive():
    with pytest.raises(DesignError, match="max_evaluations must be at least 1"):
        resolve_control({"max_evaluations": 0})


def test_control_passes_through():
    control = Control(tolerance=1e-6)
    assert resolve_control(control) is control
    assert resolve_control(None) == Control()


def test_record_counts_parameters_as_lme4(fitted):
    record = fitted._fit
    assert record.n == 180
    assert record.n_parameters == 2 + 3 + 1
    assert record.loglik == -0.5 * record.criterion
    assert record.interior.tolist() == [True, True, True]
    assert record.singular_terms == ()


def test_singular_term_is_named(sleepstudy):
    data = sleepstudy.assign(h=np.arange(180) % 7)
    record = mf.fit("Reaction ~ Days + (1 | Subject) + (1 | h)", data)._fit
    assert record.singular_terms == (1,)
    assert record.interior.tolist() == [True, False]
    assert record.convergence.message == "certified optimum"


def test_residual_without_digits_is_not_certified():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(8), 4)
    y = rng.normal(size=8)[g] + 1e-6 * rng.normal(size=32)
    data = pd.DataFrame({"y": y, "g": g})
    with pytest.warns(mf.ConvergenceWarning, match="explain all but"):
        assert not mf.fit("y ~ 1 + (1 | g)", data).converged
