"""Heritabilities, genetic correlations, covariance functions against dense algebra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError, MixformError
from mixform.inference.diagnostics.component_expression import evaluate
from mixform.inference.diagnostics.component_functions import Components
from tests import dense_oracle as oracle
from tests.mrode import G_COWS, P_COWS, cow_records, cows, numbers


def pedigree(rng, founders=20, young=60):
    rows = [(i, 0, 0) for i in range(1, founders + 1)]
    for i in range(founders + 1, founders + young + 1):
        sire, dam = rng.choice(np.arange(1, i, 2)), rng.choice(np.arange(2, i, 2))
        rows.append((i, int(sire), int(dam)))
    return pd.DataFrame(rows, columns=["animal", "sire", "dam"])


def breeding_values(rng, A, Sigma):
    return (
        np.linalg.cholesky(A)
        @ rng.normal(size=(len(A), len(Sigma)))
        @ (np.linalg.cholesky(Sigma).T)
    )


class Dense:
    """A fit's deviance in its variances, by terms Z (A x Sigma) Z'."""

    def __init__(self, y, X, terms):
        self.y, self.X, self.terms = y, X, terms

    def V(self, phi):
        V = phi[-1] * np.eye(len(self.y)) + 0j
        start = 0
        for covariates, R in self.terms:
            k = covariates.shape[1]
            pairs = [(c, c) for c in range(k)]
            pairs += [(c, r) for c in range(k) for r in range(c + 1, k)]
            Sigma = np.zeros((k, k), dtype=complex)
            for (c, r), value in zip(pairs, phi[start:], strict=False):
                Sigma[c, r] = Sigma[r, c] = value
            start += len(pairs)
            V = V + R * (covariates @ Sigma @ covariates.T)
        return V

    def deviance(self, phi):
        inverse = np.linalg.inv(self.V(phi))
        C = self.X.T @ inverse @ self.X
        beta = np.linalg.solve(C, self.X.T @ inverse @ self.y)
        rest = self.y - self.X @ beta
        return (
            oracle.log_determinant(self.V(phi))
            + oracle.log_determinant(C)
            + rest @ inverse @ rest
        )

    def covariance(self, phi):
        return np.linalg.inv(oracle.hessian(self.deviance, phi) / 2.0)


@pytest.fixture(scope="module")
def two_traits():
    rng = np.random.default_rng(4)
    ped = pedigree(rng)
    A = mf.Pedigree(ped).A().loc[ped["animal"].astype(str), ped["animal"].astype(str)]
    u = breeding_values(rng, A.to_numpy(), np.array([[2.0, 1.2], [1.2, 3.0]]))
    wide = ped[["animal"]].assign(
        sex=rng.choice(["f", "m"], len(ped)),
        wwg=5.0 + u[:, 0] + rng.normal(size=len(ped)),
        pwg=9.0 + u[:, 1] + rng.normal(size=len(ped)),
    )
    wide.loc[::9, "pwg"] = np.nan
    long = mf.multitrait(["wwg", "pwg"], wide)
    m = mf.fit(
        "value ~ 0 + trait + trait:sex + us(0 + trait | animal)",
        long,
        relationship={"animal": mf.Pedigree(ped)},
    )
    places = long["animal"].to_numpy() - 1
    Z = np.column_stack([long["trait"] == "wwg", long["trait"] == "pwg"]).astype(float)
    R = A.to_numpy()[np.ix_(places, places)]
    dense = Dense(long["value"].to_numpy(), m.design.X.to_numpy(), [(Z, R)])
    phi = m.varcorr["vcov"].to_numpy()
    return m, phi, dense.covariance(phi)


@pytest.fixture(scope="module")
def curves():
    rng = np.random.default_rng(8)
    ped = pedigree(rng, 15, 45)
    A = mf.Pedigree(ped).A().loc[ped["animal"].astype(str), ped["animal"].astype(str)]
    animal = np.repeat(ped["animal"].to_numpy(), 5)
    age = rng.uniform(10.0, 90.0, len(animal))
    age[:2] = 10.0, 90.0
    t = (age - 50.0) / 40.0
    phi = np.column_stack([np.full(len(t), np.sqrt(0.5)), np.sqrt(1.5) * t])
    at = animal - 1
    u = breeding_values(rng, A.to_numpy(), np.array([[4.0, 0.8], [0.8, 1.5]]))
    pe = rng.normal(size=(len(ped), 2)) * [1.5, 1.0]
    y = 3.0 + t + ((u + pe)[at] * phi).sum(axis=1) + rng.normal(size=len(t))
    data = pd.DataFrame({"y": y, "age": age, "animal": animal})
    own = "0 + legendre(age, 1, intercept=True)"
    m = mf.fit(
        f"y ~ legendre(age, 2) + ({own} | animal) + iid({own} | animal)",
        data,
        relationship={"animal": mf.Pedigree(ped)},
    )
    terms = [(phi, A.to_numpy()[np.ix_(at, at)]), (phi, at[:, None] == at)]
    phi = m.varcorr["vcov"].to_numpy()
    return m, phi, Dense(y, m.design.X.to_numpy(), terms).covariance(phi)


def phi_at(age):
    return np.array([np.sqrt(0.5), np.sqrt(1.5) * (age - 50.0) / 40.0])


def quadratic(v, x, z):
    return v[0] * x[0] * z[0] + v[1] * x[1] * z[1] + v[2] * (x[0] * z[1] + x[1] * z[0])


def agree(fitted, expression, function):
    m, phi, covariance = fitted
    slope = oracle.derivatives(function, phi)
    found = m.vcfun(expression)
    assert found.estimate == pytest.approx(function(phi), rel=1e-9)
    assert found.se == pytest.approx(np.sqrt(slope @ covariance @ slope), rel=2e-4)


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ('var(animal, trait="pwg") / total(trait="pwg")',
         lambda v: v[1] / (v[1] + v[3])),
        ("cor(animal, trait=(wwg, pwg))", lambda v: v[2] / (v[0] * v[1]) ** 0.5),
        ("animal[trait[wwg], trait[pwg]] / (animal[trait[wwg]] * animal[trait[pwg]])"
         " ** 0.5", lambda v: v[2] / (v[0] * v[1]) ** 0.5),
        ('cov(animal, trait=("wwg", "pwg"))'
         ' / sqrt(total(trait="wwg") * total(trait="pwg"))',
         lambda v: v[2] / ((v[0] + v[3]) * (v[1] + v[3])) ** 0.5),
    ],
    ids=["heritability", "genetic", "by hand", "phenotypic"],
)  # fmt: skip
def test_two_traits_are_those_of_the_dense_deviance(two_traits, expression, function):
    agree(two_traits, expression, function)


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("var(animal, age=30)", lambda v: quadratic(v, phi_at(30.0), phi_at(30.0))),
        ("cov(animal, age=(20, 85.5))",
         lambda v: quadratic(v, phi_at(20.0), phi_at(85.5))),
        ("cor(`animal.1`, age=(20, 80))",
         lambda v: quadratic(v[3:], phi_at(20.0), phi_at(80.0))
         / (quadratic(v[3:], phi_at(20.0), phi_at(20.0))
            * quadratic(v[3:], phi_at(80.0), phi_at(80.0))) ** 0.5),
        ("var(animal, age=70) / total(age=70)",
         lambda v: quadratic(v, phi_at(70.0), phi_at(70.0))
         / (quadratic(v + np.r_[v[3:6], 0, 0, 0, 0], phi_at(70.0), phi_at(70.0))
            + v[6])),
        ("animal[legendre(age, 1, intercept=True)[0]]", lambda v: v[0]),
    ],
    ids=["variance", "covariance", "correlation", "heritability", "coefficient"],
)  # fmt: skip
def test_covariance_functions_are_those_of_the_dense_deviance(
    curves, expression, function
):
    agree(curves, expression, function)


def test_heritability_of_an_animal_model_is_one_expression(curves):
    m = curves[0].update("y ~ age + (1 | animal) + iid(1 | animal)")
    a, pe, e = m.varcorr["vcov"]
    found = m.vcfun("animal / total()")
    assert found.estimate == pytest.approx(a / (a + pe + e))
    same = m.vcfun("animal / (animal + `animal.1` + residual)")
    assert found.se == pytest.approx(same.se, rel=1e-12)
    assert m.vcfun("var(residual) / total()").estimate == pytest.approx(
        e / (a + pe + e)
    )


def test_a_mapping_gives_a_frame(curves):
    m = curves[0]
    ages = {f"h2 at {a}": f"var(animal, age={a}) / total(age={a})" for a in (20, 60)}
    table = m.vcfun(ages, level=0.9)
    assert list(table.columns) == ["estimate", "se", "lower", "upper"]
    one = m.vcfun(ages["h2 at 60"], level=0.9)
    assert table.loc["h2 at 60", "upper"] == one.upper
    assert table.attrs["notes"] == tuple(
        f"{name}: {note}" for name, e in ages.items() for note in m.vcfun(e).notes
    )


def test_known_variances_give_mrodes_covariances_without_an_error():
    own = "0 + legendre(dim, 2, intercept=True)"
    m = mf.fit(
        f"fat ~ legendre(dim, 4) + ({own} | cow) + iid({own} | cow)",
        cow_records(),
        relationship={"cow": mf.Pedigree(cows())},
        varcomp={"cow": G_COWS, "cow.1": P_COWS, "residual": 3.710},
    )
    table = m.vcfun({"var": "var(cow, dim=106)", "cov": "cov(cow, dim=(106, 140))"})
    printed = numbers("9.2", "genetic variance at 106, covariance of 106 and 140")
    np.testing.assert_allclose(table["estimate"], printed, atol=1e-3)
    assert table["se"].isna().all()
    assert "the variances were given" in table.attrs["notes"][0]


def test_a_random_slope_at_a_value():
    m = mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))
    found = m.vcfun("var(Subject, Days=5)")
    by_hand = m.vcfun(
        "Subject[Intercept] + 10 * Subject[Intercept, Days] + 25 * Subject[Days]"
    )
    assert found.estimate == pytest.approx(by_hand.estimate)
    assert found.se == pytest.approx(by_hand.se)
    diagonal = m.update("Reaction ~ Days + (Days || Subject)")
    found = diagonal.vcfun("cov(Subject, Days=(-1, 2))").estimate
    a, b = diagonal.varcorr["vcov"].iloc[:2]
    assert found == pytest.approx(a - 2.0 * b)


def test_a_residual_with_several_variances_can_be_named():
    both = Components(
        values={"a": 4.0, "Residual[w]": 1.0, "Residual[p]": 2.0,
                "Residual[w, p]": 0.5},
        columns={"a": ("Intercept",), "Residual": ("w", "p")},
        variables={"Residual": ("trait",)},
        covariates=lambda label, at: np.ones(1) if label == "a" else np.array(
            [at["trait"] == "w", at["trait"] == "p"], float),
    )  # fmt: skip
    assert evaluate("residual[p, w]", both)[0] == 0.5
    assert evaluate("total(trait=p)", both)[0] == 6.0
    assert evaluate("cor(residual, trait=(w, p))", both)[0] == pytest.approx(0.5**1.5)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("var(animal)", "var\\(animal\\) needs a value of 'age'(.|\n)*age=..."),
        ("total()", "needs a value of 'age'"),
        ("var(animal, age=5, sex=1)", "no random coefficient there is of 'sex'"),
        ("total(aeg=50)", "'aeg'(.|\n)*Did you mean 'age'"),
        ("total(age=(1, 2))", "at one value"),
        ("var(animal, age=(20, 30))", "var is at one value"),
        ("cov(animal, age=20)", "cov is at two values"),
        ("cor(animl, age=(20, 30))", "component 'animl'"),
        ("var(animal, age=old)", "'age' is numeric, but its value is 'old'"),
        ("var(animal, age=[1])", "is no value of a variable"),
        ("var(age=1)", "is not arithmetic"),
        ("total(animal, age=1)", "is not arithmetic"),
        ("var(animal, age=500)", "500 is outside"),
        ("var(animal, **age)", "no random coefficient|no value"),
    ],
)
def test_what_is_refused(curves, expression, message):
    with pytest.raises(MixformError, match=message):
        curves[0].vcfun(expression)


def test_unknown_levels_and_variances_of_zero_are_refused(two_traits):
    with pytest.raises(InferenceError, match="'trait' has no level 'fat'"):
        two_traits[0].vcfun("var(animal, trait=fat)")
    zero = Components(
        values={"s[a]": 0.0, "s[b]": 1.0, "s[a, b]": 0.0, "Residual": 1.0},
        columns={"s": ("a", "b")},
        variables={"s": ("t",)},
        covariates=lambda label, at: np.eye(2)[int(at["t"])],
    )
    with pytest.raises(InferenceError, match="a variance is 0"):
        evaluate("cor(s, t=(0, 1))", zero)


@pytest.fixture(scope="module")
def correlated_traits():
    rng = np.random.default_rng(4)
    ped = pedigree(rng)
    A = mf.Pedigree(ped).A().loc[ped["animal"].astype(str), ped["animal"].astype(str)]
    u = breeding_values(rng, A.to_numpy(), np.array([[2.0, 1.2], [1.2, 3.0]]))
    e = rng.normal(size=(len(ped), 2)) @ np.array([[1.5, 0.6], [0.0, 1.0]])
    wide = ped[["animal"]].assign(wwg=5.0 + u[:, 0] + e[:, 0], pwg=u[:, 1] + e[:, 1])
    wide.loc[::9, "pwg"] = np.nan
    long = mf.multitrait(["wwg", "pwg"], wide)
    m = mf.fit(
        "value ~ 0 + trait + us(0 + trait | animal)",
        long,
        relationship={"animal": mf.Pedigree(ped)},
        residual="us(trait | record)",
    )
    places = long["animal"].to_numpy() - 1
    Z = np.column_stack([long["trait"] == "wwg", long["trait"] == "pwg"]).astype(float)
    records = long["record"].to_numpy()
    same = (records[:, None] == records).astype(float)
    terms = [(Z, A.to_numpy()[np.ix_(places, places)]), (Z, same)]

    class Correlated(Dense):
        def V(self, phi):  # the residual is a term with a variance of zero beside it
            return super().V(np.append(phi, 0.0))

    R = m.residual_covariance().to_numpy()
    phi = np.append(m.varcorr["vcov"].iloc[:3], [R[0, 0], R[1, 1], R[0, 1]])
    dense = Correlated(long["value"].to_numpy(), m.design.X.to_numpy(), terms)
    return m, phi, dense.covariance(phi)


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("residual[pwg, wwg]", lambda v: v[5]),
        ('var(animal, trait="pwg") / total(trait="pwg")',
         lambda v: v[1] / (v[1] + v[4])),
        ("(cov(animal, trait=(wwg, pwg)) + cov(residual, trait=(wwg, pwg)))"
         " / sqrt(total(trait=wwg) * total(trait=pwg))",
         lambda v: (v[2] + v[5]) / ((v[0] + v[3]) * (v[1] + v[4])) ** 0.5),
        ("cor(residual, trait=(wwg, pwg))", lambda v: v[5] / (v[3] * v[4]) ** 0.5),
    ],
    ids=["covariance", "heritability", "phenotypic", "environmental"],
)  # fmt: skip
def test_correlated_residuals_are_those_of_the_dense_deviance(
    correlated_traits, expression, function
):
    agree(correlated_traits, expression, function)


def test_residuals_of_other_structures():
    data = mf.datasets.load("Orthodont")
    data["visit"] = data["age"].astype(int)
    one = mf.fit("distance ~ age", data, residual="cs(visit | Subject)")
    assert one.vcfun("residual").estimate == pytest.approx(one.sigma**2)
    assert one.vcfun("sqrt(residual)").se > 0.0
    diagonal = mf.fit("distance ~ age", data, residual="diag(visit | Subject)")
    found = diagonal.vcfun("residual[8] / residual[14]").estimate
    R = diagonal.residual_covariance()
    assert found == pytest.approx(R.loc["8", "8"] / R.loc["14", "14"])
    strata = mf.fit("distance ~ age", data, residual="us(visit | Sex/Subject)")
    R = strata.residual_covariance("Male")
    found = strata.vcfun("`Residual:Male`[8, 10]").estimate
    assert found == pytest.approx(R.loc["8", "10"])
    with pytest.raises(InferenceError, match="differs by stratum"):
        strata.vcfun("total(visit=8)")
    assert strata.cov_varcorr().shape == (20, 20)
