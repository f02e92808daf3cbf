"""The R program that fits the model of a fit, and the data that it reads.

The program stands alone: a colleague runs ``Rscript model.R`` in the folder of the two
files. It writes ``model.out``, a line for each finding, fields separated by tabs, read
by `mixform.lme4.output`. Names that R and formulaic spell differently are not compared:
each column of X and Z is identified by its sums with cos(i) and sin(i) over the rows i.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import AnyArray
from mixform.design import CONTRASTS, Design, RandomBlock
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.formula import formulaic_formula, readable
from mixform.lme4.spelling import Speller, r_column, r_matrix, r_name, r_string

#: Structures of the coefficients of a random term that lme4 has.
STRUCTURES = ("us", "diag", "iid")

#: Factors with at most so many levels are written with them.
LISTED = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RProgram:
    """A program for R and its data.

    Attributes
    ----------
    program : the text
    data : what it reads, from a CSV file of the same name beside it
    formula : of the model, in R's spelling
    """

    program: str
    data: pd.DataFrame
    formula: str

    def write(self, path: str | Path) -> tuple[Path, Path]:
        """Write the program and, beside it, the data; return both paths.

        Parameters
        ----------
        path : of the program, ``model.R``; its output will be ``model.out``

        Raises
        ------
        InferenceError : a file cannot be written, or does not end in ``.R``
        """
        program = Path(path)
        if program.suffix.lower() != ".r":
            raise InferenceError(
                f"The R program cannot be named '{program}'.",
                hint=f"Name it '{program.with_suffix('.R')}'.",
            )
        table = program.with_suffix(".csv")
        try:
            program.write_text(self.program, encoding="ascii")
            self.data.to_csv(table, index=False, lineterminator="\n")
        except OSError as failure:
            raise InferenceError(
                f"'{program}' cannot be written: {failure.strerror}.",
                hint="Check the folder.",
            ) from failure
        return program, table

    def __str__(self) -> str:
        return self.program


def r_program(fit: Fit) -> RProgram:
    """Return the program that fits the same model to the same rows in R.

    Raises
    ------
    InferenceError : lme4 has no such covariance structure, or R no such transformation
    """
    design = fit.design
    if fit.anova is not None:
        raise InferenceError(
            "lme4 has no analysis of variance.",
            hint='Compare update(method="REML"), which is the same in balanced data '
            "where no estimate is negative.",
        )
    if design.residual is not None:
        raise InferenceError(
            "lme4 has independent residuals of one variance only.",
            hint="Compare a model without residual= and dispersion=.",
        )
    data, types = _data(design)
    speller = Speller(
        factors=frozenset(n for n, kind in types.items() if kind == "character"),
        contrasts={n: _contrast(c) for n, c in design.contrasts.items()},
    )
    random = [_random_terms(j, b, speller) for j, b in enumerate(design.blocks)]
    for terms in random:
        for column, values in terms.columns.items():
            data[column], types[column] = values, "numeric"
    fixed = _sum(_terms(design.fixed.coded), speller)
    formula = " + ".join(
        [
            f"{_response(design, speller)} ~ {fixed}",
            *(text for terms in random for text in terms.texts),
        ]
    )
    options = "".join(
        f", {name} = {r_name(column)}"
        for name, column in (("weights", ".weights"), ("offset", ".offset"))
        if column in data
    )
    lines = [
        *_READ,
        f"names(data) <- c({', '.join(r_string(r_column(name)) for name in data)})",
        *_factors(design, data, types, speller),
        "",
        f"model <- {formula}",
        *(_MIXED if design.blocks else _LINEAR),
    ]
    text = "\n".join(lines) + "\n"
    for key, value in {
        "@TYPES@": ", ".join(f'"{kind}"' for kind in types.values()),
        "@REML@": "TRUE" if fit.method == "REML" else "FALSE",
        "@OPTIONS@": options,
    }.items():
        text = text.replace(key, value)
    table = pd.DataFrame({name: _short(values) for name, values in data.items()})
    return RProgram(program=text, data=table, formula=formula)


def _data(design: Design) -> tuple[dict[str, AnyArray], dict[str, str]]:
    """Return the columns of the rows in the model, and R's class of each."""
    data: dict[str, AnyArray] = {}
    for name, series in design.columns.items():
        is_factor = isinstance(series.dtype, pd.CategoricalDtype)
        data[name] = (
            np.array([str(v) for v in series.cat.categories], dtype=object)[
                series.cat.codes.to_numpy()
            ]
            if is_factor
            else series.to_numpy()
        )
    response = readable(design.formula.response.code)
    if response in data:
        data[response] = design.y  # a boolean response counts as 0 and 1
    for block in design.blocks:
        for name, labels in zip(block.term.group, block.pieces, strict=True):
            data.setdefault(name, labels.to_numpy(dtype=object)[block.codes])
    if design.weights is not None:
        data[".weights"] = design.weights
    if design.offset is not None:
        data[".offset"] = design.offset
    kinds = {
        name: "character" if values.dtype == object else "numeric"
        for name, values in data.items()
    }
    return data, kinds


def _short(values: AnyArray) -> AnyArray:
    """Return whole numbers without a decimal point."""
    if values.dtype == object or np.any(values != np.rint(values)):
        return values
    return values.astype(np.int64) if np.abs(values).max() < 2**53 else values


def _response(design: Design, speller: Speller) -> str:
    (term,) = list(formulaic_formula(f"0 + {design.formula.response.code}"))
    return _product(term, speller)


def _terms(coded: Any) -> list[Any]:
    return list(coded.spec.formula)


def _sum(terms: Iterable[Any], speller: Speller) -> str:
    """Return the terms as R reads them, the intercept said or denied first."""
    texts = [_product(term, speller) for term in terms]
    rest = [text for text in texts if text != "1"]
    return " + ".join(["1" if "1" in texts else "0", *rest])


def _product(term: Any, speller: Speller) -> str:
    return ":".join(
        speller.factor(factor.expr, factor.eval_method.value) for factor in term.factors
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _RandomText:
    """A random term in R, and the columns that it needs besides those of the data."""

    texts: list[str]
    columns: Mapping[str, AnyArray]


def _random_terms(j: int, block: RandomBlock, speller: Speller) -> _RandomText:
    """Return random term j; independent effects as a term for each."""
    group = ":".join(map(r_name, block.term.group))
    if block.relation is not None:
        raise InferenceError(
            f"lme4 has no relationship of levels, of {block.term.source}.",
            hint="Compare a model without relationship=.",
        )
    if block.term.structure not in STRUCTURES:
        raise InferenceError(
            f"lme4 has no structure {block.term.structure!r}, of {block.term.source}.",
            hint="lmer fits unstructured and diagonal covariances only.",
        )
    if block.coded is None:
        return _RandomText(texts=[f"(1 | {group})"], columns={})
    terms = _terms(block.coded)
    if block.term.structure != "diag" or block.k == 1:
        return _RandomText(texts=[f"({_sum(terms, speller)} | {group})"], columns={})
    if len(terms) == block.k:
        texts = [
            f"(1 | {group})" if str(term) == "1" else f"(0 + {text} | {group})"
            for term, text in ((term, _product(term, speller)) for term in terms)
        ]
        return _RandomText(texts=texts, columns={})
    # The effects of the levels of a factor, which lme4's || would let correlate.
    columns = {
        f"random{j + 1}.{name}": block.design[:, c]
        for c, name in enumerate(block.columns)
    }
    return _RandomText(
        texts=[f"(0 + {r_name(name)} | {group})" for name in columns], columns=columns
    )


def _contrast(contrast: object) -> str:
    if isinstance(contrast, np.ndarray):
        return r_matrix(contrast)
    (name,) = [n for n, kind in CONTRASTS.items() if type(contrast) is kind]
    if name == "full":
        raise InferenceError(
            "R has no contrasts that keep a column for each level beside the "
            "intercept.",
            hint='Compare the equivalent model with contrasts "treatment".',
        )
    return f"contr.{name}"


def _factors(
    design: Design,
    data: Mapping[str, AnyArray],
    types: Mapping[str, str],
    speller: Speller,
) -> list[str]:
    """Return the lines that make factors, with their levels in order."""
    lines: list[str] = []
    for name, kind in types.items():
        if kind != "character":
            continue
        series = design.columns.get(name)
        levels = (
            sorted(set(data[name].tolist()))
            if series is None
            else [str(value) for value in series.cat.categories]
        )
        column = f"data[[{r_string(r_column(name))}]]"
        listed = series is not None or len(levels) <= LISTED
        given = f", levels = c({', '.join(map(r_string, levels))})" if listed else ""
        lines.append(f"{column} <- factor({column}{given})")
        if name in speller.contrasts:
            contrast, text = design.contrasts[name], speller.contrasts[name]
            if isinstance(contrast, np.ndarray):
                lines.append(f"contrasts({column}, {contrast.shape[1]}) <- {text}")
            else:
                lines.append(f"contrasts({column}) <- {text}({len(levels)})")
    return lines


_READ = r"""# The model of a mixform fit in R: run it with `Rscript <this file>`.
# It reads the CSV file of its own name and writes its findings to one ending in .out.
options(contrasts = c("contr.treatment", "contr.poly"))
started <- grep("^--file=", commandArgs(), value = TRUE)
program <- if (length(started)) sub("^--file=", "", started[1]) else "model.R"
stem <- sub("\\.[Rr]$", "", program)
missing <- Filter(function(p) !requireNamespace(p, quietly = TRUE), @PACKAGES@)
if (length(missing)) {
  message("packages missing: ", paste(missing, collapse = ", "))
  quit(status = 3)
}
data <- read.csv(paste0(stem, ".csv"), check.names = FALSE, encoding = "UTF-8",
                 na.strings = character(0), stringsAsFactors = FALSE,
                 colClasses = c(@TYPES@))""".replace(
    "@PACKAGES@", 'c("lme4", "lmerTest")'
).splitlines()

_REPORT = r"""
out <- file(paste0(stem, ".out"), "w")
say <- function(...) {
  fields <- gsub("[\t\r\n]+", " ", enc2utf8(as.character(c(...))))
  writeLines(paste(fields, collapse = "\t"), out, useBytes = TRUE)
}
number <- function(x) formatC(x, digits = 17, width = 1, format = "g")
marks <- function(x) {
  rows <- seq_along(x)
  number(c(sum(x * cos(rows)), sum(x * sin(rows))))
}
heard <- character(0)
listen <- function(expression) withCallingHandlers(expression,
  warning = function(w) {
    heard <<- c(heard, paste("warning:", conditionMessage(w)))
    invokeRestart("muffleWarning")
  },
  message = function(m) {
    heard <<- c(heard, conditionMessage(m))
    invokeRestart("muffleMessage")
  })
fastest <- function(expression) {  # of three, if it is a short one
  program <- substitute(expression)
  taken <- numeric(0)
  while (length(taken) < 3 && (!length(taken) || taken[1] < 1))
    taken <- c(taken, system.time(eval(program, globalenv()))[["elapsed"]])
  min(taken)
}
say("mixform-lme4", 1)
say("version", "R", paste(R.version$major, R.version$minor, sep = "."))
for (p in c("lme4", "lmerTest")) say("version", p, as.character(packageVersion(p)))
say("formula", paste(deparse(model), collapse = " "))"""

_MIXED = (
    _REPORT
    + r"""
seconds <- fastest(fitted <- listen(lme4::lmer(model, data, REML = @REML@@OPTIONS@)))
test_seconds <- system.time({
  tested <- listen(lmerTest::as_lmerModLmerTest(fitted))
  fixed <- coef(summary(tested))
})[["elapsed"]]
print(summary(tested), correlation = FALSE)

say("method", "@REML@")
say("response", nobs(fitted), marks(lme4::getME(fitted, "y")))
say("criterion", number(-2 * as.numeric(logLik(fitted))))
say("sigma", number(sigma(fitted)))
say("seconds", number(seconds), number(test_seconds))
X <- lme4::getME(fitted, "X")
for (i in seq_len(ncol(X)))
  say("fixed", colnames(X)[i], marks(X[, i]),
      number(fixed[i, c("Estimate", "Std. Error", "df", "Pr(>|t|)")]))
Zt <- lme4::getME(fitted, "Ztlist")
covariances <- lme4::VarCorr(fitted)
terms <- lme4::getME(fitted, "cnms")
place <- 0
for (j in seq_along(terms)) {
  sd <- attr(covariances[[j]], "stddev")
  cor <- attr(covariances[[j]], "correlation")
  for (i in seq_along(sd)) {
    column <- as.numeric(Matrix::colSums(Zt[[place + i]]))
    say("random", j, i, names(terms)[j], terms[[j]][i], marks(column), number(sd[i]))
    for (k in seq_len(i - 1)) say("correlation", j, k, i, number(cor[i, k]))
  }
  place <- place + length(sd)
}
if (lme4::isSingular(fitted)) say("singular")
verdict <- unlist(fitted@optinfo$conv$lme4$messages)
heard <- c(heard, setdiff(verdict, sub("^warning: ", "", heard)))
for (text in unique(trimws(heard))) say("message", text)
say("end")
close(out)"""
).splitlines()

_LINEAR = (
    _REPORT
    + r"""
seconds <- fastest(fitted <- listen(lm(model, data@OPTIONS@)))
print(summary(fitted))

say("method", "@REML@")
y <- model.response(model.frame(fitted))
say("response", nobs(fitted), marks(y))
say("criterion", number(-2 * as.numeric(logLik(fitted, REML = @REML@))))
# lm has the unbiased variance only: under ML it is that of the likelihood, without df.
shrink <- if (@REML@) 1 else sqrt(df.residual(fitted) / nobs(fitted))
say("sigma", number(sigma(fitted) * shrink))
say("seconds", number(seconds), number(0))
X <- model.matrix(fitted)
fixed <- coef(summary(fitted))
for (i in seq_along(rownames(fixed))) {
  name <- rownames(fixed)[i]
  test <- if (@REML@) c(df.residual(fitted), fixed[i, 4]) else c(NaN, NaN)
  say("fixed", name, marks(X[, name]),
      number(c(fixed[i, 1], fixed[i, 2] * shrink, test)))
}
for (text in unique(trimws(heard))) say("message", text)
say("end")
close(out)"""
).splitlines()
