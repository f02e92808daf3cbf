"""The command line: ``mixform FORMULA DATA``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixform import datasets
from mixform.api import fit
from mixform.errors import MixformError, MixformWarning
from mixform.result import Result

EXAMPLE = 'mixform "Reaction ~ Days + (Days | Subject)" sleepstudy --anova'


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="mixform",
        description="Fit a linear mixed model and print it as lmerTest does.",
        epilog=f"Example: {EXAMPLE}. Built-in data sets: "
        f"{', '.join(datasets.names())}.",
    )
    parser.add_argument("formula", help='e.g. "y ~ trt + (1 | id)"')
    parser.add_argument("data", help="a CSV or Parquet file, or a built-in data set")
    parser.add_argument("--ml", action="store_true", help="fit by ML, not REML")
    parser.add_argument(
        "--anova",
        nargs="?",
        const=3,
        type=int,
        choices=(1, 2, 3),
        metavar="TYPE",
        help="also print the F tests, of type 1, 2 or 3 (default 3)",
    )
    parser.add_argument(
        "--ranef", action="store_true", help="also print the random effects"
    )
    parser.add_argument("--weights", metavar="W", help="column of precision weights")
    parser.add_argument("--offset", metavar="O", help="column added to X beta")
    parser.add_argument(
        "--subset", metavar="CONDITION", help="rows to use, e.g. 'age > 3'"
    )
    parser.add_argument(
        "--contrasts",
        metavar="FACTOR=NAME",
        action="append",
        default=[],
        help="treatment, sum, helmert or poly; may be repeated",
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
    parser.add_argument(
        "--format", choices=("text", "html", "latex"), default="text", dest="layout"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for bad input."""
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # The printout says what these warnings say.
            warnings.simplefilter("ignore", MixformWarning)
            model = fit(
                options.formula,
                _read(options.data),
                method="ML" if options.ml else "REML",
                weights=options.weights,
                offset=options.offset,
                subset=options.subset,
                contrasts=_contrasts(options.contrasts),
                missing=options.missing,
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


def _report(model: Result, options: argparse.Namespace) -> str:
    summary = model.summary(correlation=options.correlation)
    layouts = {
        "text": summary.as_text,
        "html": summary.as_html,
        "latex": summary.as_latex,
    }
    parts = [layouts[options.layout]()]
    tables: list[pd.DataFrame] = []
    if options.anova:
        table = model.anova(options.anova)
        if options.layout == "text":
            parts.append(str(table))
        else:
            tables.append(pd.DataFrame(table))
    if options.ranef:
        tables.append(model.ranef())
    for table in tables:
        if options.layout == "html":
            parts.append(table.to_html())
        elif options.layout == "latex":
            parts.append(table.to_latex())
        else:
            parts.append(table.to_string(index=False))
    return "\n\n".join(parts)
