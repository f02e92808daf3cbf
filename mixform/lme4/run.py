"""Run the R program, or read what it wrote earlier: TEXT -> `ROutput`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from mixform.errors import InferenceError
from mixform.lme4.program import RProgram

#: What the program writes on its first line: the format of its output.
FORMAT = "1"
INSTALL = "install.packages(c('lme4', 'lmerTest'))"
#: Exit status of the program where a package is missing.
NO_PACKAGE = 3

#: Two sums that identify a column, see `mixform.lme4.program`.
Marks = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RFixed:
    """A fixed effect in R; df and p are NaN where R has none."""

    name: str
    marks: Marks
    estimate: float
    se: float
    den_df: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RRandom:
    """A coefficient of a random term in R: effect ``place`` of term ``term``."""

    term: int
    place: int
    group: str
    name: str
    marks: Marks
    sd: float


@dataclass(slots=True, kw_only=True)
class ROutput:
    """What the R program found.

    Attributes
    ----------
    versions : of R and its packages, by name
    formula : that R fitted
    reml : whether by REML
    n, response : rows, and the marks of the response
    criterion, sigma : as R has them
    seconds, test_seconds : of the fit, and of what lmerTest needs for its tests
    fixed, random : the estimates, in R's order
    correlations : (term, place, place) -> correlation
    messages : what R warned of or said
    singular : what lme4's isSingular says
    """

    versions: dict[str, str] = field(default_factory=dict[str, str])
    formula: str = ""
    reml: bool = True
    n: int = 0
    response: Marks = (0.0, 0.0)
    criterion: float = float("nan")
    sigma: float = float("nan")
    seconds: float = float("nan")
    test_seconds: float = float("nan")
    fixed: list[RFixed] = field(default_factory=list[RFixed])
    random: list[RRandom] = field(default_factory=list[RRandom])
    correlations: dict[tuple[int, int, int], float] = field(
        default_factory=dict[tuple[int, int, int], float]
    )
    messages: list[str] = field(default_factory=list[str])
    singular: bool = False


def run_r(program: RProgram, *, rscript: str, timeout: float | None) -> ROutput:
    """Run the program in a folder of its own, and read what it found.

    Parameters
    ----------
    rscript : name or path of the Rscript program
    timeout : seconds after which R is stopped, None for never

    Raises
    ------
    InferenceError : there is no R, or no lme4 and lmerTest in it; R failed, with its
        own words; it took too long
    """
    found = shutil.which(rscript)
    if found is None:
        raise InferenceError(
            f"There is no program {rscript!r}: R is not installed here, or not on the "
            "path.",
            hint=f"Install R and, in R, {INSTALL}; or take program_only=True, run the "
            "program where R is, and give its output as saved=.",
        )
    with tempfile.TemporaryDirectory(prefix="mixform-") as folder:
        path, _ = program.write(Path(folder) / "model.R")
        try:
            done = subprocess.run(
                [found, path.name],
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InferenceError(
                f"R did not finish within {timeout:g} seconds.",
                hint="Give more time: timeout=.",
            ) from None
        if done.returncode:
            raise _failed(done.returncode, done.stderr)
        return read_output(path.with_suffix(".out"))


def _failed(status: int, report: str) -> InferenceError:
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    if status == NO_PACKAGE:
        names = lines[-1].partition(":")[2].strip() if lines else "lme4, lmerTest"
        return InferenceError(f"R lacks {names}.", hint=f"In R: {INSTALL}.")
    said = [line for line in lines if "Execution halted" not in line]
    start = next((i for i, line in enumerate(said) if line.startswith("Error")), 0)
    return InferenceError(
        f"R failed: {' '.join(said[start:]) or f'exit status {status}'}",
        hint="program_only=True shows the program.",
    )


def read_output(path: str | Path) -> ROutput:
    """Read what the R program wrote.

    Raises
    ------
    InferenceError : there is no such file, or it is not complete
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InferenceError(
            f"There is no file '{path}'.",
            hint="The R program writes it beside itself, ending in .out.",
        ) from None
    except (OSError, UnicodeDecodeError) as failure:
        raise _unreadable(path) from failure
    lines = [line.split("\t") for line in text.splitlines()]
    if not lines or lines[0][0] != "mixform-lme4":
        raise _unreadable(path)
    if lines[0][1:] != [FORMAT]:
        raise InferenceError(
            f"The output in '{path}' was written by the R program of another version.",
            hint="Run the program of this version again.",
        )
    if lines[-1] != ["end"]:
        raise InferenceError(
            f"The output in '{path}' is not complete.",
            hint="R stopped early: run the program again and read what it says.",
        )
    out = ROutput()
    try:
        for kind, *fields in lines[1:-1]:
            _READERS[kind](out, fields)
    except (KeyError, ValueError, IndexError) as failure:
        raise _unreadable(path) from failure
    return out


def _unreadable(path: Path) -> InferenceError:
    return InferenceError(
        f"The file '{path}' is not the output of the R program.",
        hint="The program writes it beside itself, ending in .out.",
    )


def _number(text: str) -> float:
    return float("nan") if text == "NA" else float(text)


def _marks(fields: list[str]) -> Marks:
    return _number(fields[0]), _number(fields[1])


def _version(out: ROutput, fields: list[str]) -> None:
    out.versions[fields[0]] = fields[1]


def _formula(out: ROutput, fields: list[str]) -> None:
    out.formula = " ".join(fields[0].split())


def _method(out: ROutput, fields: list[str]) -> None:
    out.reml = fields[0] == "TRUE"


def _response(out: ROutput, fields: list[str]) -> None:
    out.n, out.response = int(fields[0]), _marks(fields[1:])


def _criterion(out: ROutput, fields: list[str]) -> None:
    out.criterion = _number(fields[0])


def _sigma(out: ROutput, fields: list[str]) -> None:
    out.sigma = _number(fields[0])


def _seconds(out: ROutput, fields: list[str]) -> None:
    out.seconds, out.test_seconds = map(_number, fields)


def _fixed(out: ROutput, fields: list[str]) -> None:
    estimate, se, den_df, p_value = map(_number, fields[3:])
    out.fixed.append(
        RFixed(
            name=fields[0],
            marks=_marks(fields[1:]),
            estimate=estimate,
            se=se,
            den_df=den_df,
            p_value=p_value,
        )
    )


def _random(out: ROutput, fields: list[str]) -> None:
    term, place, group, name, *numbers = fields
    out.random.append(
        RRandom(
            term=int(term),
            place=int(place),
            group=group,
            name=name,
            marks=_marks(numbers),
            sd=_number(numbers[2]),
        )
    )


def _correlation(out: ROutput, fields: list[str]) -> None:
    term, one, two = map(int, fields[:3])
    out.correlations[term, one, two] = _number(fields[3])


def _message(out: ROutput, fields: list[str]) -> None:
    out.messages.append(" ".join(fields[0].split()))


def _singular(out: ROutput, fields: list[str]) -> None:
    out.singular = True


#: First field of a line -> what reads the others.
_READERS = {
    "version": _version,
    "formula": _formula,
    "method": _method,
    "response": _response,
    "criterion": _criterion,
    "sigma": _sigma,
    "seconds": _seconds,
    "fixed": _fixed,
    "random": _random,
    "correlation": _correlation,
    "message": _message,
    "singular": _singular,
}
