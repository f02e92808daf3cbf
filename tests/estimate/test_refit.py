"""A refit is the fit of the same model to the new response."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError
from mixform.estimate.refit import refit


def two_factors(n=120, seed=0):
    rng = np.random.default_rng(seed)
    g, h = np.arange(n) % 8, np.arange(n) % 5
    x = rng.normal(size=n)
    y = 3.0 + x + rng.normal(size=8)[g] + 0.7 * rng.normal(size=5)[h]
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "z": 50.0 + 4.0 * x + 2.0 * rng.normal(size=8)[g] + rng.normal(size=n),
            "x": x,
            "g": g,
            "h": h,
            "w": rng.uniform(0.5, 2.0, n),
            "o": rng.normal(size=n),
        }
    )


MODELS = {
    "intercepts": ("{} ~ x + (1 | g) + (1 | h)", {}),
    "slopes": ("{} ~ x + (x | g)", {}),
    "diagonal": ("{} ~ x + (x || g)", {"method": "ML"}),
    "weights, offset": ("{} ~ x + (1 | g)", {"weights": "w", "offset": "o"}),
    "no random term": ("{} ~ x", {}),
    "no fixed effect": ("{} ~ 0 + (1 | g)", {}),
    "sparse": ("{} ~ x + (x | g) + (1 | h)", {"control": {"backend": "sparse"}}),
}


@pytest.mark.parametrize("start", ["fit", None])
@pytest.mark.parametrize("name", MODELS)
def test_refit_is_the_fit_to_the_new_response(name, start):
    data = two_factors()
    formula, keywords = MODELS[name]
    m = mf.fit(formula.format("y"), data, **keywords)._fit
    again = refit(m, data["z"], start=start)
    new = mf.fit(formula.format("z"), data, **keywords)._fit
    assert again.criterion == pytest.approx(new.criterion, abs=1e-8)
    np.testing.assert_allclose(again.beta, new.beta, rtol=1e-5)
    np.testing.assert_allclose(again.V_beta, new.V_beta, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(again.sigma, new.sigma, rtol=1e-5)
    np.testing.assert_array_equal(again.design.y, data["z"])
    assert again.convergence.converged
    assert again.convergence.backend == new.convergence.backend


def test_refit_reuses_the_equations_of_the_fit():
    data = two_factors()
    m = mf.fit("y ~ x + (1 | g)", data)._fit
    again = refit(m, data["z"])
    assert again.evaluation.problem.equations is m.evaluation.problem.equations


def test_refit_to_its_own_response_stays_there():
    m = mf.fit("y ~ x + (1 | g) + (1 | h)", two_factors())._fit
    again = refit(m, m.design.y)
    assert again.convergence.n_evaluations <= 2
    assert again.criterion == pytest.approx(m.criterion, abs=1e-9)


def test_refit_by_the_other_criterion():
    data = two_factors()
    m = mf.fit("y ~ x + (x | g)", data)._fit
    by_ml = refit(m, method="ML")
    new = mf.fit("y ~ x + (x | g)", data, method="ML")._fit
    assert by_ml.method == "ML"
    assert by_ml.criterion == pytest.approx(new.criterion, abs=1e-8)
    assert refit(by_ml, method="REML").criterion == pytest.approx(m.criterion, abs=1e-8)


def test_refit_from_a_singular_fit_leaves_the_boundary():
    singular = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))._fit
    other = mf.datasets.load("Dyestuff")
    assert singular.singular_terms == (0,)
    again = refit(singular, other["Yield"].to_numpy())
    new = mf.fit("Yield ~ 1 + (1 | Batch)", other)._fit
    assert again.criterion == pytest.approx(new.criterion, abs=1e-8)
    assert again.singular_terms == ()


def test_refit_does_not_touch_the_fit():
    data = two_factors()
    m = mf.fit("y ~ x + (1 | g)", data)._fit
    y, criterion = m.design.y.copy(), m.criterion
    refit(m, data["z"])
    np.testing.assert_array_equal(m.design.y, y)
    assert m.criterion == criterion


def test_response_for_all_rows_of_the_data_is_taken_at_those_in_the_model():
    data = two_factors()
    data.loc[[3, 7], "x"] = np.nan
    m = mf.fit("y ~ x + (1 | g)", data)._fit
    full, used = refit(m, data["z"].to_numpy()), refit(m, data["z"].drop([3, 7]))
    assert full.criterion == used.criterion
    new = mf.fit("z ~ x + (1 | g)", data)._fit
    assert full.criterion == pytest.approx(new.criterion, abs=1e-8)


def test_series_is_put_in_order_by_its_index():
    data = two_factors()
    m = mf.fit("y ~ x + (1 | g)", data)._fit
    assert refit(m, data["z"].iloc[::-1]).criterion == refit(m, data["z"]).criterion


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z[:-1].to_numpy(), r"shape \(119,\); the model has 120 rows"),
        (lambda z: z.set_axis(z.index + 1), "is not the index of the data"),
        (lambda z: z.where(z.index != 4), "missing or not finite, the first in row 4"),
        (lambda z: z * np.inf, "missing or not finite"),
        (lambda z: z.map("{:.3f}?".format), "is not numeric"),
        (lambda z: 0.0 * z + 3.0, "is constant"),
    ],
)
def test_unusable_response_is_refused(change, message):
    data = two_factors()
    m = mf.fit("y ~ x + (1 | g)", data)._fit
    with pytest.raises(DesignError, match=message):
        refit(m, change(data["z"]))
