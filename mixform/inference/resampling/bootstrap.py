"""The parametric bootstrap: refit the model to responses drawn from it.

Goes in: a fit, a number of draws and a statistic. Comes out: the statistic of each
refit, its standard errors, bias and intervals, and how many refits were singular or
failed. The same seed gives the same answer whoever does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.batch.batch import Refits, Refitter
from mixform.inference.intervals import require_level
from mixform.inference.natural_parameters import residual_names, residual_values
from mixform.inference.resampling.replication import (
    Workers,
    notes_of,
    replicate,
    require_some,
    run_chunks,
)
from mixform.inference.resampling.simulation import (
    Simulator,
    chunks,
    parameters,
    require_count,
    simulator_of,
)
from mixform.inference.variance_components import block_labels
from mixform.progress import Progress

KINDS = ("parametric", "semiparametric")
INTERVALS = ("percentile", "basic", "normal")

#: What makes the statistic's argument of a Fit: `Result` for users.
Wrap = Callable[[Fit], Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bootstrap:
    """The statistic of each refit.

    Attributes
    ----------
    replicates : frame (nsim, statistics); a row of NaN where the refit or the statistic
        failed
    estimate : the statistic of the fit
    n_failed : refits that failed, or whose statistic raised
    n_singular : refits with a singular covariance
    n_uncertified : refits whose optimum is not certified
    kind, formula : of the bootstrap and the model
    notes : what a reader must know besides the numbers
    """

    replicates: pd.DataFrame
    estimate: pd.Series
    n_failed: int
    n_singular: int
    n_uncertified: int
    kind: str
    formula: str
    notes: tuple[str, ...]

    @property
    def nsim(self) -> int:
        """Number of draws that were made."""
        return len(self.replicates)

    @property
    def se(self) -> pd.Series:
        """Standard deviation of the replicates."""
        return self.replicates.std(ddof=1)

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates minus the estimate."""
        return self.replicates.mean() - self.estimate

    def conf_int(self, level: float = 0.95, method: str = "percentile") -> pd.DataFrame:
        """Return bootstrap confidence intervals (Davison and Hinkley 1997, chapter 5).

        Parameters
        ----------
        level : confidence level in (0, 1)
        method : "percentile"; "basic", 2 estimate - quantile; "normal", estimate - bias
            with the bootstrap's standard error

        Returns
        -------
        frame : ``lower, upper`` by statistic
        """
        require_level(level)
        if method not in INTERVALS:
            raise InferenceError(
                f"Unknown bootstrap interval {method!r}.",
                hint=suggest(str(method), INTERVALS, "Methods"),
            )
        tails = np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        estimate = self.estimate.to_numpy()[:, None]
        if method == "normal":
            center = estimate - self.bias.to_numpy()[:, None]
            limits = center + self.se.to_numpy()[:, None] * ndtri(tails)
        else:
            limits = np.array(
                [_quantiles(self.replicates[name], tails) for name in self.replicates]
            ).reshape(-1, 2)
            if method == "basic":
                limits = 2.0 * estimate - limits[:, ::-1]
        index = self.estimate.index
        return pd.DataFrame(limits, index=index, columns=["lower", "upper"])


def _quantiles(values: pd.Series, tails: Vector) -> Vector:
    """Return quantiles at (r + 1) tails of the r finite values."""
    finite = values.dropna().to_numpy()
    if len(finite) < 2:
        return np.full(len(tails), np.nan)
    return np.quantile(finite, tails, method="weibull")


def bootstrap(
    fit: Fit,
    nsim: int,
    *,
    statistic: Callable[[Any], Any] | None = None,
    wrap: Wrap | None = None,
    seed: object = None,
    kind: str = "parametric",
    use_u: bool | str | Sequence[str] = False,
    workers: Workers = 1,
    progress: bool | None = None,
) -> Bootstrap:
    """Refit the model to ``nsim`` responses drawn from it.

    Parameters
    ----------
    statistic : function of a refitted model that returns a number, array, mapping or
        Series; None for the fixed effects, standard deviations and correlations
    wrap : makes the argument of the statistic of a Fit; None passes the Fit
    seed : None, an integer, a numpy SeedSequence or Generator
    kind : "parametric", or "semiparametric", which draws residuals of the fit and needs
        ``use_u=True``
    use_u : False draws new random effects; True or names of terms keep the estimates
    workers : number of processes (needs joblib), or a function used as `map`
    progress : show a bar; None after a few seconds, if tqdm is installed

    Raises
    ------
    InferenceError : nsim below 1; the statistic raises on the fit itself, or in all
        replicates
    """
    nsim = require_count(nsim)
    simulator = _simulator(fit, kind, use_u)
    refitter = Refitter(fit)
    if statistic is None:
        measure = ParameterMeasure(refitter)
    else:
        measure = CustomMeasure(refitter, statistic, wrap or _itself)
    work = partial(replicate, simulator, measure)
    with Progress(progress, nsim, "refits") as bar:
        draws = list(chunks(simulator, nsim, seed))
        part = run_chunks(work, draws, workers, bar)
    require_some(part, "The statistic" if statistic else "The refit")
    replicates = pd.DataFrame(part.values, columns=measure.estimate.index)
    return Bootstrap(
        replicates=replicates,
        estimate=measure.estimate,
        n_failed=len(part.failures),
        n_singular=part.n_singular,
        n_uncertified=part.n_uncertified,
        kind=kind,
        formula=fit.design.formula.source,
        notes=(*notes_of(part, nsim), *_undefined(replicates, len(part.failures))),
    )


def _simulator(fit: Fit, kind: str, use_u: bool | str | Sequence[str]) -> Simulator:
    """Return what the draws of this kind need.

    Raises
    ------
    InferenceError : unknown kind, or one that needs the estimated random effects
    """
    if kind not in KINDS:
        raise InferenceError(
            f"Unknown kind of bootstrap {kind!r}.",
            hint=suggest(str(kind), KINDS, "Kinds"),
        )
    if kind == "semiparametric" and use_u is not True:
        raise InferenceError(
            "The semiparametric bootstrap keeps the random effects.",
            hint="Give use_u=True with it.",
        )
    return simulator_of(
        fit, parameters(fit), use_u=use_u, resample=kind == "semiparametric"
    )


def _undefined(replicates: pd.DataFrame, n_failed: int) -> list[str]:
    """Name the statistics that have no value in draws that did not fail."""
    missing = replicates.isna().sum() - n_failed
    return [
        f"{name} is undefined in {count} draws, which are left out."
        for name, count in missing[missing > 0].items()
    ]


def _itself(fit: Fit) -> Fit:
    return fit


class ParameterMeasure:
    """Fixed effects, standard deviations, correlations and sigma of the refits."""

    def __init__(self, refitter: Refitter) -> None:
        self.refitter = refitter
        self.stack_size = refitter.stack_size
        fit = refitter.fit
        names = pd.Index(parameter_names(fit))
        self.estimate = pd.Series(parameter_values(fit), index=names)
        self.n_values = len(self.estimate)

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        refits = self.refitter(Y)
        values = _values(
            self.refitter.fit, refits.beta, refits.sigma, refits.T, refits.rho
        )
        return values, refits.failures, [refits]


def parameter_names(fit: Fit) -> list[str]:
    """Return names of the parameters.

    Coefficients by their names; ``sd(Subject: Days)``, ``cor(Subject: Intercept,
    Days)`` by random term; ``sigma``, or the parameters of a residual structure.
    """
    names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    for label, block in zip(block_labels(fit), fit.design.blocks, strict=True):
        columns = block.columns
        names += [f"sd({label}: {name})" for name in columns]
        if block.term.structure != "diag":
            for c in range(block.k):
                for r in range(c + 1, block.k):
                    names.append(f"cor({label}: {columns[c]}, {columns[r]})")
    return [*names, *residual_names(fit)]


def parameter_values(fit: Fit) -> Vector:
    """Return the parameters in the order of `parameter_names`."""
    stacks = [T[None] for T in fit.T]
    sigma, rho = np.array([fit.sigma]), fit.rho[None]
    return _values(fit, fit.beta[None], sigma, stacks, rho)[0]


def _values(
    fit: Fit, beta: Matrix, sigma: Vector, T: Sequence[Stack], rho: Matrix
) -> Matrix:
    """Return the parameters (r, s) in the order of `parameter_names`."""
    parts = [beta]
    for block, stack in zip(fit.design.blocks, T, strict=True):
        sd = sigma[:, None] * np.sqrt(np.sum(stack**2, axis=2))
        parts.append(sd)
        if block.term.structure == "diag":
            continue
        relative = stack @ stack.swapaxes(1, 2) * (sigma**2)[:, None, None]
        for c in range(block.k):
            for r in range(c + 1, block.k):
                scale = sd[:, r] * sd[:, c]
                with np.errstate(invalid="ignore", divide="ignore"):
                    cor = np.where(scale > 0.0, relative[:, r, c] / scale, np.nan)
                parts.append(cor[:, None])
    if fit.evaluation.problem.rows is None:
        return np.hstack([*parts, sigma[:, None]])
    pairs = zip(rho, sigma.tolist(), strict=True)
    parts.append(np.array([residual_values(fit, *pair) for pair in pairs]))
    return np.hstack(parts)


class CustomMeasure:
    """A function of each refitted model."""

    def __init__(
        self, refitter: Refitter, statistic: Callable[[Any], Any], wrap: Wrap
    ) -> None:
        self.refitter, self.statistic, self.wrap = refitter, statistic, wrap
        self.stack_size = refitter.stack_size
        if not callable(statistic):
            raise InferenceError(
                f"The statistic is a {type(statistic).__name__}, not a function.",
                hint="Give a function of a fitted model that returns numbers.",
            )
        try:
            self.estimate = _as_series(statistic(wrap(refitter.fit)))
        except Exception as failure:
            raise InferenceError(
                f"The statistic fails on the fit itself: {_named(failure)}",
                hint="It is called with a fitted model and must return a number, an "
                "array, a mapping or a Series.",
            ) from failure
        self.n_values = len(self.estimate)

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        values = np.full((Y.shape[1], self.n_values), np.nan)
        failures: dict[int, str] = {}

        def visit(j: int, refitted: Fit) -> None:
            try:
                found = _as_series(self.statistic(self.wrap(refitted)))
                if not found.index.equals(self.estimate.index):
                    raise ValueError(
                        f"it returns {len(found)} values, named otherwise than the "
                        f"{self.n_values} of the fit"
                    )
            except Exception as failure:
                failures[j] = _named(failure)
            else:
                values[j] = found.to_numpy()

        refits = self.refitter(Y, visit)
        return values, failures | refits.failures, [refits]


def _named(failure: Exception) -> str:
    text = str(failure).split("\n")[0]
    return f"{type(failure).__name__}: {text}"


def _as_series(value: object) -> pd.Series:
    """Return what a statistic returned as numbers with names."""
    if isinstance(value, pd.Series):
        return value.astype(np.float64)
    if isinstance(value, Mapping):
        return pd.Series(dict(value), dtype=np.float64)
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return pd.Series([float(array)], index=pd.Index(["statistic"]))
    if array.ndim != 1:
        raise TypeError(f"the statistic has shape {array.shape}, not one dimension")
    names = [f"statistic[{i}]" for i in range(len(array))]
    return pd.Series(array, index=pd.Index(names))
