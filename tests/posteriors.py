"""Posteriors made by hand: no sampler, any draws."""

from __future__ import annotations

import numpy as np

import mixform as mf
from mixform.estimate.bayes.posterior import Posterior
from mixform.estimate.bayes.resolved import resolve_priors
from mixform.relationship import Pedigree
from mixform.result import BayesResult


def sleep():
    return mf.datasets.load("sleepstudy")


def weighted():
    """sleepstudy with weights, an offset, a missing day, and a factor."""
    data = sleep()
    rows = np.arange(len(data))
    data["w"] = 0.5 + rows % 3
    data["shift"] = 10.0 * np.sin(rows)
    data["half"] = np.where(rows % 2 == 0, "even", "odd")
    data.loc[7, "Days"] = np.nan
    return data


def family():
    """Six animals with a pedigree, two of them without records."""
    pedigree = Pedigree(
        ["1", "2", "3", "4", "5", "6"],
        sire=[None, None, "1", "1", "3", "3"],
        dam=[None, None, "2", None, "4", "2"],
    )
    rng = np.random.default_rng(4)
    ids = np.repeat(["3", "4", "5", "6"], 5)
    y = rng.standard_normal(20) + 2.0 * rng.standard_normal(4).repeat(5)
    return {"y": y, "animal": ids, "x": np.tile(np.arange(5.0), 4)}, pedigree


def crossed():
    data = mf.datasets.load("Penicillin")
    return mf.fit("diameter ~ 1 + (1|plate) + (1|sample)", data)


def related():
    data, pedigree = family()
    return mf.fit("y ~ x + (1|animal)", data, relationship={"animal": pedigree})


#: Models by REML, of all kinds that a posterior can have.
MODELS = {
    "slopes": lambda: mf.fit("Reaction ~ Days + (Days|Subject)", sleep()),
    "independent": lambda: mf.fit("Reaction ~ Days + (Days||Subject)", sleep()),
    "crossed": crossed,
    "related": related,
    "weighted": lambda: mf.fit(
        "Reaction ~ half * Days + offset(shift) + (Days|Subject)",
        weighted(),
        weights="w",
    ),
    "log": lambda: mf.fit("log(Reaction) ~ half + (1|Subject)", weighted()),
    "random": lambda: mf.fit("Reaction ~ 0 + (1|Subject)", sleep()),
    "fixed": lambda: mf.fit("Reaction ~ Days", sleep()),
}


def natural(fit, T, sigma):
    """Return names, and values of SDs, correlations and sigma, of one draw."""
    names, values = [], []
    labels = [term.label for term in resolve_priors(fit.design, None, 1.0).terms]
    for label, block, factor in zip(labels, fit.design.blocks, T, strict=True):
        Sigma = sigma**2 * factor @ factor.T
        sd = np.sqrt(np.diag(Sigma))
        names += [f"sd({label}: {name})" for name in block.columns]
        values += sd.tolist()
        for c in range(0 if block.term.structure == "diag" else block.k):
            for r in range(c + 1, block.k):
                names.append(f"cor({label}: {block.columns[c]}, {block.columns[r]})")
                values.append(Sigma[r, c] / (sd[r] * sd[c]))
    return [*names, "sigma"], [*values, sigma]


def posterior_of(fit, draws, *, chains=2, effects=None, warnings=()):
    """Return the posterior whose draws are (T, sigma, beta, b) of each."""
    count = len(draws)
    T, sigma, beta, b = zip(*draws, strict=True)
    effects = np.arange(count) if effects is None else np.asarray(effects)
    names = natural(fit, T[0], sigma[0])[0]
    d, k = len(names), range(len(fit.design.blocks))
    shape = (chains, count // chains)
    return Posterior(
        fit=fit,
        priors=resolve_priors(fit.design, None, fit.sigma),
        n_chains=chains,
        n_draws=count // chains,
        T=tuple(np.array([one[j] for one in T]) for j in k),
        sigma=np.array(sigma),
        rho=np.empty((count, 0)),
        effects=effects,
        beta=np.array(beta)[effects],
        b=tuple(np.array([one[j] for one in b])[effects] for j in k),
        names=tuple(names),
        parameters=np.array(
            [natural(fit, t, s)[1] for t, s in zip(T, sigma, strict=True)]
        ),
        log_prior=np.zeros(count),
        log_posterior=np.arange(float(count)),
        sample_stats={"diverging": np.zeros(shape, dtype=bool)},
        rhat=np.ones(d),
        ess_bulk=np.full(d, float(count)),
        ess_tail=np.full(d, float(count)),
        warnings=tuple(warnings),
    )


def constant(result, count=8):
    """Return the posterior all of whose draws are the estimates of REML."""
    fit = result._fit
    return BayesResult(
        posterior_of(fit, [(fit.T, fit.sigma, fit.beta, fit.b)] * count), result._call
    )


def scattered(result, count=40, seed=1, **options):
    """Return a posterior whose draws are scattered about the estimates."""
    fit, rng = result._fit, np.random.default_rng(seed)

    def near(x):
        return np.asarray(x) + 0.3 * rng.standard_normal(np.shape(x))

    def factor(T):
        diagonal = np.diag(0.1 + rng.random(len(T)))
        return np.tril(near(T), -1) * (T != 0.0) + diagonal

    draws = [
        (
            tuple(factor(T) for T in fit.T),
            float(fit.sigma * np.exp(0.2 * rng.standard_normal())),
            near(fit.beta),
            tuple(near(b) for b in fit.b),
        )
        for _ in range(count)
    ]
    return BayesResult(posterior_of(fit, draws, **options), result._call)
