"""Time Bayes, least squares by subject and analysis of variance.

    python tests/benchmarks/course.py [--peers PYTHON]

Bayes: sleepstudy ``(Days | Subject)``, 4 chains of 1000 draws after 1000, each program
with its own default priors and up to 2 cores; seconds of the first and the second fit
of a process, the least effective sample size of standard deviations and sigma (rstanarm
reports that of variances and the covariance too), and how many of these come in a
second of the second fit. bambi's model has independent intercepts and slopes. PYTHON is
the interpreter of an environment with bambi and nutpie; Rscript needs rstanarm, nlme.

Least squares: a regression for each of 5000 subjects of 5 rows, nlme's lmList beside.

Analysis of variance: crossed and nested terms; no other program is timed.

What is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import mixform as mf

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "mixform" / "datasets" / "sleepstudy.csv"

MIXFORM = """
import time
import arviz
import mixform as mf
data = mf.datasets.load("sleepstudy")
for seed in (1, 2):
    start = time.perf_counter()
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data, method="Bayes",
               control={"seed": seed}, progress=False)
    seconds = time.perf_counter() - start
    names = [n for n in m.posterior.posterior.data_vars if n.startswith(("sd", "cor"))]
    ess = arviz.ess(m.posterior, var_names=[*names, "sigma"])
    print(seconds, min(float(one.min()) for one in ess.data_vars.values()))
"""

BAMBI = """
import sys, time
import arviz, bambi, pandas as pd
data = pd.read_csv(sys.argv[1], dtype={"Subject": str})
for seed in (1, 2):
    start = time.perf_counter()
    m = bambi.Model("Reaction ~ Days + (Days | Subject)", data)
    found = m.fit(draws=1000, tune=1000, chains=4, cores=2, seed=seed,
                  inference_method="nutpie", progress_bar=False)
    seconds = time.perf_counter() - start
    names = ["sigma", "1|Subject_sigma", "Days|Subject_sigma"]
    ess = arviz.ess(found, var_names=names)
    print(seconds, min(float(ess[name]) for name in names))
"""

RSTANARM = """
suppressMessages(library(rstanarm))
d <- read.csv(commandArgs(TRUE)[1]); d$Subject <- factor(d$Subject)
for (seed in 1:2) {
  s <- system.time(m <- stan_lmer(Reaction ~ Days + (Days | Subject), d, chains = 4,
    iter = 2000, cores = 2, refresh = 0, seed = seed))[3]
  x <- summary(m)[, "n_eff"]
  cat(s, min(x[grepl("^sigma|^Sigma", names(x))]), "\\n")
}
"""

LMLIST = """
suppressMessages(library(nlme))
d <- read.csv(commandArgs(TRUE)[1])
cat(system.time(lmList(y ~ t | id, d))[3])
"""


def lines_of(command: list[str]) -> list[str]:
    """Return the lines a program prints, none where it cannot be run."""
    if shutil.which(command[0]) is None:
        return []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def r_lines(program: str, path: Path) -> list[str]:
    """Return the lines an R program prints, its argument a path."""
    with tempfile.NamedTemporaryFile("w", suffix=".R") as file:
        file.write(program)
        file.flush()
        return lines_of(["Rscript", file.name, str(path)])


def seconds(call: Callable[[], object]) -> float:
    """Return the time of the second call."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bayes(peers: str | None) -> None:
    """Print times and effective sample sizes."""
    found = {"mixform": lines_of([sys.executable, "-W", "ignore", "-c", MIXFORM])}
    found["rstanarm"] = r_lines(RSTANARM, DATA)
    if peers is not None:
        found["bambi"] = lines_of([peers, "-W", "ignore", "-c", BAMBI, str(DATA)])
    print(f"{'Bayes':12}{'first, s':>10}{'second, s':>10}{'ESS':>8}{'ESS/s':>8}")
    for name, lines in found.items():
        if len(lines) < 2:
            print(f"{name:12}{'-':>10}")
            continue
        (first, _), (second, ess) = (map(float, line.split()) for line in lines[-2:])
        print(f"{name:12}{first:10.1f}{second:10.1f}{ess:8.0f}{ess / second:8.0f}")


def by_subject() -> None:
    """Print the times of a regression for each subject."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(np.arange(5000), 5)})
    data["t"] = rng.normal(size=len(data))
    data["y"] = data.t * rng.normal(size=5000)[data.id] + rng.normal(size=len(data))
    own = seconds(lambda: mf.lm_list("y ~ t | id", data))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        lines = r_lines(LMLIST, path)
    other = f"{float(lines[0]):.2f}" if lines else "-"
    print(f"\n5000 regressions: mixform {own:.3f} s, nlme's lmList {other} s")


def anova() -> None:
    """Print the times of analyses of variance."""
    print(f"\n{'ANOVA':44}{'fit, s':>8}{'table, s':>10}")
    for n, levels, nested in (
        (10_000, (1000, 500, 50), False),
        (100_000, (2000, 200), False),
        (100_000, (20_000,), False),
        (20_000, (20, 3000), True),
    ):
        rng = np.random.default_rng(1)
        data = pd.DataFrame(
            {f"g{j}": rng.integers(0, m, n) for j, m in enumerate(levels)}
        )
        y = rng.normal(size=n)
        for j, m in enumerate(levels):
            y += rng.normal(size=m)[data[f"g{j}"]]
        data["y"], data["x"] = y, rng.normal(size=n)
        terms = "(1 | g0/g1)"
        if not nested:
            terms = " + ".join(f"(1 | g{j})" for j in range(len(levels)))
        formula = f"y ~ x + {terms}"
        m = mf.fit(formula, data, method="ANOVA")
        fit = seconds(lambda f=formula, d=data: mf.fit(f, d, method="ANOVA"))
        table = seconds(m.mean_squares)
        named = f"{n} rows, levels {', '.join(map(str, levels))}"
        print(f"{named + (', nested' if nested else ''):44}{fit:8.2f}{table:10.2f}")


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="interpreter of an environment with bambi")
    bayes(parser.parse_args().peers)
    by_subject()
    anova()


if __name__ == "__main__":
    main()
