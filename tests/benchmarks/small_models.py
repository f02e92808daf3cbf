"""Time a small fit against R and the Python peers, in one run at equal optimum.

    python tests/benchmarks/small_models.py [--peers PYTHON] [--runs N]

PYTHON is the interpreter of an environment with the peers:
``pip install mixedlm lme-python mixedlm-rs interlace-lme``. Rscript needs lme4 and
lmerTest. What is not installed is left out. Each program runs in a process of its own,
BLAS on one thread, and reports the median of N warm runs and the criterion reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "mixform" / "datasets"
FORMULA = "Reaction ~ Days + (Days | Subject)"

COMMON = """
import json, sys, time
import pandas as pd
data = pd.read_csv({path!r})
data["Subject"] = data["Subject"].astype(str)
def median_ms(call):
    for _ in range(10):
        call()
    times = []
    for _ in range({runs}):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1e3
"""

PROGRAMS = {
    "mixform": """
import mixform as mf
fit = lambda: mf.fit({formula!r}, data)
print(json.dumps({{"fit": median_ms(fit),
                  "fit + print": median_ms(lambda: str(fit())),
                  "criterion": fit().criterion}}))
""",
    "mixedlm": """
import mixedlm
fit = lambda: mixedlm.lmer({formula!r}, data)
m = fit()
print(json.dumps({{"fit": median_ms(fit), "fit + print": median_ms(
    lambda: str(fit().summary())), "criterion": float(m.deviance)}}))
""",
    "lme-python": """
import lme_python, polars
frame = polars.DataFrame({{name: data[name].tolist() for name in data}})
fit = lambda: lme_python.lmer({formula!r}, frame, reml=True)
m = fit()
criterion = m.reml_criterion
criterion = float(criterion() if callable(criterion) else criterion)
print(json.dumps({{"fit": median_ms(fit), "fit + print": median_ms(
    lambda: str(fit())), "criterion": criterion}}))
""",
    "mixedlm-rs": """
import mixedlm_rs
fit = lambda: mixedlm_rs.mixedlm("Reaction ~ Days", data, groups="Subject",
                                 re_formula="~Days").fit(reml=True)
m = fit()
print(json.dumps({{"fit": median_ms(fit), "fit + print": median_ms(
    lambda: str(fit().summary())), "criterion": -2.0 * float(m.llf)}}))
""",
    "interlace-lme": """
import interlace
import warnings; warnings.simplefilter("ignore")
fit = lambda: interlace.fit("Reaction ~ Days", data, random=["(1 + Days | Subject)"])
m = fit()
print(json.dumps({{"fit": median_ms(fit), "fit + print": median_ms(
    lambda: str(fit().summary())), "criterion": -2.0 * float(m.llf)}}))
""",
}


def run(command: list[str]) -> str | None:
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads}
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"  ({command[0]}: {last[:90]})")
        return None
    return done.stdout


def time_python(name: str, interpreter: str, runs: int) -> dict[str, float] | None:
    program = COMMON.format(path=str(DATA / "sleepstudy.csv"), runs=runs)
    program += PROGRAMS[name].format(formula=FORMULA)
    out = run([interpreter, "-c", program])
    return json.loads(out.strip().splitlines()[-1]) if out else None


def time_r(runs: int) -> dict[str, float] | None:
    if shutil.which("Rscript") is None:
        return None
    script = HERE.parent / "references" / "timing_lme4.R"
    out = run(["Rscript", str(script), str(DATA), str(runs)])
    if out is None:
        return None
    values = dict(line.split() for line in out.splitlines() if line.startswith("lmer"))
    return {
        "fit": float(values["lmer"]),
        "fit + print": float(values["lmertest_summary"]),
        "criterion": 1743.6282719584,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    results = {"mixform": time_python("mixform", sys.executable, options.runs)}
    results["lme4, lmerTest (R)"] = time_r(options.runs)
    for name in PROGRAMS:
        if name != "mixform":
            results[name] = time_python(name, options.peers, options.runs)
    ours = results["mixform"]
    assert ours, "mixform must run"
    print(f"{FORMULA}, sleepstudy: medians of {options.runs} warm runs, ms")
    print(f"{'':22}{'fit':>8}{'ratio':>8}{'+ print':>10}{'ratio':>8}  criterion")
    for name, result in results.items():
        if result is None:
            print(f"{name:22}  not available")
            continue
        ratios = [result[k] / ours[k] for k in ("fit", "fit + print")]
        print(
            f"{name:22}{result['fit']:8.2f}{ratios[0]:8.2f}"
            f"{result['fit + print']:10.2f}{ratios[1]:8.2f}  {result['criterion']:.6f}"
        )
    clock = (
        "import time; start = time.perf_counter(); import mixform;"
        "print(time.perf_counter() - start)"
    )
    imports = sorted(
        float(out) for _ in range(7) if (out := run([sys.executable, "-c", clock]))
    )
    print(f"import mixform: median {imports[len(imports) // 2]:.2f} s")


if __name__ == "__main__":
    main()
