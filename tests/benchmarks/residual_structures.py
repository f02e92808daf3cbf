"""Residual structures beside nlme's gls and glmmTMB: 500 subjects x 4 visits.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/residual_structures.py

``y ~ base + arm * visit`` by REML, one visit in eight missing, without a random term:
the repeated-measures model of clinical trials. Each program fits the same file; the
median of REPEATS fits after one to warm up, in seconds, and the criterion reached. For
mixform also Satterthwaite's and Kenward and Roger's F tables of a fit that is there.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import mixform as mf

SUBJECTS, VISITS = 500, 4
REPEATS = 5

#: Residual structure -> gls arguments, glmmTMB term; None where there is none.
MODELS: dict[str, tuple[str | None, str | None]] = {
    "us(visit | id)": (
        "correlation = corSymm(form = ~ t | id), "
        "weights = varIdent(form = ~ 1 | visit)",
        "us(0 + visit | id)",
    ),
    "cs(visit | id)": ("correlation = corCompSymm(form = ~ t | id)", None),
    "ar1(visit | id)": ("correlation = corAR1(form = ~ t | id)", "ar1(0 + visit | id)"),
    "csh(visit | id)": (
        "correlation = corCompSymm(form = ~ t | id), "
        "weights = varIdent(form = ~ 1 | visit)",
        "cs(0 + visit | id)",
    ),
}

PROGRAM = """
d <- read.csv("{file}"); d$t <- d$visit; d$visit <- factor(d$visit)
times <- numeric({repeats})
for (i in 0:{repeats}) {{
  s <- system.time(m <- {call})[3]
  if (i > 0) times[i] <- s
}}
cat(median(times), {criterion}, sep = " ")
"""


def simulate(seed: int = 3) -> pd.DataFrame:
    """Return id, visit, arm, base, y."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(SUBJECTS), VISITS),
            "visit": np.tile(np.arange(1, VISITS + 1), SUBJECTS),
        }
    )
    frame["arm"] = np.where(frame.id % 2, "a", "b")
    frame["base"] = rng.normal(size=SUBJECTS)[frame.id]
    half = rng.normal(size=(VISITS, VISITS)) + np.eye(VISITS)
    e = rng.normal(size=(SUBJECTS, VISITS)) @ half.T
    frame["y"] = e.ravel() + frame.base + 0.3 * (frame.arm == "a") * frame.visit
    return frame[rng.random(len(frame)) > 1 / 8].reset_index(drop=True)


def seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    call()
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run_r(file: Path, library: str, call: str, criterion: str) -> str:
    """Return seconds and criterion of an R fit, "-" where it cannot be had."""
    if shutil.which("Rscript") is None:
        return f"{'-':>9} {'-':>13}"
    program = f"suppressMessages(library({library}))" + PROGRAM.format(
        file=file, repeats=REPEATS, call=call, criterion=criterion
    )
    done = subprocess.run(
        ["Rscript", "-e", program], capture_output=True, text=True, check=False
    )
    values = done.stdout.split()
    if len(values) != 2:
        return f"{'failed':>9} {'-':>13}"
    return f"{float(values[0]):9.3f} {float(values[1]):13.5f}"


def main() -> None:
    """Fit each model by each program."""
    data = simulate()
    path = Path(tempfile.mkdtemp()) / "visits.csv"
    data.to_csv(path, index=False)
    data = data.assign(visit=data.visit.astype(str))
    print(
        f"{'':18}{'mixform':>8} {'criterion':>13} {'Satt.':>7} {'K-R':>7}"
        f"{'gls':>10} {'criterion':>13}{'glmmTMB':>10} {'criterion':>13}"
    )
    for residual, (gls, term) in MODELS.items():

        def fit(residual: str = residual) -> mf.Result:
            return mf.fit("y ~ base + arm * visit", data, residual=residual)

        m = fit()
        tables = [
            seconds(lambda ddf=ddf: fit().anova(ddf=ddf))
            for ddf in ("satterthwaite", "kenward-roger")
        ]
        own = seconds(fit)
        line = f"{residual:18}{own:8.3f} {m.criterion:13.5f}"
        line += "".join(f" {max(t - own, 0.0):7.3f}" for t in tables)
        formula = "y ~ base + arm * visit"
        criterion = "format(-2 * as.numeric(logLik(m)), digits = 12)"
        if gls is not None:
            line += " " + run_r(path, "nlme", f"gls({formula}, d, {gls})", criterion)
        if term is not None:
            call = f"glmmTMB({formula} + {term}, d, dispformula = ~ 0, REML = TRUE)"
            line += " " + run_r(path, "glmmTMB", call, criterion)
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
