"""Test each random term by leaving it out: an ANOVA-like table of likelihood ratios.

As lmerTest's ``ranova`` (Kuznetsova, Brockhoff and Christensen 2017, J. Stat. Softw.
82(13)), with the boundary in the p value beside the naive one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform.design import Design
from mixform.design.reduce import (
    coefficient_terms,
    droppable_coefficients,
    is_within,
    with_coefficients,
    without_block,
)
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.known import require_free
from mixform.inference.likelihood import aic
from mixform.inference.selection.comparison import (
    MORE,
    Options,
    likelihood_ratio,
    mixture_p,
    naive_p,
    random_change,
    refitted,
    uncertified,
)
from mixform.progress import Progress

COLUMNS = ["npar", "llf", "aic", "lrt", "num_df", "p_value", "p_mixture"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """A model with one random term, or one coefficient of it, left out.

    Attributes
    ----------
    label : ``(1 | g)``, or ``x in (x | g)`` if the other coefficients stay
    block : position of the term that loses
    design : what is left
    """

    label: str
    block: int
    design: Design


def ranova(
    fit: Fit,
    *,
    reduce_terms: bool = True,
    control: Options = None,
    progress: bool | None = None,
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Test each random term by a likelihood ratio, by the method of the fit.

    Parameters
    ----------
    reduce_terms : whether a term with several coefficients loses them one by one;
        False leaves whole terms out
    control : options of the refits
    progress : show a bar

    Returns
    -------
    table : row ``<none>``, then what is left out: ``npar, llf, aic, lrt, num_df,
        p_value, p_mixture``. p_value is from chi-square with num_df degrees of freedom,
        as lmerTest has it, and conservative; p_mixture takes into account that a
        variance cannot be negative (NaN if more than one coefficient is left out). It
        supposes that no other variance is zero.
    heading : what the table is
    notes : what a reader must know

    Raises
    ------
    InferenceError : the model has no random term
    """
    table, fits = random_table(
        fit, reduce_terms=reduce_terms, control=control, progress=progress
    )
    heading = (
        f"Single term deletions of random effects, fits by {fit.method}\n"
        f"Model: {fit.design.formula.source}"
    )
    notes = uncertified([("<none>", fit), *fits.items()])
    unknown = [str(n) for n in table.index[1:][table["p_mixture"].isna()[1:]]]
    if unknown:
        notes.append(f"{', '.join(unknown)} {MORE}; p_value is conservative.")
    return table, heading, tuple(notes)


def random_table(
    fit: Fit,
    *,
    reduce_terms: bool = True,
    control: Options = None,
    progress: bool | None = None,
) -> tuple[pd.DataFrame, dict[str, Fit]]:
    """Return the table of `ranova`, and the model behind each of its rows."""
    design = fit.design
    if not design.blocks:
        raise InferenceError(
            "The model has no random term to test.",
            hint="A term such as (1 | id) would be one.",
        )
    require_free(fit, "A test of a variance")
    steps = reductions(design, reduce_terms=reduce_terms)
    rows = [[fit.n_parameters, fit.loglik, aic(fit), np.nan, np.nan, np.nan, np.nan]]
    fits: dict[str, Fit] = {}
    with Progress(progress, len(steps), "refits") as bar:
        for step in steps:
            smaller = refitted(fit, step.design, fit.method, control)
            chisq = likelihood_ratio(smaller.criterion, fit.criterion)
            num_df = fit.n_parameters - smaller.n_parameters
            one = random_change(step.design, design) == "one"
            mixture = mixture_p(chisq, num_df) if one else np.nan
            row = [smaller.n_parameters, smaller.loglik, aic(smaller), chisq, num_df]
            rows.append([*row, naive_p(chisq, num_df), mixture])
            fits[step.label] = smaller
            bar.advance()
    table = pd.DataFrame(rows, index=pd.Index(["<none>", *fits]), columns=COLUMNS)
    return table.astype({"npar": int}), fits


def reductions(design: Design, *, reduce_terms: bool) -> list[Reduction]:
    """Return the smaller models, term by term, as lmerTest chooses them.

    ``(x | g)`` becomes ``(1 | g)``, ``(f*x | g)`` becomes ``(f + x | g)``, ``(0 + f |
    g)`` becomes ``(1 | g)``; an intercept goes with the term, or on its own from
    ``(x || g)``. Other than in lmerTest a term becomes ``(1 | g)`` only if that is a
    smaller model: ``(0 + x | g)`` goes as a whole.
    """
    out: list[Reduction] = []
    for j, block in enumerate(design.blocks):
        whole = block.term.source
        labels = [b.term.source for b in design.blocks]
        if labels.count(whole) > 1:  # the parts of (1 | a/b)
            whole = f"{block.term.group_label} of {whole}"
        left_out = droppable_coefficients(block) if reduce_terms else ()
        found: list[Reduction] = []
        for name in left_out:
            kept = [n for n in coefficient_terms(block) if n != name] or ["1"]
            smaller = with_coefficients(design, j, kept)
            new = smaller.blocks[j]
            if new.k < block.k and is_within(new.design, block.design):
                label = f"{name} in {whole}"
                found.append(Reduction(label=label, block=j, design=smaller))
        if not found:
            found = [Reduction(label=whole, block=j, design=without_block(design, j))]
        out += found
    return out
