"""The command line: ``mixform FORMULA DATA``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mixform import datasets, lme4
from mixform._version import __version__
from mixform.api import fit
from mixform.call import METHODS
from mixform.errors import MixformError, MixformWarning
from mixform.report import Summary, ranef_summary
from mixform.result import BayesResult, Result

EXAMPLE = 'mixform "Reaction ~ Days + (Days | Subject)" sleepstudy --anova'


#: What may follow --anova; alone it means type 3.
TYPES = ("1", "2", "3", "I", "II", "III")

#: Options that a posterior has nothing for.
NOT_OF_DRAWS = ("anova", "correlation", "lme4", "lme4_program", "lme4_output")


class _Parser(argparse.ArgumentParser):
    """Reports bad arguments in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mixform: error: {message} (see mixform --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="mixform",
        description="Fit a linear mixed model and print it as lmerTest does.",
        epilog=f"Example: {EXAMPLE}. Built-in data sets: "
        f"{', '.join(datasets.names())}.",
    )
    parser.add_argument("--version", action="version", version=f"mixform {__version__}")
    parser.add_argument("formula", help='e.g. "y ~ trt + (1 | id)"')
    parser.add_argument("data", help="a CSV or Parquet file, or a built-in data set")
    _add_method(parser)
    parser.add_argument(
        "--anova",
        choices=TYPES,
        metavar="TYPE",
        help="also print the F tests, of type 1, 2 or 3 (default 3)",
    )
    parser.add_argument(
        "--ranef", action="store_true", help="also print the random effects"
    )
    parser.add_argument("--weights", metavar="W", help="column of precision weights")
    parser.add_argument("--offset", metavar="O", help="column added to X beta")
    parser.add_argument(
        "--residual", metavar="R", help="residual structure, e.g. 'us(visit | id)'"
    )
    parser.add_argument(
        "--dispersion", metavar="D", help="formula of the log residual SD, e.g. '~ sex'"
    )
    parser.add_argument(
        "--subset", metavar="CONDITION", help="rows to use, e.g. 'age > 3'"
    )
    parser.add_argument(
        "--contrasts",
        metavar="FACTOR=NAME",
        action="append",
        default=[],
        help="treatment, sum, helmert, poly or full; may be repeated",
    )
    parser.add_argument(
        "--missing",
        choices=("drop", "raise"),
        default="drop",
        help="what to do with rows that have missing values (default drop)",
    )
    parser.add_argument(
        "--correlation",
        action="store_true",
        help="also print the correlation of the fixed effects",
    )
    _add_lme4(parser)
    parser.add_argument(
        "--format", choices=("text", "html", "latex"), default="text", dest="layout"
    )
    return parser


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        choices=METHODS,
        type=str.upper,
        default="REML",
        help="REML (default), ML, ANOVA (mean squares) or Bayes (draws)",
    )
    parser.add_argument(
        "--ml",
        action="store_const",
        dest="method",
        const="ML",
        help="the same as --method ML",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help="of Bayes, for the same draws again"
    )


def _add_lme4(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lme4",
        action="store_true",
        help="print the same model in lme4 and lmerTest beside it; needs R",
    )
    parser.add_argument(
        "--lme4-program",
        metavar="FILE.R",
        help="write the R program of that comparison, and its data",
    )
    parser.add_argument(
        "--lme4-output",
        metavar="FILE.out",
        help="compare with what that program wrote, where R is not installed",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(_with_type(given))
    try:
        _require_use(options)
        with warnings.catch_warnings():
            # The printout says what these warnings say.
            warnings.simplefilter("ignore", MixformWarning)
            model = fit(
                options.formula,
                _read(options.data),
                method=options.method,
                control=None if options.seed is None else {"seed": options.seed},
                weights=options.weights,
                offset=options.offset,
                subset=options.subset,
                contrasts=_contrasts(options.contrasts),
                missing=options.missing,
                residual=options.residual,
                dispersion=options.dispersion,
            )
        text = _report(model, options)
    except MixformError as failure:
        sys.stderr.write(f"mixform: error: {failure.one_line}\n")
        return 2
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _with_type(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the default type after an --anova that stands alone."""
    out: list[str] = []
    following = [*arguments[1:], ""]
    for argument, after in zip(arguments, following, strict=True):
        alone = argument == "--anova" and after not in TYPES
        out.append("--anova=3" if alone else argument)
    return out


def _read(data: str) -> object:
    """Return the built-in data set of this name, else the path of a file."""
    known = {name.lower() for name in datasets.names()}
    if data.lower() in known and not Path(data).exists():
        return datasets.load(data)
    if not Path(data).exists() and not Path(data).suffix:
        raise MixformError(
            f"There is no file and no built-in data set {data!r}.",
            hint=f"Built-in: {', '.join(datasets.names())}.",
        )
    return data


def _contrasts(pairs: Sequence[str]) -> dict[str, object]:
    chosen: dict[str, object] = {}
    for pair in pairs:
        factor, equals, name = pair.partition("=")
        if not equals:
            raise MixformError(
                f"--contrasts {pair!r} is not FACTOR=NAME.",
                hint="Write e.g. --contrasts trt=sum.",
            )
        chosen[factor] = name
    return chosen


def _report(model: Result | BayesResult, options: argparse.Namespace) -> str:
    if isinstance(model, BayesResult):
        return _report_of_draws(model, options)
    summary = model.summary(correlation=options.correlation)
    parts = [_lay_out(summary, options.layout)]
    if model.method == "ANOVA":
        parts.append(_lay_out(model.mean_squares().summary(), options.layout))
    if options.anova:
        parts.append(_lay_out(model.anova(options.anova).summary(), options.layout))
    if options.ranef:
        parts.append(_lay_out(ranef_summary(model.ranef()), options.layout))
    if options.lme4_program:
        lme4.r_program(model._fit).write(options.lme4_program)
    if options.lme4 or options.lme4_output:
        beside = lme4.compare_lme4(
            model._fit, model._call, model._coefficients, saved=options.lme4_output
        )
        parts.append(_lay_out(beside.summary(), options.layout))
    return "\n\n".join(parts)


def _report_of_draws(model: BayesResult, options: argparse.Namespace) -> str:
    parts = [_lay_out(model.summary(), options.layout)]
    if options.ranef:
        parts.append(_lay_out(ranef_summary(model.ranef()), options.layout))
    return "\n\n".join(parts)


def _require_use(options: argparse.Namespace) -> None:
    """Refuse options that a posterior has nothing for."""
    for name in NOT_OF_DRAWS:
        if options.method == "BAYES" and getattr(options, name):
            raise MixformError(
                f"--{name.replace('_', '-')} has no use with --method Bayes.",
                hint="Leave it out, or use --method REML.",
            )


def _lay_out(summary: Summary, layout: str) -> str:
    if layout == "html":
        return summary.as_html()
    return summary.as_latex() if layout == "latex" else summary.as_text()
