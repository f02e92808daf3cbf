"""What the user asked for, kept so that a fit can be changed, saved and repeated.

Goes in: the arguments of `fit`. Comes out: a checked `Call`, the `Fit` that running it
gives, and the `Call` changed as R's ``update`` does.

The table is kept without paying for a second copy of it. A pandas frame is kept as a
shallow copy: columns that the user adds, drops or replaces later are not seen, and from
pandas 3 on (copy-on-write) neither are values written into it; before pandas 3 those
are. Polars and pyarrow tables cannot change. A mapping, whose arrays can, is kept as
a frame of its own. A file is read again, and refused if it has changed since.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.covariance import STRUCTURES
from mixform.design import Design, ResidualFormula, build_design
from mixform.design.model_matrix import variables_of
from mixform.design.reduce import overparameterized
from mixform.errors import (
    ConvergenceWarning,
    DesignError,
    FormulaError,
    RankDeficiencyWarning,
    SingularFitWarning,
    suggest,
)
from mixform.estimate import Control, Fit, estimate, resolve_control
from mixform.estimate.anova import estimate_anova, resolve_sums
from mixform.estimate.bayes.posterior import Posterior
from mixform.estimate.bayes.sample import sample
from mixform.estimate.known import read_variances
from mixform.formula import (
    formulaic_formula,
    parse_dispersion,
    parse_formula,
    parse_residual,
)
from mixform.formula.update import update_formula
from mixform.progress import SearchProgress
from mixform.relationship import resolve_relationship
from mixform.residual import RESIDUALS

METHODS = ("REML", "ML", "ANOVA", "BAYES")
MISSING = ("drop", "raise")

_NO_PRIOR = 'Priors are for method="Bayes".'
_DRAWN = (
    "Leave it out: variances are drawn, from points near those of REML. What is known "
    "of them is a prior."
)
#: Arguments that a method has no use for, with what to do instead.
UNUSED = {
    "REML": {"prior": _NO_PRIOR},
    "ANOVA": {
        "prior": _NO_PRIOR,
        "varcomp": 'Leave it out: mean squares hold no variance. Use method="REML".',
        "start": "Leave it out: nothing is searched for.",
    },
    "BAYES": {"varcomp": _DRAWN, "start": _DRAWN},
}

#: Arguments that may hold one value for each row of the data.
BY_ROW = ("weights", "offset", "subset")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """The arguments of a fit, as given; see `mixform.api.fit`.

    Attributes
    ----------
    formula, data, method, weights, offset, contrasts, subset, missing, relationship,
        varcomp, residual, dispersion, start, control, prior : as given; nothing in them
        is shared with what the user may change later
    file : size and time of change (ns) of the file that ``data`` names, if it does
    """

    formula: str
    data: object
    method: str = "REML"
    weights: object = None
    offset: object = None
    contrasts: Mapping[str, object] | None = None
    subset: object = None
    missing: str = "drop"
    relationship: Mapping[str, object] | None = None
    varcomp: Mapping[str, object] | None = None
    residual: str | None = None
    dispersion: str | None = None
    start: object = None
    control: Control | Mapping[str, object] | None = None
    prior: Mapping[str, object] | None = None
    file: tuple[int, int] | None = None

    def changed(self, formula: str | None = None, **changes: object) -> Call:
        """Return the call with other arguments.

        Parameters
        ----------
        formula : a formula in which ``.`` stands for the old one: ``". + x"``,
            ``". - (1 | g)"``, ``"log(.) ~ ."``
        changes : other arguments of `fit`; those not given stay as they are, except
            ``start``, which belongs to one model, and ``control`` and ``prior``, where
            another method has other ones

        Raises
        ------
        FormulaError : the formula cannot be read or removes what is not there
        DesignError : an unknown argument; new data for an argument with one value for
            each row of the old
        """
        known = [field.name for field in fields(Call) if field.name != "file"]
        for name in changes:
            if name not in known:
                raise DesignError(
                    f"update has no argument {name!r}.",
                    hint=suggest(name, known, "Arguments"),
                )
        if "data" in changes:
            self._require_no_rows(changes)
        new = {"start": None, **changes}
        method = str(changes.get("method", self.method)).upper()
        if method != self.method and {method, self.method} != {"REML", "ML"}:
            new = {"control": None, "prior": None, **new}
        if formula is not None:
            _require_formula(formula)
            new["formula"] = update_formula(self.formula, formula)
            if self.contrasts and "contrasts" not in changes:
                new["contrasts"] = _still_used(self.contrasts, str(new["formula"]))
            parsed = parse_formula(str(new["formula"]), tuple(STRUCTURES))
            groups = {term.group_label for term in parsed.random}
            for argument in ("relationship", "varcomp", "prior"):
                given = getattr(self, argument)
                if isinstance(given, Mapping) and argument not in changes:
                    new[argument] = _of_groups(given, groups)
        old = {name: getattr(self, name) for name in known}
        changed = make_call(**cast("dict[str, Any]", old | new))
        # A file that was not named again must be the one that was read.
        return changed if "data" in changes else replace(changed, file=self.file)

    def _require_no_rows(self, changes: Mapping[str, object]) -> None:
        for name in BY_ROW:
            value = getattr(self, name)
            if name not in changes and value is not None and not _is_text(value):
                raise DesignError(
                    f"{name} was given as one value for each row of the old data.",
                    hint=f"Give {name}= for the new data, or {name}=None.",
                )


def make_call(
    formula: str,
    data: object,
    *,
    method: object = "REML",
    missing: object = "drop",
    **arguments: Any,
) -> Call:
    """Check the arguments of `fit` and keep them.

    Raises
    ------
    FormulaError : the formula is no string
    DesignError : unknown method or choice; an argument that the method does not take
    """
    _require_formula(formula)
    method = method.upper() if isinstance(method, str) else method
    _require_use(str(method), arguments)
    kept, file = _kept_table(data)
    return Call(
        formula=formula,
        data=kept,
        method=_require_choice(method, METHODS, "method"),
        missing=_require_choice(missing, MISSING, "missing"),
        file=file,
        **{name: _kept(value) for name, value in arguments.items()},
    )


def run(call: Call, progress: bool | None = None) -> Fit:
    """Fit the model that a call asks for, not by Bayes; no warnings, see `warn_of`.

    Raises
    ------
    FormulaError : the formula cannot be read or names an unknown column
    DesignError, SolverError : the data do not support the model, or do not fit
    """
    if call.method == "ANOVA":
        options = resolve_sums(call.control)
        return estimate_anova(design_of(call), options)
    design = design_of(call)
    control = resolve_control(call.control)
    given = None if call.varcomp is None else read_variances(design, call.varcomp)
    with SearchProgress(progress) as bar:
        return estimate(
            design,
            method=call.method,
            control=control,
            start=call.start,
            progress=bar,
            given=given,
        )


def draw(call: Call, progress: bool | None = None) -> Posterior:
    """Draw from the posterior that a call asks for; no warnings, see `warn_of`.

    Raises
    ------
    FormulaError : the formula cannot be read or names an unknown column
    DesignError : the data do not support the model, or a prior does not fit it
    """
    design = design_of(call)
    return sample(design, prior=call.prior, control=call.control, progress=progress)


def design_of(call: Call) -> Design:
    """Apply the formula of a call to its data.

    Raises
    ------
    DesignError : as `build_design` and `table_of`
    """
    return build_design(
        parse_formula(call.formula, tuple(STRUCTURES)),
        table_of(call),
        weights=call.weights,
        offset=call.offset,
        contrasts=call.contrasts,
        subset=call.subset,
        missing=call.missing,
        relationship=resolve_relationship(call.relationship),
        errors=ResidualFormula(
            term=None
            if call.residual is None
            else parse_residual(call.residual, tuple(RESIDUALS)),
            dispersion=None
            if call.dispersion is None
            else parse_dispersion(call.dispersion),
        ),
    )


def table_of(call: Call) -> object:
    """Return the data of a call, or the path to them.

    Raises
    ------
    DesignError : the file is not the one that was read for the call
    """
    if call.file is not None and call.file != _stamp(Path(str(call.data))):
        raise DesignError(
            f"The file '{call.data}' has changed since the model was fitted.",
            hint="Give data= to fit the model to what it holds now.",
        )
    return call.data


def warn_of(fit: Fit | Posterior, *, stacklevel: int = 3) -> None:
    """Warn, at the caller of a public function, of what a script must not miss."""
    if isinstance(fit, Posterior):
        _warn_of_aliased(fit.fit, stacklevel + 1)
        if fit.warnings:
            text = " ".join(fit.warnings)
            warnings.warn(
                ConvergenceWarning(text, np.nan, np.nan), stacklevel=stacklevel
            )
        return
    _warn_of_aliased(fit, stacklevel + 1)
    convergence = fit.convergence
    if convergence.converged:
        return
    warnings.warn(
        ConvergenceWarning(
            f"The fit is {convergence.message}.",
            convergence.predicted_decrease,
            convergence.smallest_eigenvalue,
        ),
        stacklevel=stacklevel,
    )
    terms = tuple(fit.design.blocks[j].term.source for j in fit.singular_terms)
    if terms:
        warnings.warn(
            SingularFitWarning(
                f"The covariance of {', '.join(terms)} is singular.", terms, fit.theta
            ),
            stacklevel=stacklevel,
        )


def _warn_of_aliased(fit: Fit, stacklevel: int) -> None:
    names = fit.design.fixed.aliased_names
    if names and not overparameterized(fit.design):
        warnings.warn(
            RankDeficiencyWarning(
                f"Dropped as combinations of other columns: {', '.join(names)}.", names
            ),
            stacklevel=stacklevel,
        )


def _require_formula(formula: object) -> None:
    if not isinstance(formula, str):
        raise FormulaError(
            f"The formula is a {type(formula).__name__}, not a string.",
            hint='Write fit("y ~ x + (1 | id)", data).',
        )


def _require_choice(value: object, choices: tuple[str, ...], argument: str) -> str:
    if value not in choices:
        raise DesignError(
            f"Unknown {argument} {value!r}.",
            hint=suggest(str(value), choices, "Choices"),
        )
    return str(value)


def _require_use(method: str, arguments: Mapping[str, object]) -> None:
    """Refuse arguments that a method has no use for."""
    for name, hint in UNUSED.get(method, UNUSED["REML"]).items():
        if arguments.get(name) is not None:
            raise DesignError(f"{name}= has no use in method={method!r}.", hint=hint)


def _kept_table(data: object) -> tuple[object, tuple[int, int] | None]:
    """Return the table as it is kept, and the stamp of its file."""
    if isinstance(data, str | Path):
        path = Path(data).resolve()
        return (str(path), _stamp(path)) if path.is_file() else (data, None)
    if isinstance(data, pd.DataFrame):
        return data.copy(deep=False), None
    if isinstance(data, Mapping):
        columns = cast("Mapping[str, Any]", data)
        try:
            return pd.DataFrame(dict(columns)), None
        except ValueError:
            return data, None  # not a table: `build_design` says why
    return data, None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file, None if it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _kept(value: object) -> Any:
    """Return an argument that later changes of the user's object do not reach."""
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {name: _kept(entry) for name, entry in items}
    if isinstance(value, np.ndarray | pd.Series | pd.DataFrame):
        return cast("Vector | pd.Series | pd.DataFrame", value).copy()
    if isinstance(value, Sequence) and not _is_text(value):
        return copy(cast("Sequence[object]", value))
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _of_groups(given: Mapping[Any, Any], groups: set[str]) -> dict[Any, Any] | None:
    """Return the entries of groups that a formula has, and of the residual."""
    kept = {*groups, "residual", "Residual"}
    kept |= {name for name in given if str(name).rpartition(".")[0] in groups}
    return {name: value for name, value in given.items() if name in kept} or None


def _still_used(contrasts: Mapping[str, object], formula: str) -> dict[str, object]:
    """Return the contrasts of the variables that a changed formula still has."""
    parsed = parse_formula(formula, tuple(STRUCTURES))
    code = [parsed.fixed.code, *(term.coefficients for term in parsed.random)]
    if any("." in re.sub(r"\w\.|\.\w", "", part) for part in code):
        return dict(contrasts)  # only the data know what '.' stands for
    used = {n for part in code for n in variables_of(formulaic_formula(part))}
    return {name: value for name, value in contrasts.items() if name in used}
