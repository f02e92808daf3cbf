"""Backward elimination: random terms first, then fixed ones.

As lmerTest's ``step`` (Kuznetsova, Brockhoff and Christensen 2017, J. Stat. Softw.
82(13)): at each step the term with the largest p value goes, if that is above alpha;
random terms by `ranova`, fixed ones by the F tests of `drop1`. The p values of the
model that is left do not know that it was selected.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform.design import Design
from mixform.design.reduce import droppable_terms, without_fixed_term
from mixform.errors import FormulaError, InferenceError, suggest
from mixform.estimate import Fit
from mixform.formula import readable
from mixform.formula.summands import Key, random_key, term_key
from mixform.formula.update import meanings
from mixform.inference import anova
from mixform.inference.approximation import approximate
from mixform.inference.selection import ranova
from mixform.inference.selection.comparison import Options, refitted, uncertified
from mixform.inference.selection.drop1 import f_table
from mixform.inference.selection.ranova import random_table, reductions
from mixform.progress import Progress

P_VALUES = ("naive", "mixture")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Elimination:
    """The path of a backward elimination.

    Attributes
    ----------
    random, fixed : what was tested, in the columns of `ranova` and `drop1` after
        ``eliminated``: the step in which a term went, 0 for those that stayed. A term
        that went has the test that sent it away, one that stayed its last test
    fit : the model at the end
    notes : what a reader must know
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    fit: Fit
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rules:
    """What may go, and when.

    Attributes
    ----------
    alpha_random, alpha_fixed : p value above which a term goes; 1 keeps all
    ddf : method for the denominator df of F
    p : "naive" or "mixture", for random terms
    keep : what the terms that stay mean
    control : options of the refits
    """

    alpha_random: float
    alpha_fixed: float
    ddf: str
    p: str
    keep: frozenset[Key]
    control: Options


def step(
    fit: Fit,
    *,
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    keep: Sequence[str] = (),
    ddf: str = "satterthwaite",
    p: str = "naive",
    control: Options = None,
    progress: bool | None = None,
) -> Elimination:
    """Eliminate terms backwards.

    Parameters
    ----------
    alpha_random, alpha_fixed : a term goes if its p value is above
    reduce_random, reduce_fixed : whether random, fixed terms may go
    keep : terms that stay: fixed ones by name, random ones as in the formula
    ddf : method for the denominator df of F
    p : which p value of `ranova` decides: "naive", as in lmerTest, or "mixture" (naive
        where there is none), which eliminates less
    control : options of the refits
    progress : show a bar

    Raises
    ------
    InferenceError : alpha outside [0, 1]; unknown ddf or p; ``keep`` names a term that
        the model does not have
    """
    for name, alpha in (("alpha_random", alpha_random), ("alpha_fixed", alpha_fixed)):
        if not 0.0 <= alpha <= 1.0:
            raise InferenceError(
                f"{name} is {alpha}, not between 0 and 1.",
                hint="Terms with a p value above it are eliminated.",
            )
    if p not in P_VALUES:
        raise InferenceError(f"Unknown p {p!r}.", hint=suggest(p, P_VALUES, "Choices"))
    rules = Rules(
        alpha_random=alpha_random if reduce_random else 1.0,
        alpha_fixed=alpha_fixed if reduce_fixed else 1.0,
        ddf=ddf,
        p=p,
        keep=_kept([keep] if isinstance(keep, str) else keep, fit.design),
        control=control,
    )
    approximate(fit, ddf)  # so that an unknown name is an error before the work
    with Progress(progress, None, "steps") as bar:
        random, smaller = _eliminate_random(fit, rules, bar)
        fixed, last = _eliminate_fixed(smaller, rules, bar)
    notes = uncertified([("The last model", last)])
    if reduce_random and p == "naive":
        notes.append(
            "random terms are judged by p_value, which is conservative at the boundary."
        )
    return Elimination(random=random, fixed=fixed, fit=last, notes=tuple(notes))


def _eliminate_random(
    fit: Fit, rules: Rules, bar: Progress
) -> tuple[pd.DataFrame, Fit]:
    rows: list[pd.DataFrame] = []
    while True:
        if not fit.design.blocks:
            table, fits = pd.DataFrame(columns=ranova.COLUMNS), {}
            break
        table, fits = random_table(fit, control=rules.control, progress=False)
        bar.advance()
        if not rows:
            rows.append(table.iloc[:1].assign(eliminated=0))
        table = table.iloc[1:]
        p_values = table["p_value"]
        if rules.p == "mixture":
            p_values = table["p_mixture"].fillna(p_values)
        goes = _worst(p_values, _kept_rows(fit, rules.keep), rules.alpha_random)
        if goes is None:
            break
        rows.append(table.loc[[goes]].assign(eliminated=len(rows)))
        fit = fits[goes]
    return _path([*rows, table.assign(eliminated=0)], ranova.COLUMNS), fit


def _eliminate_fixed(fit: Fit, rules: Rules, bar: Progress) -> tuple[pd.DataFrame, Fit]:
    rows: list[pd.DataFrame] = []
    while True:
        terms = droppable_terms(fit.design)
        if not terms:
            table = pd.DataFrame(columns=anova.COLUMNS)
            break
        table, _ = f_table(fit, terms, approximate(fit, rules.ddf))
        bar.advance()
        own = _fixed_keys(fit.design)
        kept = {name for name in terms if own[name] in rules.keep}
        goes = _worst(table["p_value"], kept, rules.alpha_fixed)
        if goes is None:
            break
        rows.append(table.loc[[goes]].assign(eliminated=len(rows) + 1))
        design = without_fixed_term(fit.design, goes)
        fit = refitted(fit, design, fit.method, rules.control)
    return _path([*rows, table.assign(eliminated=0)], anova.COLUMNS), fit


def _worst(p_values: pd.Series, keep: Set[str], alpha: float) -> str | None:
    """Return the term with the largest p value above alpha, if there is one."""
    free = p_values[[name not in keep for name in p_values.index]].dropna()
    if len(free) == 0 or not float(free.max()) > alpha:
        return None
    return str(free.index[int(np.argmax(free.to_numpy()))])


def _path(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=["eliminated", *columns])
    return pd.concat(filled)[["eliminated", *columns]]


def _fixed_keys(design: Design) -> dict[str, Key]:
    """Return the fixed terms: name -> meaning."""
    terms = design.fixed.coded.spec.formula
    return {readable(str(term)): term_key(term) for term in terms}


def _kept_rows(fit: Fit, keep: Set[Key]) -> set[str]:
    """Return the rows of the random table that are about terms that stay."""
    keys = [random_key(block.term) for block in fit.design.blocks]
    return {
        step.label
        for step in reductions(fit.design, reduce_terms=True)
        if keys[step.block] in keep
    }


def _kept(keep: Sequence[str], design: Design) -> frozenset[Key]:
    """Return what the terms in ``keep`` mean.

    Raises
    ------
    InferenceError : the model does not have one of them
    """
    fixed = _fixed_keys(design)
    random = {block.term.source: random_key(block.term) for block in design.blocks}
    known = {*fixed.values(), *random.values()}
    out: set[Key] = set()
    for name in keep:
        if name in fixed:
            out.add(fixed[name])
            continue
        try:
            keys = meanings(name)
        except FormulaError:
            keys = (frozenset({name}),)
        if not set(keys) <= known:
            terms = [n for n in (*fixed, *random) if n != "1"]
            raise InferenceError(
                f"keep names {name!r}, which is no term of the model.",
                hint=suggest(name, terms, "Terms"),
            )
        out.update(keys)
    return frozenset(out)
