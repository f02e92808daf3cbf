"""Variance and df of prediction errors: by hand, by dense algebra, against glmmTMB."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

import mixform as mf
from mixform.errors import ConvergenceWarning, InferenceError
from mixform.inference import prediction_error
from mixform.inference.prediction import predict_frame
from mixform.inference.prediction_error import (
    PredictedRows,
    error_ddf,
    error_variances,
)
from mixform.inference.satterthwaite import variance_model
from tests import dense_oracle as oracle
from tests.estimate.test_criterion import fit_at


def frame(m, newdata=None, *, ddf="satterthwaite", **options):
    """Predict with uncertainty, all random effects unless said otherwise."""
    chosen = {"random": True, "new_levels": "raise", "interval": None, "level": 0.95}
    approximation = m._approximation(ddf)
    return predict_frame(
        m._fit, newdata, approximation=approximation, **chosen | options
    )


def dense_variance(model, theta, x, z):
    """Var(x'beta^ + z'b^ - x'beta - z'b) / sigma^2 of each row, from V alone.

    The prediction is a'y with a' = x'B + z'GZ'V^-1 (I - XB), B = (X'V^-1X)^-1 X'V^-1.
    """
    V, G, Z, X = model.relative_V(theta), model.relative_G(theta), model.Z(), model.X
    VinvX = np.linalg.solve(V, X)
    B = np.linalg.solve(X.T @ VinvX, VinvX.T)
    to_b = np.linalg.solve(V, Z @ G).T
    a = x @ B + z @ to_b @ (np.eye(len(V)) - X @ B)
    cross = np.sum((a @ Z @ G) * z, axis=1)
    return np.sum((a @ V) * a, axis=1) - 2.0 * cross + np.sum((z @ G) * z, axis=1)


# By hand: balanced one-way, a groups of n. h = n s_a / (n s_a + s).


@pytest.fixture(scope="module")
def one_way():
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    s_a, s = m.varcorr["vcov"]
    return m, s_a, s, 6, 5


def test_error_at_a_known_level_of_a_balanced_one_way_layout(one_way):
    m, s_a, s, a, n = one_way
    h = n * s_a / (n * s_a + s)
    found = frame(m)
    np.testing.assert_allclose(found["se"] ** 2, h * s / n + (1 - h) * s / (n * a))
    np.testing.assert_allclose(found["estimate"], m.fittedvalues)
    new = frame(m, pd.DataFrame({"Batch": ["A", "F"]}))
    np.testing.assert_allclose(new["se"], found["se"].iloc[[0, 0]])


def test_df_at_a_known_level_of_a_balanced_one_way_layout(one_way):
    # v = s / n - s^2 (1 - 1/a) / (n L), L = n s_a + s: of two independent mean squares.
    m, s_a, s, a, n = one_way
    L = n * s_a + s
    v = s / n - s**2 * (1 - 1 / a) / (n * L)
    by_s = 1 / n - 2 * s * (1 - 1 / a) / (n * L)
    by_L = s**2 * (1 - 1 / a) / (n * L**2)
    of_v = by_s**2 * 2 * s**2 / (a * (n - 1)) + by_L**2 * 2 * L**2 / (a - 1)
    np.testing.assert_allclose(frame(m)["df"], 2 * v**2 / of_v, rtol=1e-6)


def test_error_at_a_new_level_of_a_balanced_one_way_layout(one_way):
    # Var(mean) = L / (n a) with a - 1 df; the level adds s_a, an observation s.
    m, s_a, s, a, n = one_way
    L = n * s_a + s
    new = pd.DataFrame({"Batch": ["Z"]})
    options = {"new_levels": "population", "interval": "prediction"}
    mean = frame(m, new, random=False).iloc[0]
    assert mean["se"] ** 2 == pytest.approx(L / (n * a))
    assert mean["df"] == pytest.approx(a - 1)
    level = frame(m, new, **options | {"interval": "confidence"}).iloc[0]
    assert level["se"] ** 2 == pytest.approx(L / (n * a) + s_a)
    observation = frame(m, new, **options).iloc[0]
    assert observation["se"] ** 2 == pytest.approx(L / (n * a) + s_a + s)
    # s_a + s = L / n + s (1 - 1/n): the df of Satterthwaite (1946).
    parts = np.array([L * (1 / n + 1 / (n * a)), s * (1 - 1 / n)])
    ddf = parts.sum() ** 2 / np.sum(parts**2 / [a - 1, a * (n - 1)])
    assert observation["df"] == pytest.approx(ddf, rel=1e-6)
    # A population interval without naming a batch is the same.
    whole = frame(m, new[[]].assign(x=1), random=False, interval="prediction")
    np.testing.assert_allclose(whole.iloc[0], observation, rtol=1e-9)


def test_linear_regression_has_its_textbook_intervals():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=12), rng.normal(size=12)
    m = mf.fit("y ~ x", {"x": x, "y": y})
    new = np.array([-1.0, 0.5, 9.0])
    s2 = m.sigma**2
    h = 1 / 12 + (new - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)
    for interval, extra in [("confidence", 0.0), ("prediction", 1.0)]:
        found = frame(m, {"x": new}, interval=interval, level=0.9)
        np.testing.assert_allclose(found["se"], np.sqrt(s2 * (h + extra)))
        np.testing.assert_allclose(found["df"], 10.0)
        width = student.ppf(0.95, 10) * found["se"]
        np.testing.assert_allclose(found["upper"] - found["estimate"], width)
        np.testing.assert_allclose(found["estimate"] - found["lower"], width)


# Dense algebra.


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_errors_are_the_dense_ones(seed):
    model, data, formula, keywords = oracle.random_model(seed)
    theta = oracle.random_theta(model, seed)
    m = fit_at(theta, data, formula, keywords)
    X, Z, n_terms = model.X, model.Z(), len(model.terms)
    rows = np.random.default_rng(seed).permutation(len(data))[:9]
    for random, used in [(True, Z), (False, 0.0 * Z)]:
        dense = m.sigma**2 * dense_variance(model, theta, X, used)
        found = frame(m, random=random, ddf="asymptotic")["se"] ** 2
        np.testing.assert_allclose(found, dense, rtol=1e-7, atol=1e-10 * m.sigma**2)
        found = frame(m, data.iloc[rows], random=random, ddf="asymptotic")["se"] ** 2
        np.testing.assert_allclose(
            found, dense[rows], rtol=1e-7, atol=1e-10 * m.sigma**2
        )
    if n_terms > 1:  # a new observation at known levels of the first term, others new
        k = model.terms[0].m * model.terms[0].k
        first = Z * (np.arange(Z.shape[1]) < k)
        G = model.relative_G(theta)
        dense = dense_variance(model, theta, X, first) + 1.0 / model.weights
        dense += np.sum(((Z - first) @ G) * (Z - first), axis=1)
        label = m.design.blocks[0].term.source
        for newdata in (None, data):
            found = frame(
                m, newdata, random=label, interval="prediction", ddf="asymptotic"
            )
            np.testing.assert_allclose(found["se"] ** 2, m.sigma**2 * dense, rtol=1e-7)


def crossed(seed=2):
    """Return unbalanced crossed data with weights, and cells that stay empty."""
    rng = np.random.default_rng(seed)
    n = 70
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "g": rng.integers(0, 6, n),
            "h": rng.integers(0, 5, n),
            "w": rng.uniform(0.5, 3.0, n),
            "o": rng.normal(size=n),
        }
    )
    data = data[(data["g"] + data["h"]) % 4 > 0].reset_index(drop=True)
    b = rng.normal(size=(6, 2)) @ [[1.5, 0.6], [0.0, 1.0]]
    data["y"] = (
        2.0 + data["x"] + data["o"] + b[data["g"], 0] + b[data["g"], 1] * (data["x"])
    )
    data["y"] += rng.normal(size=5)[data["h"]]
    data["y"] += rng.normal(size=len(data)) / np.sqrt(data["w"])
    return data


FORMULA = "y ~ x + (x | g) + (1 | h)"


@pytest.fixture(scope="module")
def fitted_crossed():
    data = crossed()
    return mf.fit(FORMULA, data, weights="w", offset="o"), data


NEW = pd.DataFrame(
    {
        "x": [0.3, -1.0, 2.0, 0.0, 0.3],
        "g": [0, 4, 1, 2, 0],
        "h": [0, 0, 3, 2, 1],  # (0, 0), (4, 0), (1, 3), (2, 2) are empty cells
        "w": [1.0, 2.0, 0.5, 4.0, 1.0],
        "o": [0.0, 1.0, -1.0, 0.5, 0.0],
    }
)


def new_design():
    Z = np.zeros((len(NEW), 17))
    for i, row in NEW.iterrows():
        Z[i, 2 * int(row["g"]) : 2 * int(row["g"]) + 2] = [1.0, row["x"]]
        Z[i, 12 + int(row["h"])] = 1.0
    return np.column_stack([np.ones(len(NEW)), NEW["x"]]), Z


def dense_model(data):
    one, x = np.ones(len(data)), data["x"].to_numpy()
    terms = (
        oracle.Term(data["g"].to_numpy(), np.column_stack([one, x])),
        oracle.Term(data["h"].to_numpy(), one[:, None]),
    )
    y = (data["y"] - data["o"]).to_numpy()
    return oracle.Model(y, np.column_stack([one, x]), terms, data["w"].to_numpy(), True)


def test_errors_are_entries_of_the_inverse_of_hendersons_matrix(fitted_crossed):
    m, data = fitted_crossed
    model = dense_model(data)
    W = np.column_stack([model.X, model.Z()])
    C = (W.T * model.weights) @ W
    C[2:, 2:] += np.linalg.inv(model.relative_G(m.theta))
    rows = np.column_stack(new_design())
    expected = m.sigma**2 * np.einsum("ij,jk,ik->i", rows, np.linalg.inv(C), rows)
    found = frame(m, NEW)
    np.testing.assert_allclose(found["se"] ** 2, expected, rtol=1e-8)
    found = frame(m, NEW, interval="prediction")
    total = expected + m.sigma**2 / NEW["w"]
    np.testing.assert_allclose(found["se"] ** 2, total, rtol=1e-8)


@pytest.mark.parametrize("interval", ["confidence", "prediction"])
def test_df_are_those_of_dense_derivatives(fitted_crossed, interval):
    m, data = fitted_crossed
    model = dense_model(data)
    x, z = new_design()
    extra = 1.0 / NEW["w"].to_numpy() * (interval == "prediction")
    phi = np.append(m.theta, m.sigma)

    def variance(at):
        return at[-1] ** 2 * (dense_variance(model, at[:-1], x, z) + extra)

    V_phi = 2.0 * np.linalg.inv(
        oracle.hessian(lambda at: oracle.deviance(model, at), phi)
    )
    slopes = oracle.derivatives(variance, phi)
    of_variance = np.einsum("tr,ts,sr->r", slopes, V_phi, slopes)
    expected = 2.0 * variance(phi) ** 2 / of_variance
    found = frame(m, NEW, interval=interval)
    np.testing.assert_allclose(found["df"], expected, rtol=1e-4)
    width = student.ppf(0.975, found["df"]) * found["se"]
    np.testing.assert_allclose(found["upper"] - found["estimate"], width)


def test_without_random_effects_df_are_those_of_contrasts(fitted_crossed):
    m, _ = fitted_crossed
    X, _ = new_design()
    rows = PredictedRows(X=X, parts=(), errors=None, in_sample=False)
    fit, model = m._fit, variance_model(m._fit)
    variances = error_variances(fit, fit.evaluation, rows)
    general = error_ddf(fit, rows, variances, model.V_phi)
    found = frame(m, NEW, random=False)
    np.testing.assert_allclose(found["df"], general, rtol=1e-6)
    np.testing.assert_allclose(found["se"], fit.sigma * np.sqrt(variances))
    contrast = m.test(X).table
    np.testing.assert_allclose(found[["se", "df"]], contrast[["se", "df"]])


# Invariance.


@pytest.mark.parametrize("random", [True, "g", "h"])
def test_rows_of_the_fit_are_predicted_as_new_rows(fitted_crossed, random, monkeypatch):
    m, data = fitted_crossed
    once = frame(m, random=random, interval="confidence")
    pd.testing.assert_frame_equal(
        frame(m, data, random=random, interval="confidence"), once, rtol=1e-7
    )
    monkeypatch.setattr(prediction_error, "CHUNK", 1)
    again = frame(m, data, random=random, interval="confidence")
    pd.testing.assert_frame_equal(again, once, rtol=1e-7)


def test_backends_give_the_same(fitted_crossed):
    m, data = fitted_crossed
    theta, control = m.theta, {"backend": "sparse", "max_evaluations": 1}
    other = mf.fit(FORMULA, data, weights="w", offset="o", start=theta, control=control)
    for newdata in (NEW, None):
        once = frame(m, newdata, interval="prediction")
        again = frame(other, newdata, interval="prediction")
        pd.testing.assert_frame_equal(again, once, rtol=1e-5)


def test_errors_scale_with_the_response_and_not_with_a_covariate(fitted_crossed):
    m, data = fitted_crossed
    moved = data.assign(y=1000 * data["y"], o=1000 * data["o"], x=3 + data["x"] / 50)
    other = mf.fit(FORMULA, moved, weights="w", offset="o")
    new = NEW.assign(x=3 + NEW["x"] / 50, o=1000 * NEW["o"])
    for interval in ("confidence", "prediction"):
        once = frame(m, NEW, interval=interval)
        again = frame(other, new, interval=interval)
        np.testing.assert_allclose(again["df"], once["df"], rtol=1e-4)
        columns = ["estimate", "se", "lower", "upper"]
        np.testing.assert_allclose(
            again[columns], 1000 * once[columns], rtol=1e-5, atol=1e-3
        )


def test_term_of_zero_variance_changes_nothing():
    data = mf.datasets.load("sleepstudy")
    data = data.assign(h=np.arange(len(data)) % 3)
    formula = "Reaction ~ Days + (Days | Subject)"
    m, other = mf.fit(formula, data), mf.fit(f"{formula} + (1 | h)", data)
    assert other.singular
    new = data.iloc[::20].assign(Days=12.0)
    for newdata in (None, new):
        for interval in ("confidence", "prediction"):
            np.testing.assert_allclose(
                frame(other, newdata, interval=interval),
                frame(m, newdata, interval=interval),
                rtol=1e-4,
            )
    unseen = frame(other, new.assign(h=9), new_levels="population")
    np.testing.assert_allclose(unseen, frame(m, new), rtol=1e-4)


def test_weights_times_a_constant_change_nothing(fitted_crossed):
    m, data = fitted_crossed
    other = mf.fit(FORMULA, data.assign(w=7 * data["w"]), weights="w", offset="o")
    np.testing.assert_allclose(
        frame(other, NEW.assign(w=7 * NEW["w"]), interval="prediction"),
        frame(m, NEW, interval="prediction"),
        rtol=1e-4,
    )


def test_new_levels_of_several_terms_each_count_once(fitted_crossed):
    m, _ = fitted_crossed
    sigma_g = np.array(m._fit.T[0]) @ m._fit.T[0].T * m.sigma**2
    variance_h = m.sigma**2 * float(m._fit.T[1][0, 0]) ** 2
    new = NEW.assign(g=99, h=[98, 98, 98, 97, 97])
    x = np.column_stack([np.ones(len(NEW)), NEW["x"]])
    expected = frame(m, NEW, random=False)["se"] ** 2 + variance_h
    expected += np.einsum("ij,jk,ik->i", x, sigma_g, x)
    found = frame(m, new, new_levels="population")
    np.testing.assert_allclose(found["se"] ** 2, expected)
    known_h = frame(m, NEW.assign(g=99), new_levels="population")
    assert (known_h["se"] < found["se"]).all()


# Approximations.


def test_asymptotic_limits_are_normal(fitted_crossed):
    m, _ = fitted_crossed
    for random in (True, False):
        found = frame(m, NEW, random=random, interval="confidence", ddf="asymptotic")
        assert np.isinf(found["df"]).all()
        width = (found["upper"] - found["lower"]) / 2
        np.testing.assert_allclose(width, norm.ppf(0.975) * found["se"])


def test_kenward_roger_is_for_fixed_effects_only():
    m = mf.fit(
        "Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy").iloc[:91]
    )
    new = pd.DataFrame({"Days": [0, 3], "Subject": ["308", "309"]})
    X = np.column_stack([np.ones(2), new["Days"]])
    found = frame(m, new, random=False, interval="confidence", ddf="kenward-roger")
    expected = m.test(X, ddf="kenward-roger").table
    np.testing.assert_allclose(found[["se", "df"]], expected[["se", "df"]])
    for options in ({"random": True}, {"random": False, "interval": "prediction"}):
        with pytest.raises(InferenceError, match="is for the fixed effects only") as e:
            frame(m, new, ddf="kenward-roger", **options)
        assert "random=False" in e.value.hint


def test_without_information_there_are_errors_but_no_df():
    data = mf.datasets.load("Dyestuff")
    start, control = [0.05], {"max_evaluations": 1}  # no minimum of the criterion
    with pytest.warns(ConvergenceWarning):
        m = mf.fit("Yield ~ 1 + (1 | Batch)", data, start=start, control=control)
    for random in (True, False):
        found = frame(m, random=random, interval="confidence")
        assert found[["df", "lower", "upper"]].isna().all(axis=None)
        assert (found["se"] > 0.0).all()


#: glmmTMB 1.1.5, ML of sleepstudy, theta and sigma held at lme4 1.1-31's estimates with
#: map = list(theta = , betad = ); predict(m, new, se.fit = TRUE, allow.new.levels =
#: TRUE), with re.form = NA in the last two columns. Level "new" has no data.
GLMMTMB = """
    0  308 254.220878 12.07082602 251.405104  6.63227849
    4  335 249.839027  7.69065048 293.274248  8.31450174
    12 372 404.859779 19.89989581 377.012536 18.33200797
    5  new 303.741534 39.74706783 303.741534  9.31130671
"""


def test_errors_agree_with_glmmtmb_at_known_variances():
    table = [line.split() for line in GLMMTMB.strip().splitlines()]
    new = pd.DataFrame(
        {"Days": [int(r[0]) for r in table], "Subject": [r[1] for r in table]}
    )
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data, method="ML")
    for start, random in [(2, True), (4, False)]:
        found = frame(m, new, random=random, new_levels="population")
        for offset, column in enumerate(["estimate", "se"]):
            printed = [float(row[start + offset]) for row in table]
            np.testing.assert_allclose(found[column], printed, rtol=5e-6)
