"""Time profiles against lme4's, in one run, and compare the limits.

    python tests/benchmarks/profile.py [--runs N]

lme4: ``confint(profile(m), level = 0.95)``, the median of N / 5 runs. mixform:
``profile`` and its 95 % limits (the same work), and ``profile_interval`` (the limits
alone), the medians of N runs. Each program runs in a process of its own, BLAS on one
thread. lme4 profiles a REML fit by its ML criterion, so limits are compared under ML
only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MODELS = (
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", "ML"),
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", "REML"),
    ("sleepstudy", "Reaction ~ Days + (1 | Subject)", "ML"),
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "ML"),
    ("Pastes", "strength ~ 1 + (1 | batch/cask)", "ML"),
    ("Pastes", "strength ~ 1 + (1 | batch/cask)", "REML"),
)

OURS = """
import json, sys, time
import mixform as mf
from mixform.inference.profile.profile import profile, profile_interval
def median(call):
    call()
    times = []
    for _ in range({runs}):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
for dataset, formula, method in {models!r}:
    fit = mf.fit(formula, mf.datasets.load(dataset), method=method)._fit
    whole = median(lambda: profile(fit).conf_int(0.95))
    alone = median(lambda: profile_interval(fit, level=0.95))
    curves = profile(fit).curves.values()
    rows = profile_interval(fit, level=0.95)
    limits = {{curve.parameter.lme4_name: rows.loc[curve.parameter.name,
              ["lower", "upper"]].tolist() for curve in curves}}
    print(json.dumps([whole, alone, limits]))
"""

THEIRS = """
suppressMessages(library(lme4))
for (model in list({models})) {{
  m <- lmer(as.formula(model[[2]]), get(data(list = model[[1]], package = "lme4")),
            REML = model[[3]] == "REML")
  times <- replicate({runs}, system.time(ci <<- suppressWarnings(
    confint(profile(m), level = 0.95)))[["elapsed"]])
  cells <- sprintf("\\"%s\\": [%.10g, %.10g]", rownames(ci), ci[, 1], ci[, 2])
  cat(sprintf("[%.6f, 0, {{%s}}]\\n", median(times),
              gsub("NA", "NaN", paste(cells, collapse = ", "))))
}}
"""

Row = tuple[float, float, dict[str, list[float]]]


def run(command: list[str], program: str) -> list[Row]:
    """Run a program from its standard input; one JSON row a model."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        input=program,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **threads},
    )
    return [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")
    ]


def largest_difference(ours: Row, theirs: Row) -> float:
    """Return the largest difference of a limit, relative to the interval's width."""
    gaps = [0.0]
    for name, (lower, upper) in theirs[2].items():
        one, two = ours[2][name]
        pairs = [(lower, one), (upper, two)]
        gaps += [abs(a - b) / (upper - lower) for a, b in pairs if a == a and b == b]
    return max(gaps)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs
    ours = run([sys.executable, "-"], OURS.format(runs=runs, models=MODELS))
    models = ", ".join(f"list({', '.join(map(json.dumps, m))})" for m in MODELS)
    program = THEIRS.format(runs=max(runs // 5, 1), models=models)
    theirs = run(["Rscript", "-"], program)
    print(
        "seconds; ratio: lme4's over ours; difference: of limits, over their distance"
    )
    print(
        f"{'':60}{'lme4':>8}{'profile':>9}{'ratio':>7}{'limits':>9}{'ratio':>7}"
        f"{'difference':>12}"
    )
    for (dataset, formula, method), one, two in zip(MODELS, ours, theirs, strict=True):
        gap = f"{largest_difference(one, two):.1e}" if method == "ML" else "-"
        print(
            f"{f'{dataset} {method}: {formula}':60}{two[0]:8.3f}{one[0]:9.4f}"
            f"{two[0] / one[0]:7.1f}{one[1]:9.4f}{two[0] / one[1]:7.1f}{gap:>12}"
        )


if __name__ == "__main__":
    main()
