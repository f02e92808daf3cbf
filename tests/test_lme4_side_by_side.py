"""The same model in R: its spelling, what R finds, and saved output of R."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform import lme4
from mixform.errors import InferenceError, MixformWarning
from mixform.lme4.run import read_output
from mixform.lme4.spelling import Speller, r_name, r_string

from .reference_models import MODELS, fit_reference

SAVED = Path(__file__).parent / "references" / "side_by_side"


@cache
def why_no_r() -> str | None:
    if shutil.which("Rscript") is None:
        return "there is no Rscript"
    test = "library(lme4); library(lmerTest)"
    done = subprocess.run(["Rscript", "-e", test], capture_output=True, check=False)
    return "R has no lme4 or lmerTest" if done.returncode else None


@pytest.fixture
def r():
    reason = why_no_r()
    if reason:
        pytest.skip(reason)


def beside(m: mf.Result, **options) -> lme4.SideBySide:
    return lme4.compare_lme4(m._fit, m._call, m._coefficients, **options)


def fit(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(formula, data, **options)


@pytest.fixture(scope="module")
def sleepstudy():
    return mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))


def strange_table(n: int = 180) -> pd.DataFrame:
    """Names, levels and types that R could trip over."""
    rng = np.random.default_rng(8)
    table = pd.DataFrame(
        {
            "body mass": rng.uniform(1, 5, n),
            "größe": rng.choice(["NA", 'a "b"', "ü,\\1", ""], n),
            "dose": pd.Categorical(
                rng.choice(["low", "mid", "high"], n),
                ["low", "mid", "high"],
                ordered=True,
            ),
            "year": rng.choice([2001, 2002, 2010], n),
            "done": rng.random(n) < 0.5,
            "if": rng.integers(0, 15, n),
            "x": rng.normal(size=n),
            "w": rng.uniform(0.5, 2, n),
        }
    )
    effects = rng.normal(size=(15, 2))
    here = effects[table["if"]]
    noise = rng.normal(size=n)
    table["y"] = 9 + table["x"] * (1 + here[:, 1]) + 2 * here[:, 0] + noise
    table.loc[[3, 50], "x"] = np.nan
    return table


MODELS_IN_R = {
    "names": ("y ~ `body mass` + größe + (1 | if)", {}),
    "contrasts": (
        "y ~ dose * größe + (1 | if)",
        {"contrasts": {"dose": "sum", "größe": "helmert"}},
    ),
    "matrix": (
        "y ~ dose + (1 | if)",
        {"contrasts": {"dose": [[1, 0.25], [-1, 0.25], [0, -0.5]]}},
    ),
    "arguments": (
        "y ~ x + offset(log(w)) + (x | if)",
        {"weights": "w", "offset": np.linspace(0, 1, 180), "subset": "w < 1.9"},
    ),
    "transformed": ("log(y + 20) ~ poly(x, 2) + I(w^2) + sqrt(w) + (1 | if)", {}),
    "spline": ("y ~ bs(x, df=5) + scale(w) + center(`body mass`) + (1 | if)", {}),
    "numpy": ("y ~ np.exp(x) * I(w > 1) + (1 | if)", {}),
    "made factor": ("y ~ C(year) + C(dose, contr.sum) + (1 | if)", {}),
    "numbers as factors": ("y ~ C(year) + (1 | if)", {"contrasts": {"year": "sum"}}),
    "boolean": ("y ~ done * x + (0 + done | if)", {}),
    "no intercept": ("y ~ 0 + dose + x:dose + (1 | if) + (1 | year:dose)", {}),
    "independent": ("y ~ x + (x || if)", {"method": "ML"}),
    "independent factor": ("y ~ dose + (dose || if)", {}),
    "nested": ("y ~ x + (1 | year/dose)", {}),
    "binary response": ("done ~ x + (1 | if)", {}),
    "linear": ("y ~ dose + x", {"weights": "w"}),
    "linear ml": ("y ~ dose + x", {"method": "ML"}),
}


#: R takes two seconds for each: these say most, the others are slow tests.
FIRST = ("contrasts", "arguments", "transformed", "independent factor", "linear ml")


def some_first(names, first):
    """Return the names, those that are not among the first marked as slow."""
    return [
        name if name in first else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


@pytest.mark.usefixtures("r")
@pytest.mark.parametrize("name", some_first(MODELS_IN_R, FIRST))
def test_r_fits_the_same_model(name):
    formula, options = MODELS_IN_R[name]
    m = fit(formula, strange_table(), **options)
    page = beside(m)
    assert page.output.n == m.nobs
    assert not page.table["estimate_lme4"].isna().any()
    assert list(page.table.index) == list(m.params.index)
    assert page.largest_difference < 1e-3
    np.testing.assert_allclose(page.table["se"], page.table["se_lme4"], rtol=1e-3)
    if name != "linear ml":
        np.testing.assert_allclose(page.table["df"], page.table["df_lme4"], rtol=5e-3)
    assert -1e-4 < page.criterion["difference"] < 1e-6
    ours = page.varcorr[page.varcorr["sdcor"].notna()]
    np.testing.assert_allclose(ours["sdcor"], ours["sdcor_lme4"], atol=5e-3)


@pytest.mark.usefixtures("r")
@pytest.mark.parametrize("name", some_first(sorted(MODELS), ["factorial_empty_cell"]))
def test_reference_models_are_the_same_in_r(name):
    m = fit_reference(name)
    page = beside(m)
    kept = page.table["estimate"].notna()
    assert not page.table["estimate_lme4"][kept].isna().any()
    assert kept.sum() == len(page.output.fixed)
    assert page.criterion["difference"] < 1e-6
    if page.criterion["difference"] > -1e-4:
        assert page.largest_difference < 1e-3
    assert page.varcorr["sdcor_lme4"].isna().sum() <= page.varcorr["sdcor"].isna().sum()


@pytest.mark.usefixtures("r")
def test_singular_fit_is_said():
    page = beside(fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2")))
    assert "the fit is singular in both." in page.notes
    assert any("boundary (singular) fit" in note for note in page.notes)


@pytest.mark.slow
@pytest.mark.usefixtures("r")
def test_what_r_refuses_is_said_in_its_words():
    table = strange_table().drop(index=[3, 50])
    table["few"] = np.arange(len(table)) // 2
    m = fit("y ~ x + (x | few)", table[:100])
    with pytest.raises(InferenceError, match="number of observations"):
        beside(m)


@pytest.mark.usefixtures("r")
def test_program_runs_alone_and_its_output_is_read(sleepstudy, tmp_path):
    program, table = lme4.r_program(sleepstudy._fit).write(tmp_path / "model.R")
    assert table == tmp_path / "model.csv"
    done = subprocess.run(
        ["Rscript", str(program)], capture_output=True, text=True, check=True
    )
    assert "Linear mixed model fit by REML" in done.stdout
    page = beside(sleepstudy, saved=tmp_path / "model.out")
    assert page.largest_difference < 1e-8


# Without R.


def test_saved_output_is_set_beside_the_fit(sleepstudy):
    page = beside(sleepstudy, saved=SAVED / "sleepstudy.out")
    assert page.table.loc["Days", "estimate_lme4"] == pytest.approx(10.46728596)
    assert page.table["df_lme4"].tolist() == pytest.approx([17, 17], abs=1e-3)
    assert page.varcorr["sdcor_lme4"].tolist() == pytest.approx(
        [24.74066, 5.922138, 0.06555124, 25.59180], rel=1e-6
    )
    assert page.varcorr["var2"].tolist()[2] == "Days"
    assert page.criterion["lme4"] == pytest.approx(1743.62827, abs=1e-5)
    assert page.seconds["mixform"] > 0.0
    text = str(page)
    for part in (
        "mixform beside R 4.2.2, lme4 1.1.31, lmerTest 3.1.3",
        "In R: Reaction ~ 1 + Days + (1 + Days | Subject)",
        "REML criterion 1743.628272 1743.628272",
        "Subject  Intercept Days",
    ):
        assert part in text
    assert "<table" in page._repr_html_()
    assert "tabular" in page.summary().as_latex()


def test_message_and_singular_fit_of_saved_output():
    m = fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))
    page = beside(m, saved=SAVED / "dyestuff2.out")
    assert page.notes[0] == "the fit is singular in both."
    assert page.notes[1].startswith("R: boundary (singular) fit")


@pytest.mark.parametrize(
    ("formula", "rows", "options", "message"),
    [
        ("Reaction ~ Days + (1 | Subject)", 170, {}, "of 180 rows, the model has 170"),
        ("np.log(Reaction) ~ Days + (1 | Subject)", 180, {}, "of other data"),
        ("Reaction ~ Days + (1 | Subject)", 180, {"method": "ML"}, "fitted by ML"),
    ],
)
def test_output_of_another_model_is_refused(formula, rows, options, message):
    m = mf.fit(formula, mf.datasets.load("sleepstudy")[:rows], **options)
    with pytest.raises(InferenceError, match=message):
        beside(m, saved=SAVED / "sleepstudy.out")


def test_other_coding_in_r_is_said(tmp_path):
    text = (
        (SAVED / "sleepstudy.out")
        .read_text()
        .replace("fixed\tDays\t-9", "fixed\tD\t-99")
    )
    (tmp_path / "other.out").write_text(text)
    m = mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))
    page = beside(m, saved=tmp_path / "other.out")
    assert list(page.table.index) == ["Intercept", "Days", "D (in R)"]
    assert page.notes[0].startswith("R codes a term otherwise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("end\n", ""), "is not complete"),
        (lambda text: "y,x\n1,2\n", "is not the output of the R program"),
        (lambda text: "", "is not the output of the R program"),
        (lambda text: text.replace("sigma\t", "sigma\tx"), "is not the output"),
        (lambda text: text.replace("lme4\t1", "lme4\t2", 1), "of another version"),
    ],
)
def test_bad_output_files(tmp_path, change, message):
    path = tmp_path / "model.out"
    path.write_text(change((SAVED / "sleepstudy.out").read_text()))
    with pytest.raises(InferenceError, match=message):
        read_output(path)


def test_missing_output_file(tmp_path):
    with pytest.raises(InferenceError, match="There is no file"):
        read_output(tmp_path / "none.out")


def test_no_r_says_what_to_install(sleepstudy):
    message = r"no program 'no-such-R'(.|\n)*install\.packages\(c\('lme4', 'lmerTest'"
    with pytest.raises(InferenceError, match=message):
        beside(sleepstudy, rscript="no-such-R")


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for R")
@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (
            "echo 'packages missing: lmerTest' >&2; exit 3",
            {},
            r"R lacks lmerTest\.\nIn R",
        ),
        ("echo 'Error: singular' >&2; exit 1", {}, "R failed: Error: singular"),
        ("exit 1", {}, "R failed: exit status 1"),
        ("sleep 20", {"timeout": 0.2}, r"did not finish within 0\.2 seconds"),
        ("exit 0", {}, "There is no file"),
    ],
)
def test_r_that_fails(sleepstudy, tmp_path, script, options, message):
    program = tmp_path / "Rscript"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(InferenceError, match=message):
        beside(sleepstudy, rscript=str(program), **options)


def test_program_is_ascii_and_holds_the_model(sleepstudy):
    m = fit("y ~ größe + (1 | if)", strange_table(), contrasts={"größe": "sum"})
    program = lme4.r_program(m._fit)
    assert program.program.isascii()
    assert program.formula == "y ~ 1 + gr.u00f6.u00dfe + (1 | `if`)"
    assert "contr.sum(4)" in program.program
    assert len(program.data) == 180
    assert str(program) == program.program


def test_program_is_named_r(sleepstudy, tmp_path):
    with pytest.raises(InferenceError, match=r"Name it '.*model\.R'"):
        lme4.r_program(sleepstudy._fit).write(tmp_path / "model.txt")
    with pytest.raises(InferenceError, match="cannot be written"):
        lme4.r_program(sleepstudy._fit).write(tmp_path / "no" / "model.R")


def test_data_are_the_rows_in_use_in_order():
    m = fit("y ~ x + (1 | if)", strange_table(), subset="w < 1")
    data = lme4.r_program(m._fit).data
    np.testing.assert_array_equal(data["y"], m._fit.design.y)
    assert list(data.columns) == ["y", "x", "if"]


SPELLER = Speller(factors=frozenset({"f"}), contrasts={})


@pytest.mark.parametrize(
    ("python", "in_r"),
    [
        ("I(x ** 2)", "I(x^2)"),
        ("x + 1", "I(x + 1)"),
        ("np.log(x * -2)", "log(x * (-2))"),
        ("I((x + 1) * y)", "I((x + 1) * y)"),
        ("C(x)", "factor(x)"),
        ("C(f)", "f"),
        ("C(f, contr.helmert)", "C(f, contr.helmert)"),
        ("as_numeric(f)", "as.numeric(as.character(f))"),
        ("poly(x, 3, raw=True)", "poly(x, degree = 3, raw = TRUE)"),
        (
            "bs(x, knots=[1, 2.5], degree=2, lower_bound=0)",
            "splines::bs(x, knots = c(1, 2.5), degree = 2, "
            "Boundary.knots = c(0, max(x)))",
        ),
        ("I(x // 2 == 1)", "I((x %/% 2) == 1)"),
    ],
)
def test_expressions_are_spelled_for_r(python, in_r):
    assert SPELLER.factor(python, "python") == in_r


@pytest.mark.parametrize(
    "python",
    [
        "cs(x, df=3)",
        "lag(x)",
        "C(f, contr.treatment('b'))",
        "np.arctan2(x, y)",
        "x if y else z",
        "1 < x < 2",
        "bs(x, df=3, extrapolation='clip')",
        "log(x, base=2)",
    ],
)
def test_what_r_cannot_say_is_refused(python):
    with pytest.raises(InferenceError, match="cannot be written in R"):
        SPELLER.factor(python, "python")


def test_strings_and_names():
    assert r_string('a"\\\n\U0001f600') == r'"a\"\\\u000a\U0001f600"'
    assert [r_name(n) for n in ("x.1", ".x", ".1x", "_x", "TRUE", "a`b")] == [
        *("x.1", ".x", "`.1x`", "`_x`", "`TRUE`", r"`a\`b`"),
    ]
