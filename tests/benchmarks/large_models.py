"""Time large fits against R and the Python peers, in one run at equal optimum.

    python tests/benchmarks/large_models.py [--cases a,b] [--peers PYTHON] [--runs N]
    python tests/benchmarks/large_models.py --growth

Cases: insteval (needs Rscript with lme4 for the data), slopes, ratings, nested. Each
program reads the same table, with string keys, in a process of its own; the time is
the median of N warm fits, memory the peak of the process. PYTHON is the interpreter of
an environment with ``mixedlm`` and ``mixedlm-rs``. ``--growth`` prints how the time of
mixform grows with the rows and with the random effects.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

CASES = {
    "insteval": "y ~ service + (1|s) + (1|d) + (1|dept)",
    "slopes": "y ~ x + (x|g)",
    "ratings": "y ~ 1 + (1|user) + (1|item)",
    "nested": "y ~ x + (1|a/b/c)",
}

PYTHON = """
import json, resource, sys, time
import pandas as pd
path, formula, runs, program = sys.argv[1:5]
data = pd.read_csv(path)
for name in data.columns[data.columns != "y"]:
    if name != "x":
        data[name] = data[name].astype(str)
if program == "mixform":
    import mixform as mf
    fit = lambda: mf.fit(formula, data)
    criterion = lambda m: m.criterion
    after = lambda m: (str(m), str(m.anova()))
elif program == "mixedlm":
    import mixedlm
    fit = lambda: mixedlm.lmer(formula, data)
    criterion = lambda m: float(m.deviance)
    after = None
else:
    import mixedlm_rs
    fit = lambda: mixedlm_rs.mixedlm("y ~ x", data, groups="g", re_formula="~x").fit(
        reml=True)
    criterion = lambda m: -2.0 * float(m.llf)
    after = None
times, both = [], []
fit()
for _ in range(int(runs)):
    start = time.perf_counter()
    m = fit()
    times.append(time.perf_counter() - start)
    if after:
        after(m)
        both.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
median = lambda values: sorted(values)[len(values) // 2] if values else None
print(json.dumps({"fit": median(times), "all": median(both), "GB": peak,
                  "criterion": criterion(m)}))
"""

R = """
suppressPackageStartupMessages(library(lme4))
args <- commandArgs(TRUE)
data <- read.csv(args[1], colClasses = c(y = "numeric"))
for (name in setdiff(names(data), c("y", "x"))) data[[name]] <- factor(data[[name]])
times <- c()
for (i in seq_len(as.integer(args[3]))) {
  began <- Sys.time()
  m <- lmer(as.formula(args[2]), data)
  times <- c(times, as.numeric(Sys.time() - began, units = "secs"))
}
status <- grep("VmHWM", readLines("/proc/self/status"), value = TRUE)
peak <- as.numeric(sub("[^0-9]*([0-9]+).*", "\\\\1", status)) / 1e6
cat(sprintf('{"fit": %.6f, "all": null, "GB": %.4f, "criterion": %.8f}\\n',
            median(times), peak, REMLcrit(m)))
"""


def table(case: str, seed: int = 1) -> pd.DataFrame:
    """Return the data of a case."""
    rng = np.random.default_rng(seed)
    if case == "slopes":
        n, m = 500_264, 125_066
        g, x = rng.integers(0, m, n), rng.normal(size=n)
        b = rng.normal(size=(m, 2)) * [1.0, 0.5]
        y = 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
        return pd.DataFrame({"y": y, "x": x, "g": [f"id{i}" for i in g]})
    if case == "ratings":
        n = 1_000_000
        user = np.minimum(rng.exponential(1500.0, n).astype(int), 6039)
        item = np.minimum(rng.exponential(800.0, n).astype(int), 3705)
        y = rng.normal(size=6040)[user] + 0.5 * rng.normal(size=3706)[item]
        y += rng.normal(size=n)
        return pd.DataFrame({"y": y, "user": user, "item": item})
    if case == "nested":
        n = 100_000
        a = rng.integers(0, 200, n)
        b, c = rng.integers(0, 10, n), rng.integers(0, 10, n)
        x = rng.normal(size=n)
        ab, abc = a * 10 + b, a * 100 + b * 10 + c
        y = 0.3 * x + rng.normal(size=200)[a] + 0.7 * rng.normal(size=2000)[ab]
        y += 0.5 * rng.normal(size=20000)[abc] + rng.normal(size=n)
        return pd.DataFrame({"y": y, "x": x, "a": a, "b": b, "c": c})
    raise ValueError(case)


def write_insteval(path: str) -> bool:
    program = f"write.csv(lme4::InstEval, '{path}', row.names = FALSE)"
    done = subprocess.run(["Rscript", "-e", program], capture_output=True)
    return done.returncode == 0


def run(command: list[str]) -> dict[str, float] | None:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        print("   ", (done.stderr.strip().splitlines() or ["no output"])[-1][:100])
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(case: str, peers: str | None, runs: int) -> None:
    formula = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "data.csv")
        if case == "insteval":
            if not write_insteval(path):
                print("insteval: needs Rscript with lme4")
                return
        else:
            table(case).to_csv(path, index=False)
        python = [sys.executable, "-c", PYTHON, path, formula, str(runs)]
        results = {"mixform": run([*python, "mixform"])}
        if shutil.which("Rscript"):
            script = Path(folder) / "fit.R"
            script.write_text(R)
            results["lme4"] = run(["Rscript", str(script), path, formula, "1"])
        if peers:
            results["mixedlm"] = run([peers, *python[1:-1], "1", "mixedlm"])
            if case == "slopes":
                results["mixedlm-rs"] = run([peers, *python[1:], "mixedlm-rs"])
    print(f"{case}: {formula}")
    ours = results["mixform"]
    assert ours, "mixform must run"
    for name, result in results.items():
        if result:
            after = f"{result['all']:8.2f}" if result["all"] else " " * 8
            print(
                f"  {name:12}{result['fit']:9.3f} s{result['fit'] / ours['fit']:8.1f}x"
                f"{after} with print and anova{result['GB']:7.2f} GB"
                f"  {result['criterion']:.6f}"
            )


def growth() -> None:
    import time

    import mixform as mf

    print("rows      q        fit s   loop s   evaluations")
    rng = np.random.default_rng(2)
    shapes = [(n, 1000) for n in (10**4, 10**5, 10**6, 10**7)]
    shapes += [(10 * m, m) for m in (10**3, 10**4, 10**5, 10**6)]
    for n, m in shapes:
        g, x = rng.integers(0, m, n), rng.normal(size=n)
        y = x + rng.normal(size=m)[g] + rng.normal(size=n)
        data = pd.DataFrame({"y": y, "x": x, "g": g})
        times: list[float] = []

        def tick(*_: object, times: list[float] = times) -> None:
            times.append(time.perf_counter())

        control = {"trace": tick}
        start = time.perf_counter()
        fitted = mf.fit("y ~ x + (1 | g)", data, control=control)
        seconds = time.perf_counter() - start
        loop = times[-1] - times[0]
        count = fitted.convergence.n_evaluations
        print(f"{n:<9} {m:<8} {seconds:7.3f} {loop:8.3f}   {count}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="insteval,slopes,nested")
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    if options.growth:
        growth()
        return
    for case in options.cases.split(","):
        compare(case, options.peers, options.runs)


if __name__ == "__main__":
    main()
