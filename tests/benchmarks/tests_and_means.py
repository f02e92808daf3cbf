"""Time tests of fixed effects against lmerTest, pbkrtest and emmeans, in one run.

    python tests/benchmarks/tests_and_means.py [--runs N] [--large]

- Kenward-Roger: the type III table of a factorial on 648 rows (ham), the fit excluded;
- marginal means of it with Tukey's pairs, Kenward-Roger df;
- with --large, Satterthwaite on InstEval's 73 421 rows: fit, then t tests and F table.

Rscript needs lme4, lmerTest, pbkrtest and emmeans. BLAS on one thread, medians, largest
differences between the tables. InstEval takes R a minute.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import mixform as mf

DATA = Path(__file__).parents[1] / "references" / "data"
HAM = (
    "liking ~ Product * Information * Gender + (1 | Consumer) + (1 | Product:Consumer)"
)
INSTEVAL = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"

R_HAM = """
suppressPackageStartupMessages({{library(lmerTest); library(emmeans)}})
emm_options(lmerTest.limit = 1e6, pbkrtest.limit = 1e6)
data <- read.csv("{path}")
for (name in c("Consumer", "Product", "Information", "Gender"))
  data[[name]] <- factor(data[[name]])
names(data)[names(data) == "Informed.liking"] <- "liking"
m <- lmer({formula}, data)
times <- replicate({runs}, system.time(
  tested <<- anova(m, ddf = "Kenward-Roger"))[["elapsed"]])
means <- replicate({runs}, system.time(
  compared <<- summary(pairs(emmeans(m, "Product", lmer.df = "kenward-roger")))
  )[["elapsed"]])
cat(median(times), median(means), "\\n")
cat(tested[["F value"]], "\\n")
cat(tested[["DenDF"]], "\\n")
cat(compared$p.value, "\\n")
"""

R_INSTEVAL = """
suppressPackageStartupMessages(library(lmerTest))
data <- read.csv(gzfile("{path}"))
for (name in c("s", "d", "dept", "service")) data[[name]] <- factor(data[[name]])
fit <- system.time(m <- lmerTest::lmer({formula}, data))[["elapsed"]]
tests <- system.time({{summary(m); table <- anova(m)}})[["elapsed"]]
cat(fit, tests, "\\n")
cat(table[["F value"]], table[["DenDF"]], "\\n")
"""


def run_r(program: str) -> list[list[float]] | None:
    if shutil.which("Rscript") is None:
        return None
    done = subprocess.run(["Rscript", "-e", program], capture_output=True, text=True)
    if done.returncode:
        print(f"  (R: {' '.join(done.stderr.split())[-200:]})")
        return None
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def median_time(call: Callable[[], object], runs: int) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def far(ours: object, theirs: object) -> float:
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    return float(np.abs(ours / theirs - 1.0).max())


def kenward_roger(runs: int) -> None:
    data = pd.read_csv(DATA / "ham.csv", dtype=dict.fromkeys(["Consumer"], str))
    data = data.rename(columns={"Informed.liking": "liking"})
    for name in ("Product", "Information", "Gender"):
        data[name] = data[name].astype(str)
    m = mf.fit(HAM, data)

    def afresh() -> mf.Result:
        return mf.Result(m._fit)  # nothing remembered

    table = afresh().anova(ddf="kenward-roger")
    pairs = afresh().emmeans("Product", ddf="kenward-roger").pairs().table
    ours = (
        median_time(lambda: afresh().anova(ddf="kenward-roger"), 5 * runs),
        median_time(
            lambda: afresh().emmeans("Product", ddf="kenward-roger").pairs().table,
            5 * runs,
        ),
    )
    print("ham, 648 rows, 405 random effects, Kenward-Roger (the fit excluded)")
    print(
        f"  mixform  type III table {ours[0] * 1e3:8.1f} ms, pairs {ours[1] * 1e3:.1f}"
    )
    theirs = run_r(R_HAM.format(path=DATA / "ham.csv", formula=HAM, runs=runs))
    if theirs:
        (anova, means), f_values, den_df, p_values = theirs
        print(
            f"  R        type III table {anova * 1e3:8.1f} ms, pairs {means * 1e3:.1f}"
        )
        print(f"  ratios   {anova / ours[0]:.1f}, {means / ours[1]:.1f}")
        print(
            f"  largest relative differences: F {far(table['f_value'], f_values):.1e}, "
            f"df {far(table['den_df'], den_df):.1e}; Tukey p "
            f"{np.abs(pairs['p_value'] - p_values).max():.1e}"
        )


def satterthwaite(runs: int) -> None:
    path = DATA / "InstEval.csv.gz"
    factors = ["s", "d", "dept", "service"]
    data = pd.read_csv(path, dtype=dict.fromkeys(factors, str))
    table = mf.fit(INSTEVAL, data).anova()
    fits, tests = [], []
    for _ in range(runs):
        start = time.perf_counter()
        m = mf.fit(INSTEVAL, data)
        middle = time.perf_counter()
        _ = m.pvalues
        m.anova()
        tests.append(time.perf_counter() - middle)
        fits.append(middle - start)
    fit, test = float(np.median(fits)), float(np.median(tests))
    print("InstEval, 73 421 rows, 3 crossed factors, Satterthwaite t and F tests")
    print(f"  mixform  fit {fit:6.2f} s, tests {test:6.2f} s ({test / fit:.2f} fits)")
    theirs = run_r(R_INSTEVAL.format(path=path, formula=INSTEVAL))
    if theirs:
        (r_fit, r_test), (f_value, den_df) = theirs
        print(f"  R        fit {r_fit:6.2f} s, tests {r_test:6.2f} s")
        # lmerTest differentiates the deviance when it fits, not when it tests.
        print(f"  ratio of both together {(r_fit + r_test) / (fit + test):.1f}")
        print(
            f"  relative differences: F {far(table['f_value'], f_value):.1e}, "
            f"df {far(table['den_df'], den_df):.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    kenward_roger(options.runs)
    if options.large:
        satterthwaite(options.runs)


if __name__ == "__main__":
    main()
