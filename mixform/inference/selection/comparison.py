"""Compare models of the same data: likelihood ratios and information criteria.

ESTIMATES in, a table out. What differs decides what may be compared: REML criteria
only where the fixed effects span one space, variances by chi-square only where none of
them is on its boundary under the smaller model. For one more coefficient, with its
covariances, -2 log of the ratio is asymptotically half chi-square with q - 1 and half
with q degrees of freedom, q the number of new parameters (Self and Liang 1987, J. Am.
Stat. Assoc. 82, 605; Stram and Lee 1994, Biometrics 50, 1171).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from mixform._typing import Codes, Matrix
from mixform.design import Design, Relation
from mixform.design.reduce import is_within
from mixform.errors import InferenceError
from mixform.estimate import Control, Fit, estimate, resolve_control
from mixform.estimate.known import given_for, require_same_held
from mixform.estimate.refit import refit as refit_model
from mixform.inference.likelihood import aic, bic
from mixform.inference.related import same_relation
from mixform.inference.selection.residual_change import model_text, residual_change
from mixform.inference.selection.same_data import require_same_data
from mixform.progress import Progress

COLUMNS = ["npar", "aic", "bic", "llf", "deviance", "chisq", "num_df", "p_value"]

#: Options of the search, by name or as a whole; None is the default.
Options = Control | Mapping[str, object] | None

#: What the searches of two models may leave of a difference in deviance of zero.
SLACK = 1e-5

#: How the random part of a larger model differs from that of a smaller one: not at
#: all; by covariances; by one coefficient with its covariances; by more; not nested.
Change = Literal["none", "covariance", "one", "several", "other"]

MORE = "differs by more than one coefficient: p_mixture is not known in closed form"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Component:
    """Coefficients that covary: group codes, covariates (n, k), relation of levels."""

    codes: Codes
    design: Matrix
    relation: Relation | None

    @property
    def m(self) -> int:
        return len(np.unique(self.codes))

    @property
    def k(self) -> int:
        return self.design.shape[1]

    def holds(self, other: _Component) -> bool:
        """Whether the other's coefficients are combinations of these."""
        if self.m != other.m or self.k < other.k:
            return False
        if not same_relation(self.relation, other.relation):
            return False
        pairs = self.codes * np.int64(other.codes.max() + 1) + other.codes
        same = len(np.unique(pairs)) == self.m
        return same and is_within(other.design, self.design)


def compare(
    fits: Sequence[Fit],
    names: Sequence[str] | None = None,
    *,
    refit: bool | None = None,
    control: Options = None,
    progress: bool | None = None,
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Compare models by likelihood-ratio tests, each with the next smaller one.

    Parameters
    ----------
    fits : models of the same rows and response
    names : what to call them; None is m1, m2, ...
    refit : whether to refit by ML what was fitted by REML; None does so only if the
        fixed effects differ, or some models were fitted by ML
    control : options of the refits
    progress : show a bar

    Returns
    -------
    table : by name, ordered by npar: ``npar, aic, bic, llf, deviance, chisq, num_df,
        p_value, p_mixture``. deviance is -2 llf of the method compared by. p_value is
        NaN where a model does not hold the one before it; p_mixture takes into account
        that a variance cannot be negative, NaN where that does not matter or more than
        one coefficient is new
    heading : the formulas
    notes : what was refitted, and which p values to doubt

    Raises
    ------
    InferenceError : fewer than two models; they differ in rows, response, weights or
        offset; REML criteria of different fixed effects with ``refit=False``
    """
    if len(fits) < 2:
        raise InferenceError(
            "Comparing takes at least two models.", hint="Write compare(m1, m2)."
        )
    for fit in fits:
        require_same_held(fits[0], fit)
    names = [f"m{i + 1}" for i in range(len(fits))] if names is None else list(names)
    for fit, name in zip(fits[1:], names[1:], strict=True):
        require_same_data(fits[0].design, fit.design, (names[0], name))
    fits, notes = _comparable(fits, names, refit, control, progress)
    order = sorted(range(len(fits)), key=lambda i: fits[i].n_parameters)
    fits, names = [fits[i] for i in order], [names[i] for i in order]
    notes += uncertified(zip(names, fits, strict=True))
    table, doubts = _table(fits, names)
    sources = [model_text(fit.design) for fit in fits]
    models = [f"{n}: {source}" for n, source in zip(names, sources, strict=True)]
    heading = "\n".join([f"Models compared by {fits[0].method}:", *models])
    return table, heading, (*notes, *doubts)


def _comparable(
    fits: Sequence[Fit],
    names: Sequence[str],
    by_request: bool | None,
    control: Options,
    progress: bool | None,
) -> tuple[list[Fit], list[str]]:
    """Return the models by one criterion, and notes on what was refitted."""
    same_X = all(_same_span(fits[0].design, fit.design) for fit in fits[1:])
    if _method(fits, names, by_request, same_X=same_X) == "REML":
        about = "REML criteria: comparable among models with these fixed effects only."
        return list(fits), [about]
    if all(fit.method == "ML" for fit in fits):
        return list(fits), []
    out: list[Fit] = []
    with Progress(progress, len(fits), "refits") as bar:
        for fit in fits:
            out.append(fit if fit.method == "ML" else by_ml(fit, control))
            bar.advance()
    return out, [_refit_note(fits, names, same_X=same_X)]


def by_ml(fit: Fit, control: Options = None) -> Fit:
    """Fit the model by ML, from a start of its own."""
    return refit_model(fit, method="ML", control=control, start=None)


def refitted(fit: Fit, design: Design, method: str, control: Options = None) -> Fit:
    """Fit a design as the model was fitted, from a start of its own.

    Parameters
    ----------
    control : options of the search; None is the default with the model's backend
    """
    asked = Control(backend=fit.convergence.backend) if control is None else control
    options, given = resolve_control(asked), given_for(fit, design)
    return estimate(design, method=method, control=options, given=given)


def uncertified(fits: Iterable[tuple[str, Fit]]) -> list[str]:
    """Return a note for each model whose optimum is not certified."""
    return [
        f"{name}: the fit is {fit.convergence.message}."
        for name, fit in fits
        if not fit.convergence.converged
    ]


def likelihood_ratio(small: float, large: float) -> float:
    """Return the fall of the deviance; zero if it is as small as what searches leave.

    A larger model that fits worse than that keeps its negative number.
    """
    fall = small - large
    return 0.0 if abs(fall) < SLACK else fall


def naive_p(chisq: float, num_df: int) -> float:
    """Return the upper tail of chi-square; NaN without degrees of freedom.

    Examples
    --------
    >>> round(naive_p(-2.0 * np.log(0.05), 2), 12)
    0.05
    """
    return float(chdtrc(num_df, max(chisq, 0.0))) if num_df > 0 else np.nan


def mixture_p(chisq: float, q: int) -> float:
    """Return the upper tail of half chi-square(q - 1) and half chi-square(q).

    Examples
    --------
    >>> mixture_p(1.0, 1) / naive_p(1.0, 1)  # chi-square(0) is zero
    0.5
    >>> mixture_p(0.0, 2)
    1.0
    """
    if chisq <= 0.0:
        return 1.0
    below = float(chdtrc(q - 1, chisq)) if q > 1 else 0.0
    return 0.5 * (below + float(chdtrc(q, chisq)))


def random_change(small: Design, large: Design) -> Change:
    """Return how the random part of the larger model differs."""
    left = _components(large)
    unmatched: list[_Component] = []
    for inner in _components(small):
        same = [i for i, c in enumerate(left) if c.k == inner.k and c.holds(inner)]
        if same:
            left.pop(same[0])
        else:
            unmatched.append(inner)
    if not left:
        return "other" if unmatched else "none"
    # What a larger component has gained; one that has gained none gained covariances.
    gains: list[int] = []
    for outer in left:
        inside = [inner for inner in unmatched if outer.holds(inner)]
        unmatched = [c for c in unmatched if not any(c is inner for inner in inside)]
        joined = (
            np.hstack([c.design for c in inside]) if inside else outer.design[:, :0]
        )
        if joined.shape[1] > outer.k:
            return "other"
        gains.append(outer.k - joined.shape[1] if len(inside) < 2 else 0)
        if len(inside) > 1 and joined.shape[1] < outer.k:
            gains[-1] = 2  # variances and covariances at once: no simple mixture
    if unmatched:
        return "other"
    total = sum(gains)
    if total == 0:
        return "covariance"
    return "one" if total == 1 and len(gains) == 1 else "several"


def _components(design: Design) -> list[_Component]:
    """Return the random terms; independent coefficients one by one."""
    out: list[_Component] = []
    for block in design.blocks:
        if block.term.structure == "diag":
            parts = [block.design[:, [c]] for c in range(block.k)]
        else:
            parts = [block.design]
        r = block.relation
        out += [_Component(codes=block.codes, design=d, relation=r) for d in parts]
    return out


def _table(fits: Sequence[Fit], names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of models in order, and which of its p values to doubt."""
    deviances = [fit.criterion - _coding_constant(fit, fits[0]) for fit in fits]
    rows: list[list[float]] = []
    mixtures = [np.nan]
    notes: list[str] = []
    for i, (fit, deviance) in enumerate(zip(fits, deviances, strict=True)):
        shift = deviance - fit.criterion
        row = [fit.n_parameters, aic(fit) + shift, bic(fit) + shift]
        row += [-0.5 * deviance, deviance]
        if i == 0:
            rows.append([*row, np.nan, np.nan, np.nan])
            continue
        num_df = fit.n_parameters - fits[i - 1].n_parameters
        chisq = likelihood_ratio(deviances[i - 1], deviance)
        p_value, mixture, doubt = _judge(fits[i - 1], fit, chisq, num_df)
        rows.append([*row, chisq, num_df, p_value])
        mixtures.append(mixture)
        if doubt:
            notes.append(f"{names[i]} {doubt}.".replace("{}", names[i - 1]))
    table = pd.DataFrame(rows, index=pd.Index(names), columns=COLUMNS)
    table = table.astype({"npar": int}).assign(p_mixture=mixtures)
    return table, notes


def _judge(
    small: Fit, large: Fit, chisq: float, num_df: int
) -> tuple[float, float, str | None]:
    """Return the naive p value, the mixture's, and what is wrong with the naive one."""
    if num_df == 0:
        return np.nan, np.nan, "has as many parameters as {}: there is no test"
    if not _spans(large.design, small.design):
        return np.nan, np.nan, "does not hold the fixed effects of {}: there is no test"
    p = naive_p(chisq, num_df)
    change = random_change(small.design, large.design)
    errors = residual_change(small.design, large.design)
    if errors == "other":
        doubt = "does not hold the residual structure of {}: p_value is of use"
        return p, np.nan, f"{doubt} only if its covariances hold those of {{}}"
    if change == "other":
        doubt = "does not hold the random terms of {} one for one: p_value is of use"
        return p, np.nan, f"{doubt} only if its covariances hold those of {{}}"
    doubt = "has a variance that {} sets to zero: p_value is conservative"
    if change == "one" and errors == "same":
        return p, mixture_p(chisq, num_df), f"{doubt}, see p_mixture"
    if change in {"one", "several"}:
        return p, np.nan, f"{doubt}, and it {MORE}"
    if errors == "edge":
        doubt = "has a residual parameter that is at the edge of its range in {}"
        return p, np.nan, f"{doubt}: p_value is conservative"
    return p, np.nan, None


def _coding_constant(fit: Fit, first: Fit) -> float:
    """Return by how much log|X'X| of two codings of one X differs (REML only).

    The REML criterion has log|X'V^-1X|, which depends on how X is written.
    """
    if fit.method == "ML":
        return 0.0
    logs = (np.log(np.abs(np.diag(f.design.fixed.R))).sum() for f in (fit, first))
    return 2.0 * float(next(logs) - next(logs))


def _method(
    fits: Sequence[Fit], names: Sequence[str], refit: bool | None, *, same_X: bool
) -> str:
    """Return the method by which the models are to be compared."""
    methods = {fit.method for fit in fits}
    if refit or methods == {"ML"}:
        return "ML"
    alike = same_X and methods == {"REML"}
    if refit is None:
        return "REML" if alike else "ML"
    if not alike:
        raise InferenceError(
            "REML and ML criteria are not comparable: "
            + ", ".join(f"{n} by {f.method}" for n, f in zip(names, fits, strict=True))
            + "."
            if len(methods) > 1
            else "REML criteria of models with different fixed effects are not "
            "comparable.",
            hint="Leave refit=False out: the models are then refitted by ML.",
        )
    return "REML"


def _refit_note(fits: Sequence[Fit], names: Sequence[str], *, same_X: bool) -> str:
    changed = [n for n, f in zip(names, fits, strict=True) if f.method == "REML"]
    reason = ""
    if not same_X:
        reason = ": the fixed effects differ, and REML criteria are then not comparable"
    elif len(changed) < len(fits):
        reason = ": the others were"
    return f"{', '.join(changed)} refitted by ML{reason}."


def _same_span(one: Design, two: Design) -> bool:
    return len(one.fixed.kept) == len(two.fixed.kept) and _spans(one, two)


def _spans(large: Design, small: Design) -> bool:
    """Whether the fixed effects of the small model are among the large one's."""
    if large.fixed is small.fixed:
        return True
    Q, inner = large.fixed.Q, small.fixed.Q
    rest = inner - Q @ (Q.T @ inner)
    return bool(np.all(np.linalg.norm(rest, axis=0) < 1e-6))
