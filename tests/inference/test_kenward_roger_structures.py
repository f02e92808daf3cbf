"""Kenward-Roger with residual structures, dispersion and related levels."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.inference.kenward_roger import kenward_roger
from mixform.residual import RESIDUALS
from tests import kenward_roger_oracle as oracle


def visits(seed=4, subjects=24, size=4):
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


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", RESIDUALS)
def test_agrees_with_the_formulas_on_n_by_n_matrices(name, model, linear):
    formula, options = MODELS[model]
    m = mf.fit(formula, visits(), residual=residual_of(name), **options)
    nu = 1.5 if name == "mat" else None
    parts = [oracle.random_part(m._fit), oracle.residual_part(m._fit, name, nu=nu)]
    check(m._fit, parts, linear=linear, step=1e-3 if nu else None,
          rtol=1e-5 if nu else 1e-6)  # fmt: skip


@pytest.mark.parametrize("name", ["us", "csh", "ar1", "toep", "gau"])
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
    m = mf.fit("y ~ arm", visits(subjects=40), residual="mat(time | id)")
    check(m._fit, [oracle.residual_part(m._fit, "mat")], rtol=1e-4, step=1e-3)


@pytest.mark.parametrize("formula", ["y ~ arm + x + (x|site)", "y ~ arm + (x||lab)"])
def test_random_slopes_with_correlated_residuals(formula):
    m = mf.fit(formula, visits(), residual="arh1(visit | id)", weights="w")
    check(m._fit, [oracle.random_part(m._fit), oracle.residual_part(m._fit, "arh1")])


def test_one_field_without_groups_is_one_subject():
    data = visits()
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
