"""The likelihood-ratio test by the parametric bootstrap.

Responses are drawn from the smaller model and both are refitted: the statistic is
compared with what it is when the smaller model is true, which no chi-square promises
in small samples or where a variance is zero (Halekoh and Hojsgaard 2014, J. Stat.
Softw. 59(9)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from mixform._typing import Matrix
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.batch.batch import Refits, Refitter
from mixform.estimate.known import require_same_held
from mixform.estimate.refit import refit
from mixform.inference.resampling.replication import (
    Workers,
    notes_of,
    replicate,
    require_some,
    run_chunks,
)
from mixform.inference.resampling.simulation import (
    chunks,
    parameters,
    require_count,
    simulator_of,
)
from mixform.inference.selection.comparison import (
    _same_span,
    _spans,
)
from mixform.inference.selection.residual_change import model_text
from mixform.inference.selection.same_data import require_same_data
from mixform.progress import Progress

#: Difference of criteria that is rounding.
ROUNDING = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BootstrapTest:
    """A likelihood-ratio test with the distribution of its statistic.

    Attributes
    ----------
    statistic : difference of the criteria
    num_df : number of parameters that the larger model has more
    p_value : (1 + draws with a statistic as large) / (1 + draws)
    p_chi2 : by the chi-square distribution with num_df
    p_bartlett : by the chi-square, the statistic scaled so that the draws have the mean
        num_df
    replicates : (draws,) statistics under the smaller model; NaN where a refit failed
    method : of the criteria, "REML" or "ML"
    formulas : of the smaller and the larger model
    notes : what a reader must know besides the numbers
    """

    statistic: float
    num_df: int
    p_value: float
    p_chi2: float
    p_bartlett: float
    replicates: pd.Series
    method: str
    formulas: tuple[str, str]
    notes: tuple[str, ...]


def bootstrap_lrt(
    smaller: Fit,
    larger: Fit,
    nsim: int = 1000,
    *,
    seed: object = None,
    workers: Workers = 1,
    progress: bool | None = None,
) -> BootstrapTest:
    """Test the smaller of two nested models by the parametric bootstrap.

    Models with the same fixed effects are compared by the criterion they were fitted
    by; others are refitted by ML.

    Raises
    ------
    InferenceError : other rows, response or weights; the smaller model is not part of
        the larger one, or fits better
    """
    nsim = require_count(nsim)
    smaller, larger, changed = _comparable(smaller, larger)
    num_df = larger.n_parameters - smaller.n_parameters
    measure = RatioMeasure(Refitter(smaller), Refitter(larger))
    statistic = _ratio(smaller, larger)
    simulator = simulator_of(smaller, parameters(smaller))
    work = partial(replicate, simulator, measure)
    with Progress(progress, nsim, "pairs of refits") as bar:
        draws = list(chunks(simulator, nsim, seed))
        part = run_chunks(work, draws, workers, bar)
    require_some(part, "A refit")
    ratios = part.values[:, 0]
    finite = ratios[np.isfinite(ratios)]
    as_large = int(np.sum(finite >= statistic - ROUNDING))
    return BootstrapTest(
        statistic=max(statistic, 0.0),
        num_df=num_df,
        p_value=(1 + as_large) / (1 + len(finite)),
        p_chi2=float(chdtrc(num_df, max(statistic, 0.0))),
        p_bartlett=_bartlett(statistic, finite, num_df),
        replicates=pd.Series(ratios, name="statistic"),
        method=smaller.method,
        formulas=(model_text(smaller.design), model_text(larger.design)),
        notes=(*changed, *notes_of(part, nsim)),
    )


def _comparable(smaller: Fit, larger: Fit) -> tuple[Fit, Fit, list[str]]:
    """Return the models fitted by one criterion, and what was done for that.

    Raises
    ------
    InferenceError : other data, or not nested
    """
    require_same_data(smaller.design, larger.design, ("smaller", "larger"))
    require_same_held(smaller, larger)
    more = larger.n_parameters - smaller.n_parameters
    if more <= 0 or not _spans(larger.design, smaller.design):
        raise InferenceError(
            f"{model_text(smaller.design)!r} is not part of "
            f"{model_text(larger.design)!r}.",
            hint="Give the smaller model first; the larger one must hold all of it.",
        )
    methods = {smaller.method, larger.method}
    notes: list[str] = []
    if methods != {"REML"} or not _same_span(smaller.design, larger.design):
        notes = ["Refitted by ML."] if "REML" in methods else []
        smaller, larger = (refit(f, method="ML") for f in (smaller, larger))
    worse = -_ratio(smaller, larger)
    if worse > ROUNDING:
        raise InferenceError(
            f"The larger model fits worse, by {worse:.3g}: the smaller one is not "
            "part of it.",
            hint="The random terms of the larger model must hold those of the smaller.",
        )
    return smaller, larger, notes


def _ratio(smaller: Fit, larger: Fit) -> float:
    return smaller.criterion - larger.criterion - coding_constant(smaller, larger)


def coding_constant(smaller: Fit, larger: Fit) -> float:
    """Return how much log|X'X| adds to the difference of REML criteria.

    Two codings of the same fixed effects differ in it, whatever the response.
    """
    if smaller.method == "ML":
        return 0.0
    logs = [
        np.log(np.abs(f.design.fixed.R.diagonal())).sum() for f in (smaller, larger)
    ]
    return 2.0 * float(logs[0] - logs[1])


def _bartlett(statistic: float, ratios: Matrix, num_df: int) -> float:
    """Return the chi-square p value of the statistic divided by mean / num_df."""
    mean = float(ratios.mean())
    if not mean > 0.0:
        return np.nan
    return float(chdtrc(num_df, max(statistic, 0.0) * num_df / mean))


class RatioMeasure:
    """The likelihood-ratio statistic of two models refitted to the same responses."""

    n_values = 1

    def __init__(self, smaller: Refitter, larger: Refitter) -> None:
        self.smaller, self.larger = smaller, larger
        self.stack_size = max(smaller.stack_size, larger.stack_size)
        if min(smaller.stack_size, larger.stack_size) == 1:
            self.stack_size = min(self.stack_size, 16)
        self.constant = coding_constant(smaller.fit, larger.fit)

    def __call__(self, Y: Matrix) -> tuple[Matrix, dict[int, str], Sequence[Refits]]:
        small, large = self.smaller(Y), self.larger(Y)
        ratios = small.criterion - large.criterion - self.constant
        return ratios[:, None], small.failures | large.failures, [small, large]
