"""Time the parametric bootstrap against lme4::bootMer, in one run.

    python tests/benchmarks/bootstrap.py [--draws N] [--runs N]

Both refit ``Reaction ~ Days + (Days | Subject)`` to draws from it and take the fixed
effects, standard deviations, correlation and sigma of each. One core, BLAS on one
thread; medians of the runs. Rscript needs lme4; without it ours is timed alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).parents[2] / "mixform" / "datasets" / "sleepstudy.csv"
FORMULA = "Reaction ~ Days + (Days | Subject)"

PYTHON = """
import json, time
import pandas as pd
import mixform as mf
from mixform.inference.resampling.bootstrap import bootstrap
data = pd.read_csv({data!r})
data["Subject"] = data["Subject"].astype(str)
fit = mf.fit({formula!r}, data)._fit
bootstrap(fit, 20, seed=1)
times = []
for run in range({runs}):
    start = time.perf_counter()
    draws = bootstrap(fit, {draws}, seed=run, progress=False)
    times.append(time.perf_counter() - start)
print(json.dumps({{"times": times, "se": draws.se.tolist()}}))
"""

R = """
suppressMessages(library(lme4))
data <- read.csv("{data}")
data$Subject <- factor(data$Subject)
fit <- lmer({formula}, data)
statistic <- function(m) {{
  parts <- as.data.frame(VarCorr(m))
  c(fixef(m), parts$sdcor)
}}
times <- numeric(0)
for (run in seq_len({runs})) {{
  seconds <- system.time(
    draws <- suppressMessages(suppressWarnings(bootMer(
      fit, statistic, nsim = {draws}, seed = run, type = "parametric")))
  )[["elapsed"]]
  times <- c(times, seconds)
}}
se <- apply(draws$t, 2, sd, na.rm = TRUE)
cat(paste0("[", paste(times, collapse = ","), "]\\n"))
cat(paste0("[", paste(se, collapse = ","), "]\\n"))
"""


def run(command: list[str]) -> list[str]:
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads}
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout.strip().splitlines()


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--r-runs", type=int, default=1)
    options = parser.parse_args()
    settings = {"data": str(DATA), "formula": FORMULA, "draws": options.draws}
    program = PYTHON.format(**settings, runs=options.runs)
    ours = json.loads(run([sys.executable, "-c", program])[-1])
    print(f"{FORMULA}, {options.draws} refits, one core")
    seconds = median(ours["times"])
    print(f"  mixform        {seconds:8.3f} s (median of {options.runs})")
    if shutil.which("Rscript") is None:
        print("  lme4::bootMer  not available")
        return
    lines = run(["Rscript", "-e", R.format(**settings, runs=options.r_runs)])
    theirs, se = json.loads(lines[-2]), json.loads(lines[-1])
    print(f"  lme4::bootMer  {median(theirs):8.3f} s (median of {options.r_runs})")
    print(f"  ratio          {median(theirs) / seconds:8.1f}")
    # as.data.frame(VarCorr()) has the two SDs, the correlation and sigma in order.
    print("  bootstrap SEs  " + "  ".join(f"{value:.4g}" for value in ours["se"]))
    print("  in lme4        " + "  ".join(f"{value:.4g}" for value in se))


if __name__ == "__main__":
    main()
