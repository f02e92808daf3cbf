"""Kenward-Roger with residual structures, dispersion and related levels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

import mixform as mf
from mixform.errors import InferenceError, SolverError
from mixform.estimate.criterion import evaluate_at
from mixform.inference.approximation import approximate
from mixform.inference.kenward_roger import kenward_roger
from mixform.inference.kenward_roger.terms import terms_of
from mixform.mme import backends
from mixform.residual import RESIDUALS
from tests import kenward_roger_oracle as oracle


def visits(seed=4, subjects=24, size=3):
    """Subjects in sites, visits missing, two arms, times, coordinates and weights."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "id": np.repeat(np.arange(subjects), size),
            "visit": np.tile(np.arange(size), subjects),
        }
    )
    n = len(data)
    data["site"] = data["id"] % 6
    data["lab"] = rng.integers(0, 5, n)
    data["arm"] = np.array(list("ab"))[(data["id"] // 2) % 2]
    data["sex"] = np.array(list("mf"))[(data["id"] // 3) % 2]
    data["time"] = data["visit"] + rng.uniform(0, 0.6, n)
    data["lat"] = 0.5 * data["visit"] + rng.uniform(0, 0.3, n)
    data["lon"] = rng.uniform(0, 0.5, n)
    data["w"] = rng.uniform(0.5, 2.0, n)
    data["x"] = rng.normal(size=n)
    noise = np.zeros(n)
    for i in range(size):
        here = data["visit"] == i
        before = noise[data["visit"] == i - 1] if i else 0.0
        noise[here] = 0.7 * before + rng.normal(size=here.sum()) * (1 + 0.3 * i)
    data["y"] = (
        noise + 0.4 * (data["arm"] == "b") + rng.normal(size=6)[data["site"]]
        + 0.7 * rng.normal(size=5)[data["lab"]]
    )  # fmt: skip
    return data[rng.uniform(size=n) > 0.15].reset_index(drop=True)


def residual_of(name, strata=""):
    where = {"car1": "time", "exp": "lat + lon", "gau": "lat + lon", "mat": "lat + lon"}
    option = ", nu=1.5" if name == "mat" else ""
    return f"{name}({where.get(name, 'visit')} | {strata}id{option})"


def check(fit, parts, *, linear=False, rtol=1e-6, W=None, step=None):
    phi, V = oracle.added(*parts)
    rows = [j for j, n in enumerate(fit.design.fixed.names) if n[:3] in ("arm", "vis")]
    L = np.eye(len(fit.beta))[rows]
    adjusted, f_value, m = oracle.dense_kenward_roger(
        fit, V, phi, L, linear=linear, W=W, step=step
    )
    ours = kenward_roger(fit, linear=linear)
    np.testing.assert_allclose(
        ours.V_beta, adjusted, rtol=rtol, atol=rtol * np.abs(adjusted).max()
    )
    den_df, factor = ours.f_ddf(L)
    estimate = L @ fit.beta
    wald = estimate @ np.linalg.solve(L @ ours.V_beta @ L.T, estimate) / len(L)
    assert den_df == pytest.approx(m, rel=rtol)
    assert factor * wald == pytest.approx(f_value, rel=rtol)


MODELS = {
    "plain": ("y ~ arm + x", {}),
    "weights": ("y ~ arm * x", {"weights": "w"}),
    "dispersion": ("y ~ arm + x", {"dispersion": "~ sex + x"}),
    "nested": ("y ~ arm + x + (1|site)", {"weights": "w"}),
    "full Z": ("y ~ arm + (1|lab)", {"dispersion": "~ sex"}),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", RESIDUALS)
def test_agrees_with_the_formulas_on_n_by_n_matrices(name, model):
    formula, options = MODELS[model]
    m = mf.fit(formula, visits(), residual=residual_of(name), **options)
    nu = 1.5 if name == "mat" else None
    parts = [oracle.random_part(m._fit), oracle.residual_part(m._fit, name, nu=nu)]
    step = None if nu is None else 1e-3
    check(m._fit, parts, rtol=1e-6 if nu is None else 1e-5, step=step)
    if not m._fit.evaluation.problem.rows.model.structure.family.linear:
        check(m._fit, parts, linear=True, rtol=1e-5, step=step)


@pytest.mark.parametrize("name", ["us", "csh", "gau"])
@pytest.mark.parametrize("formula", ["y ~ arm + x", "y ~ arm + (1|site)"])
def test_strata_have_parameters_of_their_own(name, formula):
    data = visits(subjects=40)
    m = mf.fit(formula, data, residual=residual_of(name, "sex/"))
    check(m._fit, [oracle.random_part(m._fit), oracle.residual_part(m._fit, name)])


@pytest.mark.parametrize("name", ["exp", "gau"])
def test_nugget_is_a_parameter(name):
    data = visits(subjects=60)
    data["y"] += np.random.default_rng(1).normal(size=len(data))
    residual = f"{name}(lat + lon | id, nugget=True)"
    m = mf.fit("y ~ arm + x", data, residual=residual)
    part = oracle.residual_part(m._fit, name, nugget=True)
    check(m._fit, [oracle.random_part(m._fit), part])


def test_smoothness_is_a_parameter():
    m = mf.fit("y ~ arm", visits(subjects=40, size=4), residual="mat(time | id)")
    check(m._fit, [oracle.residual_part(m._fit, "mat")], rtol=1e-4, step=1e-3)


@pytest.mark.parametrize("formula", ["y ~ arm + x + (x|site)", "y ~ arm + (x||lab)"])
def test_random_slopes_with_correlated_residuals(formula):
    m = mf.fit(formula, visits(), residual="arh1(visit | id)", weights="w")
    check(m._fit, [oracle.random_part(m._fit), oracle.residual_part(m._fit, "arh1")])


def test_one_field_without_groups_is_one_subject():
    data = visits(size=4)
    m = mf.fit("y ~ arm + (1|lab)", data, residual="exp(time + x)")
    check(m._fit, [oracle.random_part(m._fit), oracle.residual_part(m._fit, "exp")])


@pytest.mark.parametrize("method", ["kenward-roger", "kenward-roger-observed"])
def test_compound_symmetry_is_a_random_intercept(method):
    data = visits(subjects=40)
    one = mf.fit("y ~ arm * visit + x", data, residual="cs(visit | id)")
    two = mf.fit("y ~ arm * visit + x + (1|id)", data)
    V_one, V_two = (m.cov_params(ddf=method) for m in (one, two))
    np.testing.assert_allclose(V_one, V_two, rtol=1e-6)
    for column in ("f_value", "den_df"):
        np.testing.assert_allclose(
            one.anova(ddf=method)[column], two.anova(ddf=method)[column], rtol=1e-5
        )


@pytest.mark.parametrize("name", ["us", "ante1", "toeph"])
def test_does_not_depend_on_the_units(name):
    data = visits(subjects=30)
    m = mf.fit("y ~ arm + x", data, residual=residual_of(name))
    scaled = data.assign(y=3.0 * data["y"] + 5.0, x=data["x"] / 100.0, w=7.0)
    two = mf.fit("y ~ arm + x", scaled, residual=residual_of(name), weights="w")
    for column in ("f_value", "den_df"):
        np.testing.assert_allclose(
            m.anova(ddf="kenward-roger")[column],
            two.anova(ddf="kenward-roger")[column],
            rtol=1e-4,
        )


def test_a_range_of_zero_is_left_out():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(np.arange(20), 4), "t": np.tile(range(4), 20)})
    data["x"] = rng.normal(size=80)
    noise = rng.normal(size=(20, 4))
    data["y"] = (noise - 0.9 * noise.mean(axis=1)[:, None]).ravel()
    correlated = mf.fit("y ~ x", data, residual="exp(t | id)")
    plain = mf.fit("y ~ x", data)
    np.testing.assert_allclose(
        correlated.cov_params(ddf="kenward-roger"), plain.cov_params(), rtol=1e-6
    )
    test = correlated.test({"x": 1.0}, ddf="kenward-roger")
    assert test.den_df == pytest.approx(78.0)


def families(seed=5, m=14):
    """Animals with a pedigree of three generations, the first without records."""
    rng = np.random.default_rng(seed)
    pedigree = pd.DataFrame(
        {
            "animal": [f"a{i:02}" for i in range(m)],
            "sire": [None] * 4 + [f"a{rng.integers(0, 2):02}" for _ in range(4, m)],
            "dam": [None] * 4 + [f"a{rng.integers(2, i):02}" for i in range(4, m)],
        }
    )
    data = pd.DataFrame({"animal": rng.choice(pedigree["animal"][2:], 60)})
    data["arm"] = rng.choice(list("abc"), 60)
    data["visit"] = data.groupby("animal").cumcount()
    data["x"] = rng.normal(size=60)
    data["herd"] = rng.integers(0, 4, 60)
    data["w"] = rng.uniform(0.5, 2.0, 60)
    code = data["animal"].str[1:].astype(int)
    data["y"] = (
        rng.normal(size=m)[code] + 0.5 * rng.normal(size=m)[code] * data["x"]
        + rng.normal(size=4)[data["herd"]] + rng.normal(size=60)
    )  # fmt: skip
    return pedigree, data


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ arm + x + (1|animal)",
        "y ~ arm + (1|animal) + (1|herd)",
        "y ~ arm + (1 + x|animal) + (1|herd)",
        "y ~ arm + (1 + x||animal) + (1|animal:herd)",
    ],
)
def test_related_levels_agree_with_n_by_n_matrices(formula, backend):
    pedigree, data = families()
    m = mf.fit(
        formula,
        data,
        relationship={"animal": pedigree},
        weights="w",
        control={"backend": backend},
    )
    check(m._fit, [oracle.random_part(m._fit), oracle.independent_part(m._fit)])


def test_unconnected_families_share_columns():
    pedigree, data = families()
    pedigree = pd.concat([f + pedigree for f in "uvw"])
    data = pd.concat([data.assign(animal=f + data["animal"]) for f in "uvw"])
    data["y"] += np.random.default_rng(1).normal(size=len(data))
    m = mf.fit("y ~ arm + x + (x|animal)", data, relationship={"animal": pedigree})
    check(m._fit, [oracle.random_part(m._fit), oracle.independent_part(m._fit)])


@pytest.mark.parametrize("name", ["us", "ar1"])
def test_related_levels_with_correlated_residuals(name):
    pedigree, data = families()
    data = data[data["visit"] < 3].reset_index(drop=True)
    m = mf.fit(
        "y ~ arm + x + (1|animal) + (1|herd)",
        data,
        relationship={"animal": pedigree},
        residual=f"{name}(visit | animal)",
    )
    check(m._fit, [oracle.random_part(m._fit), oracle.residual_part(m._fit, name)])


def test_identity_relationship_changes_nothing():
    _, data = families()
    names = pd.Index(sorted(set(data["animal"])))
    K = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    one = mf.fit("y ~ arm + x + (1|animal)", data)
    two = mf.fit("y ~ arm + x + (1|animal)", data, relationship={"animal": K})
    np.testing.assert_allclose(
        one.cov_params(ddf="kenward-roger"),
        two.cov_params(ddf="kenward-roger"),
        rtol=1e-6,
    )


#: SAS PROC MIXED, ddfm=kr and kr(firstorder), FEV1 ~ ARMCD on fev_data of the R package
#: mmrm (Apache-2.0): SE by both and df of the arm, as its tests/testthat/
#: test-kenwardroger.R prints them (exp: the two SEs are under each other's heading
#: there); gau from design/SAS/sas_sp_gau_kr.txt. SAS takes the observed information.
SAS = {
    "ar1": ("0.95865439662225", "0.96058142305176", "188.46934887972"),
    "arh1": ("0.7590316099633", "0.75924807546934", "188.225339095373"),
    "cs": ("0.7964696053595", "0.7964696053595", "177.038485931223"),
    "csh": ("0.67414806011886", "0.67403858183242", "190.737701349941"),
    "ante1": ("0.66172017349971", "0.66158550758897", "162.393385281755"),
    "toep": ("0.87839805519623", "0.87839805519623", "160.027408337368"),
    "toeph": ("0.72543828853831", "0.72537324518435", "180.062730071701"),
    "us": ("0.66124382270307", "0.66124382270307", "160.733266403768"),
    "exp": ("0.90527620094771", "0.90552903839818", "195.584197921463"),
    "gau": ("0.9016", "0.9028", "250.2326"),
}


@pytest.mark.parametrize("name", SAS)
def test_observed_information_agrees_with_sas(name):
    where = "VISITN + VISITN2" if name in ("exp", "gau") else "AVISIT"
    data = pd.read_csv(Path(__file__).parents[1] / "references" / "data" / "fev.csv")
    m = mf.fit("FEV1 ~ ARMCD", data.dropna(), residual=f"{name}({where} | USUBJID)")
    second, first = (
        kenward_roger(m._fit, observed=True, linear=linear) for linear in (False, True)
    )
    se, se_linear, den_df = map(float, SAS[name])
    # SAS stops its iterations at a relative change of the criterion of 1e-8.
    slack = 1.5e-4
    assert np.sqrt(second.V_beta[1, 1]) == pytest.approx(se, rel=slack)
    assert np.sqrt(first.V_beta[1, 1]) == pytest.approx(se_linear, rel=slack)
    assert second.t_ddf(np.eye(2))[1] == pytest.approx(den_df, rel=6e-4)


@pytest.mark.parametrize("name", ["us", "csh", "car1"])
@pytest.mark.parametrize("model", ["dispersion", "nested"])
def test_observed_information_is_that_of_the_natural_parameters(name, model):
    """W from differences of the dense criterion by phi."""
    formula, options = MODELS[model]
    m = mf.fit(formula, visits(subjects=40), residual=residual_of(name), **options)
    parts = [oracle.random_part(m._fit), oracle.residual_part(m._fit, name)]
    phi, V = oracle.added(*parts)
    W = 2.0 * np.linalg.inv(oracle.hessian(m._fit, V, phi))
    rows = np.eye(len(m._fit.beta))[1:2]
    adjusted, _, den_df = oracle.dense_kenward_roger(m._fit, V, phi, rows, W=W)
    ours = kenward_roger(m._fit, observed=True)
    np.testing.assert_allclose(ours.V_beta, adjusted, rtol=1e-4, atol=1e-7)
    assert ours.f_ddf(rows)[0] == pytest.approx(den_df, rel=1e-4)


class AR1:
    """Variance sigma^2 rho^|i - j|: T by (log sigma, artanh rho)."""

    name, scales_columns, couples, linear = "us", False, True, False

    def n_parameters(self, k):
        return 2

    def start(self, k):
        return np.array([0.0, 0.3])

    def _parts(self, theta, k):
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        return np.exp(2.0 * theta[0]), np.tanh(theta[1]), lag

    def natural_derivatives(self, theta, k):
        v, rho, lag = self._parts(theta, k)
        by_rho = lag * rho ** np.maximum(lag - 1, 0)
        first = np.array([rho**lag, v * by_rho])
        second = np.zeros((2, 2, k, k))
        second[0, 1] = second[1, 0] = by_rho
        second[1, 1] = v * lag * (lag - 1) * rho ** np.maximum(lag - 2, 0)
        return first, second


@pytest.mark.parametrize("linear", [False, True])
def test_terms_that_are_not_linear_have_second_derivatives(linear):
    """AR1 of three coefficients, given in place of the fitted covariance."""
    data = visits(subjects=40)
    data["u"], data["v"] = np.cos(data["time"]), np.sin(data["time"])
    m = mf.fit("y ~ arm + (0 + x + u + v|id)", data)
    fit = m._fit
    problem = fit.evaluation.problem
    theta = np.array([np.log(0.8), 0.5])
    v, rho, lag = AR1()._parts(theta, 3)
    here = evaluate_at(problem, (np.linalg.cholesky(v * rho**lag),))
    given = replace(problem, structures=(AR1(),), theta_slices=(slice(0, 2),))
    here = replace(here, problem=given)
    terms = terms_of(here, theta)
    np.testing.assert_allclose(terms[0].gamma, [v, 0.0], atol=1e-12)
    C, Z = problem.Z_scales[0], fit.design.blocks[0].Z.toarray()
    Z = Z @ np.kron(np.eye(fit.design.blocks[0].m), np.linalg.inv(C))

    def V(phi):
        return Z @ np.kron(
            np.eye(fit.design.blocks[0].m), phi[0] * phi[1] ** lag
        ) @ Z.T + phi[2] * np.eye(fit.n)

    sigma2 = fit.sigma**2
    phi = np.array([sigma2 * v, rho, sigma2])
    inverse = np.linalg.inv(V(phi))
    V_beta = np.linalg.inv(fit.design.fixed.X.T @ inverse @ fit.design.fixed.X)
    moved = replace(fit, evaluation=here, scaled_theta=theta, V_beta=V_beta)
    L = np.eye(2)[1:]
    adjusted, _, den_df = oracle.dense_kenward_roger(moved, V, phi, L, linear=linear)
    ours = kenward_roger(moved, linear=linear)
    np.testing.assert_allclose(ours.V_beta, adjusted, rtol=1e-6)
    assert ours.f_ddf(L)[0] == pytest.approx(den_df, rel=1e-6)


@pytest.mark.parametrize(
    ("ddf", "title"),
    [
        ("kenward-roger", "Kenward-Roger"),
        ("kenward-roger-linear", "Kenward-Roger (linear)"),
        ("kenward-roger-observed", "Kenward-Roger (observed information)"),
        (
            "kenward-roger-linear-observed",
            "Kenward-Roger (linear, observed information)",
        ),
    ],
)
def test_ways_are_asked_for_by_name(ddf, title):
    m = mf.fit("y ~ arm + x", visits(), residual="ar1(visit | id)")
    assert title in str(m.anova(ddf=ddf))
    ours = approximate(m._fit, ddf)
    assert ours.title == title
    np.testing.assert_allclose(m.cov_params(ddf=ddf), ours.V_beta)


def test_linear_changes_nothing_where_V_is_linear():
    m = mf.fit("y ~ arm + x + (x|site)", visits(), residual="us(visit | id)")
    one, two = (kenward_roger(m._fit, linear=linear) for linear in (False, True))
    np.testing.assert_array_equal(one.V_beta, two.V_beta)


def test_fit_by_ml_is_refused():
    m = mf.fit("y ~ arm", visits(), residual="us(visit | id)", method="ML")
    with pytest.raises(InferenceError, match="derived for REML"):
        m.anova(ddf="kenward-roger-linear")


def test_says_how_much_memory_correlated_rows_need(monkeypatch):
    m = mf.fit("y ~ arm + (1|lab)", visits(), residual="ar1(visit | id)")
    monkeypatch.setattr(backends.os, "sysconf", lambda _: 400)
    with pytest.raises(SolverError, match=r"derivatives of V over \d+ correlated rows"):
        m.anova(ddf="kenward-roger")


def test_intervals_take_the_variants_by_name():
    m = mf.fit("y ~ arm", visits(), residual="ar1(visit | id)")
    for method in ("kenward-roger-linear", "kenward-roger-observed"):
        ours = approximate(m._fit, method)
        width = stdtrit(ours.t_ddf(np.eye(2)), 0.975) * np.sqrt(np.diag(ours.V_beta))
        found = m.conf_int(method=method)
        np.testing.assert_allclose(found["upper"] - m.params, width)
