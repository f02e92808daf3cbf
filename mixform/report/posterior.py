"""A posterior as it is printed: parameters with credible limits, R-hat and ESS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.estimate.bayes.posterior import Posterior
from mixform.estimate.bayes.propriety import infinite_moments
from mixform.estimate.bayes.resolved import uncentered
from mixform.inference.means.linear_estimates import with_level
from mixform.inference.means.mean_contrasts import read_columns
from mixform.inference.posterior.linear import PosteriorEstimates, contrast
from mixform.report.layout import Section, Summary, column_grid
from mixform.report.means import MeansTable, means_table
from mixform.report.numbers import format_column, format_fixed
from mixform.report.summary import (
    design_lines,
    design_notes,
    relation_notes,
    sizes_line,
)

#: Columns of the printed tables.
HEADERS = ["", "Estimate", "Est.Error", "Lower", "Upper", "R-hat", "Bulk ESS"]
HEADERS.append("Tail ESS")


def summarize_posterior(
    posterior: Posterior,
    parameters: pd.DataFrame,
    coefficients: pd.DataFrame,
    convergence: pd.DataFrame,
    *,
    level: float,
) -> Summary:
    """Lay the posterior out.

    Parameters
    ----------
    parameters, coefficients : ``estimate, se, lower, upper`` by name; aliased
        coefficients NaN
    convergence : ``r_hat, ess_bulk, ess_tail`` by name, first the coefficients
    level : of the limits
    """
    fit = posterior.fit
    kind = "Linear mixed model" if fit.design.blocks else "Linear model"
    chains = "1 chain" if posterior.n_chains == 1 else f"{posterior.n_chains} chains"
    lines = [
        f"{kind} by Bayes. {chains} of {posterior.n_draws} draws",
        *design_lines(fit),
        "",
    ]
    sections: list[Section] = ["\n".join(lines), _priors(posterior), ""]
    n = len(convergence) - len(parameters)
    known = convergence.iloc[:n].reindex(coefficients.index)
    random = [str(name) for name in parameters.index]
    title = "Standard deviations and correlations:"
    if random == ["sigma"]:
        title = "Residual standard deviation:"
    sections += [title, _table(parameters, convergence.iloc[n:]), sizes_line(fit), ""]
    if len(coefficients):
        sections += ["Fixed effects:", _table(coefficients, known)]
    else:
        sections.append("No fixed effects.")
    sections.append(
        f"Est.Error: posterior standard deviation; limits: {100 * level:g} % credible"
    )
    notes = posterior_notes(posterior)
    if notes:
        sections += ["", "\n".join(f"Note: {note}" for note in notes)]
    return Summary(tuple(sections))


def _priors(posterior: Posterior) -> Section:
    names, texts = zip(*posterior.priors.lines, strict=True)
    return column_grid(["Priors:", ""], [names, texts], n_left=2)


def _table(estimates: pd.DataFrame, convergence: pd.DataFrame) -> Section:
    """Lay estimates out, correlations with three decimals."""
    shares = np.array([str(name).startswith("cor(") for name in estimates.index], bool)
    others = estimates[~shares]
    columns = [[str(name) for name in estimates.index]]
    for name in ("estimate", "se", "lower", "upper"):
        cells = format_column(others[name].tolist(), like=others["se"].tolist())
        column = np.array(format_fixed(estimates[name].tolist(), 3), dtype=object)
        column[~shares] = cells
        columns.append(column.tolist())
    columns.append(format_fixed(convergence["r_hat"].tolist(), 3))
    columns += [
        format_fixed(convergence[name].tolist(), 0) for name in ("ess_bulk", "ess_tail")
    ]
    return column_grid(HEADERS, columns)


def posterior_notes(posterior: Posterior) -> list[str]:
    """Return what a reader must know besides the numbers."""
    notes = [*design_notes(posterior.fit), *relation_notes(posterior.fit)]
    if len(posterior.beta) < len(posterior.sigma):
        notes.append(
            f"fixed and random effects were drawn for {len(posterior.beta)} of the "
            f"{len(posterior.sigma)} draws."
        )
    notes += [
        f"{name} of {term} is {ratio:.0f} standard deviations from zero. Priors of "
        f"intercepts, which are at zero, shrink the variance of slopes: center {name}."
        for term, name, ratio in uncentered(posterior.fit.design, posterior.priors)
    ]
    notes += [
        f"the posterior {moment} of {name} is infinite: the prior is flat, and the "
        f"data have {rank} contrasts that bear on it. Read the limits, or give "
        "half_t()."
        for name, moment, rank in infinite_moments(
            posterior.fit.design, posterior.priors
        )
    ]
    return [*notes, *posterior.warnings]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PosteriorMeans:
    """The posterior of means, slopes or contrasts, from which others are made.

    Attributes
    ----------
    estimates : the record behind them

    Printing it shows the table with credible limits, and for contrasts the probability
    of direction ``pd``.
    """

    estimates: PosteriorEstimates

    @property
    def table(self) -> MeansTable:
        """Posterior mean and SD with limits; of contrasts also ``pd``."""
        return self._frame(direction=self.estimates.estimates.kind != "mean")

    @property
    def draws(self) -> pd.DataFrame:
        """The draws (E, r), on the scale of the table; columns by label."""
        labels = self.estimates.estimates.labels
        columns = (
            pd.Index(labels.iloc[:, 0])
            if labels.shape[1] == 1
            else pd.MultiIndex.from_frame(labels)
        )
        if not labels.shape[1]:
            columns = pd.Index(["mean"])
        return pd.DataFrame(self.estimates.draws(), columns=columns)

    @property
    def L(self) -> Matrix:
        """Coefficients over the columns of X, (r, c)."""
        return self.estimates.estimates.L.copy()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        return tuple(self.table.attrs["notes"])

    def conf_int(
        self, level: float | None = None, method: str | None = None
    ) -> MeansTable:
        """Return credible limits ``lower, upper``.

        Parameters
        ----------
        level : in (0, 1)
        method : "eti", equal tails, or "hdi", the shortest interval
        """
        return self._frame(direction=False, level=level, method=method)

    def test(self, null: float = 0.0) -> MeansTable:
        """Return limits and ``pd``, the probability of being on one side of null.

        Parameters
        ----------
        null : on the scale of the model
        """
        return self._frame(direction=True, null=null)

    def to_frame(self) -> pd.DataFrame:
        """Return everything as a plain frame."""
        return pd.DataFrame(self._frame(direction=True))

    def pairs(
        self, *, by: str | Sequence[str] | None = None, reverse: bool = False
    ) -> PosteriorMeans:
        """Return all differences of pairs.

        Parameters
        ----------
        by : variables that make groups, instead of those of the means; [] for none
        reverse : later minus earlier levels
        """
        return self.contrast("revpairwise" if reverse else "pairwise", by=by)

    def contrast(
        self,
        method: object = "eff",
        *,
        by: str | Sequence[str] | None = None,
        ref: object = None,
        level: float | None = None,
    ) -> PosteriorMeans:
        """Return contrasts.

        Parameters
        ----------
        method : as of `Means.contrast`: "pairwise", "trt.vs.ctrl", "consec", "poly",
            "eff", ..., or coefficients
        by : variables that make groups, instead of those of the means; [] for none
        ref : the control, the first level if None
        level : of credible limits
        """
        columns = read_columns(by)
        found = contrast(self.estimates, method, by=columns, ref=ref, level=level)
        return PosteriorMeans(found)

    def with_level(self, level: float) -> PosteriorMeans:
        """Return the same with limits of another level."""
        e = self.estimates
        return PosteriorMeans(
            PosteriorEstimates(
                estimates=with_level(e.estimates, level), beta=e.beta, method=e.method
            )
        )

    def summary(self) -> Summary:
        """Return the printed table, with text, HTML and LaTeX forms."""
        return self.table.summary()

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _frame(
        self,
        *,
        direction: bool,
        null: float = 0.0,
        level: float | None = None,
        method: str | None = None,
    ) -> MeansTable:
        table, notes = self.estimates.frame(
            limits=True, direction=direction, null=null, level=level, method=method
        )
        return means_table(table, notes, self.estimates.estimates.by)
