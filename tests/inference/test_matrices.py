"""m.matrices(): BLUE and BLUP of a fit again, by V^-1 and by Henderson's equations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError


def animals():
    pedigree = pd.DataFrame(
        {
            "animal": list("abcdefgh"),
            "sire": [None, None, "a", "a", "c", "c", "c", "e"],
            "dam": [None, None, None, "b", "b", "d", "d", "d"],
        }
    )
    rng = np.random.default_rng(4)
    n = 40
    data = pd.DataFrame(
        {
            "animal": rng.choice(list("cdefgh"), n),
            "sex": rng.choice(["f", "m"], n),
            "herd": np.tile(["p", "q", "r", "s"], 10),
            "day": np.repeat(np.arange(10), 4),
            "x": rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
            "z": rng.normal(size=n),
        }
    )
    gain = dict(zip("cdefgh", rng.normal(size=6), strict=True))
    own = data["animal"].map(gain).astype(float)
    level = data["herd"].map({"p": 0.0, "q": 1.0, "r": -1.0, "s": 2.0})
    data["y"] = 3.0 + own + level + rng.normal(size=n)
    return data, mf.Pedigree(pedigree)


def fits():
    data, pedigree = animals()
    sleep = mf.datasets.load("sleepstudy")
    held = {"animal": 0.7, "residual": 1.2}
    return {
        "correlated coefficients": mf.fit("Reaction ~ Days + (Days | Subject)", sleep),
        "pedigree, weights, offset": mf.fit(
            "y ~ sex + (1 | animal) + (1 | herd)",
            data,
            relationship={"animal": pedigree},
            weights="w",
            offset="z",
        ),
        "known variances": mf.fit(
            "y ~ sex + (1 | animal)",
            data,
            relationship={"animal": pedigree},
            varcomp=held,
        ),
        "pedigree and AR(1)": mf.fit(
            "y ~ sex + (1 | animal)",
            data,
            relationship={"animal": pedigree},
            residual="ar1(day | herd)",
            varcomp={"animal": 0.5},
        ),
        "rank deficient": mf.fit(
            "y ~ sex + (x | herd)", data, contrasts={"sex": "full"}, method="ML"
        ),
    }


@pytest.fixture(scope="module")
def models():
    return fits()


NAMES = [
    "correlated coefficients",
    "pedigree, weights, offset",
    "known variances",
    "pedigree and AR(1)",
    "rank deficient",
]


@pytest.mark.parametrize("name", NAMES)
def test_blue_and_blup_of_a_fit_by_both_routes(models, name):
    m = models[name]
    a = m.matrices()
    by_V = mf.gls(a.y, a.X, a.V, sigma2=1.0)
    kept = m.params.notna()
    np.testing.assert_allclose(by_V.params[kept], m.params[kept], rtol=1e-7)
    np.testing.assert_allclose(by_V.bse[kept], m.bse[kept], rtol=1e-7)
    u = pd.Series(by_V.blup(a.C), index=a.effects)
    np.testing.assert_allclose(
        a.X[kept.index[kept]] @ m.params[kept] + a.Z @ u,
        m.fittedvalues - (0.0 if m.design.offset is None else m.design.offset),
        rtol=1e-6,
    )
    table = m.ranef(pev=True).set_index(["grp", "term", "level"])
    frames = {
        f"{g}[{level}]" if f"{g}[{level}]" in u.index else f"{g}[{level}]: {t}": row
        for (g, t, level), row in table.iterrows()
    }
    estimates = pd.Series({n: row["estimate"] for n, row in frames.items()})[u.index]
    np.testing.assert_allclose(u, estimates, rtol=1e-6, atol=1e-8)
    pev = pd.Series({n: row["pev"] for n, row in frames.items()})[u.index]
    np.testing.assert_allclose(by_V.pev(a.C, a.G), pev, rtol=1e-5, atol=1e-9)
    if np.linalg.eigvalsh(a.G.toarray())[0] > 1e-10:
        mme = mf.MixedModelEquations(a.y, a.X, a.Z, G=a.G, R=a.R).solve()
        np.testing.assert_allclose(mme.u, u, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(mme.beta, by_V.params, rtol=1e-7)
        assert mme.names == tuple(m.params.index)


def test_likelihood_at_the_fitted_matrices_is_that_of_the_fit(models):
    m = models["rank deficient"]
    a = m.matrices()
    assert mf.gls(a.y, a.X, a.V, sigma2=1.0).llf == pytest.approx(m.llf, abs=1e-9)


def test_g_is_a_times_sigma(models):
    m = models["known variances"]
    a = m.matrices()
    _, pedigree = animals()
    A = np.linalg.inv(pedigree.A_inverse().toarray())
    np.testing.assert_allclose(a.G.toarray(), 0.7 * A, atol=1e-12)
    np.testing.assert_allclose(a.R.toarray(), 1.2 * np.eye(40))
    assert a.effects[0] == "animal[a]"
    assert "40 rows, 2 fixed, 8 random effects" in repr(a)


def test_model_without_random_effects_has_empty_z():
    a = mf.fit("gain ~ group", mf.datasets.load("pigs")).matrices()
    assert a.Z.shape == (6, 0)
    assert a.G.shape == (0, 0)
    np.testing.assert_allclose(a.V, a.R.toarray())


def test_large_dense_covariances_are_refused():
    rng = np.random.default_rng(0)
    n = 5200
    data = pd.DataFrame({"y": rng.normal(size=n), "g": np.arange(n) % 50})
    m = mf.fit("y ~ 1 + (1 | g)", data)
    a = m.matrices()
    assert a.R.nnz == n
    with pytest.raises(InferenceError, match=r"There are 5200 rows; .* up to 5000"):
        _ = a.V
