"""A fit and the same model in lme4, estimate by estimate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.call import Call, run
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.variance_components import varcorr
from mixform.lme4.program import RProgram, r_program
from mixform.lme4.run import Marks, RFixed, ROutput, RRandom, read_output, run_r
from mixform.report.layout import Summary
from mixform.report.side_by_side import side_by_side

#: Relative difference up to which two columns are the same.
SAME = 1e-7
#: Difference of the criteria that is worth a word.
WORTH_NOTING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideBySide:
    """A fit beside the same model in lme4 and lmerTest. Printing it shows one page.

    Attributes
    ----------
    table : by coefficient: ``estimate, estimate_lme4, difference`` (in standard
        errors), ``se, se_lme4, df, df_lme4, p_value, p_value_lme4``; NaN where one of
        the two has no such coefficient
    varcorr : ``grp, var1, var2, sdcor, sdcor_lme4, difference``
    facts : criterion and seconds: ``mixform, lme4, difference``
    notes : what a reader must know; R's warnings and messages among them
    output : all that R reported
    program : the R program
    """

    table: pd.DataFrame
    varcorr: pd.DataFrame
    facts: pd.DataFrame
    notes: tuple[str, ...]
    output: ROutput
    program: RProgram

    @property
    def criterion(self) -> pd.Series:
        """REML criterion or deviance: ``mixform, lme4, difference``."""
        return self.facts.iloc[0]

    @property
    def seconds(self) -> pd.Series:
        """Seconds of the fit, tests not counted: ``mixform, lme4, difference``."""
        return self.facts.iloc[1]

    @property
    def largest_difference(self) -> float:
        """Largest difference of a fixed effect, in standard errors."""
        return float(self.table["difference"].abs().max())

    def summary(self) -> Summary:
        """Return the page, with text, HTML and LaTeX forms."""
        versions = ", ".join(f"{n} {v}" for n, v in self.output.versions.items())
        heading = f"mixform beside {versions}\nIn R: {self.program.formula}"
        return side_by_side(heading, self.table, self.varcorr, self.facts, self.notes)

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def compare_lme4(
    fit: Fit,
    call: Call | None,
    coefficients: pd.DataFrame,
    *,
    rscript: str = "Rscript",
    saved: str | Path | None = None,
    timeout: float | None = 600.0,
) -> SideBySide:
    """Fit the same model in R with lme4 and lmerTest, and set the two side by side.

    Parameters
    ----------
    call : what was fitted, to time the fit again; None leaves our seconds out
    coefficients : estimate, se, df, t_value, p_value by name, by Satterthwaite
    rscript : name or path of the Rscript program
    saved : output that the R program wrote earlier, in place of running it
    timeout : seconds after which R is stopped, None for never

    Raises
    ------
    InferenceError : there is no R, lme4 or lmerTest; R failed; the saved output is of
        another model; the model cannot be written for lme4
    """
    program = r_program(fit)
    if saved is None:
        output = run_r(program, rscript=rscript, timeout=timeout)
    else:
        output = read_output(saved)
    _require_same(fit, output)
    table = _fixed_table(fit, coefficients, output)
    components = _components(fit, output)
    return SideBySide(
        table=table,
        varcorr=components,
        facts=_facts(fit, call, output),
        notes=tuple(_notes(fit, table, components, output)),
        output=output,
        program=program,
    )


def _require_same(fit: Fit, output: ROutput) -> None:
    """Refuse output of other rows, another response or the other criterion."""
    if output.n != fit.n or not _same(output.response, fit.design.y):
        raise InferenceError(
            f"The output of R is of other data: {output.n} rows with another response, "
            f"the model has {fit.n}."
            if output.n == fit.n
            else f"The output of R is of {output.n} rows, the model has {fit.n}.",
            hint="Run the program of this model: program_only=True.",
        )
    if output.reml != (fit.method == "REML"):
        raise InferenceError(
            f"The output of R is of the other method; the model is fitted by "
            f"{fit.method}.",
            hint="Run the program of this model: program_only=True.",
        )


def marks_of(column: Vector) -> Marks:
    """Return the sums of a column (n,) with cos(i) and sin(i), i = 1..n."""
    rows = np.arange(1.0, len(column) + 1.0)
    return float(column @ np.cos(rows)), float(column @ np.sin(rows))


def _same(marks: Marks, column: Vector) -> bool:
    size = SAME * float(np.linalg.norm(column))
    return all(
        abs(one - two) <= size for one, two in zip(marks, marks_of(column), strict=True)
    )


def _fixed_table(fit: Fit, coefficients: pd.DataFrame, output: ROutput) -> pd.DataFrame:
    """Pair the coefficients whose columns of X are the same."""
    fixed = fit.design.fixed
    left = list(output.fixed)
    rows: dict[str, list[float]] = {}
    nothing = [np.nan] * 4
    given: Any = coefficients[["estimate", "se", "df", "p_value"]]
    for j, name in enumerate(fixed.names):
        theirs = None
        if j in fixed.kept:
            theirs = next(
                (r for r in left if _same(r.marks, fixed.coded.values[:, j])), None
            )
        if theirs is not None:
            left.remove(theirs)
        ours = given.loc[name].tolist()
        rows[name] = ours + (nothing if theirs is None else _numbers(theirs))
    for theirs in left:
        rows[f"{theirs.name} (in R)"] = nothing + _numbers(theirs)
    table = pd.DataFrame.from_dict(
        rows,
        orient="index",
        columns=[
            *("estimate", "se", "df", "p_value"),
            *("estimate_lme4", "se_lme4", "df_lme4", "p_value_lme4"),
        ],
    )
    gap = table["estimate"] - table["estimate_lme4"]
    table["difference"] = gap / table["se"]
    order = ["estimate", "estimate_lme4", "difference", "se", "se_lme4"]
    return table[[*order, "df", "df_lme4", "p_value", "p_value_lme4"]]


def _numbers(row: RFixed) -> list[float]:
    return [row.estimate, row.se, row.den_df, row.p_value]


def _components(fit: Fit, output: ROutput) -> pd.DataFrame:
    """Pair standard deviations and correlations of the same columns of Z."""
    table = varcorr(fit).drop(columns="vcov")
    found = _coefficient_places(fit, output)
    theirs: list[float] = []
    for block, places in zip(fit.design.blocks, found, strict=True):
        theirs += [np.nan if row is None else row.sd for row in places]
        if block.term.structure == "diag":
            continue
        for c in range(block.k):
            theirs += [
                _correlation(output, places[c], places[r])
                for r in range(c + 1, block.k)
            ]
    table["sdcor_lme4"] = [*theirs, output.sigma]
    table["difference"] = table["sdcor"] - table["sdcor_lme4"]
    return table


def _coefficient_places(fit: Fit, output: ROutput) -> list[list[RRandom | None]]:
    """Return for each coefficient of each block what it is in R."""
    left = list(output.random)
    found: list[list[RRandom | None]] = []
    for block in fit.design.blocks:
        found.append([])
        for c in range(block.k):
            row = next(
                (
                    row
                    for row in left
                    if sorted(row.group.split(":")) == sorted(block.term.group)
                    and _same(row.marks, block.design[:, c])
                ),
                None,
            )
            found[-1].append(row)
            if row is not None:
                left.remove(row)
    return found


def _correlation(output: ROutput, one: RRandom | None, two: RRandom | None) -> float:
    if one is None or two is None or one.term != two.term:
        return np.nan
    low, high = sorted((one.place, two.place))
    return output.correlations.get((one.term, low, high), np.nan)


def _seconds_of(call: Call) -> float:
    """Return the seconds of a fit: of the fastest of three, if it is a short one.

    The R program does the same.
    """
    taken: list[float] = []
    while len(taken) < 3 and (not taken or taken[0] < 1.0):
        started = time.perf_counter()
        run(call, progress=False)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _facts(fit: Fit, call: Call | None, output: ROutput) -> pd.DataFrame:
    name = "REML criterion" if fit.method == "REML" else "Deviance"
    seconds = np.nan
    if call is not None:
        seconds = _seconds_of(call)
    values: Matrix = np.array(
        [[fit.criterion, output.criterion], [seconds, output.seconds]]
    )
    table = pd.DataFrame(values, index=[name, "Seconds"], columns=["mixform", "lme4"])
    table["difference"] = table["mixform"] - table["lme4"]
    return table


def _notes(
    fit: Fit, table: pd.DataFrame, components: pd.DataFrame, output: ROutput
) -> list[str]:
    notes: list[str] = []
    kept = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
    unpaired = int(table.loc[kept, "estimate_lme4"].isna().to_numpy().sum())
    other_coding = unpaired > 0 or len(table) > len(fit.design.fixed.names)
    gap = fit.criterion - output.criterion
    if other_coding:
        notes.append(
            "R codes a term otherwise: those coefficients, and the REML criterion, are "
            "not the same quantities."
        )
    elif gap < -WORTH_NOTING:
        notes.append(
            f"the criterion is {-gap:.3g} lower here: lme4's optimizer stopped short."
        )
    elif gap > WORTH_NOTING:
        notes.append(f"the criterion is {gap:.3g} lower in lme4.")
    if components["sdcor_lme4"].isna().sum() > components["sdcor"].isna().sum():
        notes.append("R has no counterpart of some variance parameters.")
    if output.singular != bool(fit.singular_terms):
        where = "lme4" if output.singular else "mixform"
        notes.append(f"the fit is singular in {where} only.")
    elif output.singular:
        notes.append("the fit is singular in both.")
    if not fit.convergence.converged:
        notes.append(f"mixform: {fit.convergence.message}.")
    notes += [f"R: {message}" for message in output.messages]
    return notes
