"""The command line: what it prints, and one line on stderr for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mixform as mf
from mixform.cli import main

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def csv(tmp_path):
    data = mf.datasets.load("sleepstudy")
    data["w"] = 1.0 + data["Days"] % 2
    data["trt"] = ["a", "b", "c"] * 60
    path = tmp_path / "sleep.csv"
    data.to_csv(path, index=False)
    return str(path)


def run(capsys, *arguments):
    status = main(arguments)
    return status, *capsys.readouterr()


def test_built_in_data_set_is_fitted_and_printed(capsys):
    status, out, err = run(capsys, FORMULA, "sleepstudy")
    assert (status, err) == (0, "")
    assert out == str(mf.fit(FORMULA, mf.datasets.load("sleepstudy"))) + "\n"


def test_file_gives_what_the_built_in_data_set_gives(capsys, csv):
    _, from_file, _ = run(capsys, FORMULA, csv)
    _, built_in, _ = run(capsys, FORMULA, "SleepStudy")
    assert from_file == built_in


def test_parquet_file_is_read(capsys, tmp_path):
    path = tmp_path / "sleep.parquet"
    mf.datasets.load("sleepstudy").to_parquet(path)
    status, out, _ = run(capsys, FORMULA, str(path))
    assert status == 0
    assert "REML criterion at convergence: 1743.6" in out


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--ml"], {"method": "ML"}),
        (["--method", "ml"], {"method": "ML"}),
        (["--weights", "w"], {"weights": "w"}),
        (["--offset", "w"], {"offset": "w"}),
        (["--subset", "Days > 2"], {"subset": "Days > 2"}),
        (["--missing", "raise"], {"missing": "raise"}),
        (["--contrasts", "trt=sum"], {"contrasts": {"trt": "sum"}}),
    ],
    ids=str,
)
def test_option_is_the_argument_of_fit(capsys, csv, arguments, options):
    formula = "Reaction ~ Days + trt + (1 | Subject)"
    status, out, _ = run(capsys, formula, csv, *arguments)
    assert status == 0
    assert out == str(mf.fit(formula, csv, **options)) + "\n"


def test_anova_and_random_effects_follow_on_request(capsys):
    data = mf.datasets.load("sleepstudy")
    m = mf.fit(FORMULA, data)
    _, out, _ = run(capsys, FORMULA, "sleepstudy", "--anova", "--ranef")
    assert str(m.anova()) in out
    effects = out.split("Random effects:")[-1].splitlines()
    assert effects[2].split() == ["Subject", "Intercept", "308", "2.259", "12.071"]
    assert len(effects) == 2 + 36
    _, out, _ = run(capsys, FORMULA, "sleepstudy", "--anova", "1")
    assert str(m.anova(1)) in out
    _, out, _ = run(capsys, "--anova", FORMULA, "sleepstudy")
    assert str(m.anova()) in out


def test_mean_squares_follow_an_analysis_of_variance(capsys):
    formula = "Y ~ A * B + (1 | Block) + (1 | A:Block)"
    status, out, _ = run(capsys, formula, "stroup", "--method", "ANOVA")
    m = mf.fit(formula, mf.datasets.load("stroup"), method="ANOVA")
    assert status == 0
    assert out == f"{m}\n\n{m.mean_squares()}\n"


def test_draws_of_a_seed_are_printed(capsys):
    pytest.importorskip("nutpie")
    arguments = [FORMULA, "sleepstudy", "--method", "Bayes", "--seed", "1", "--ranef"]
    status, out, _ = run(capsys, *arguments)
    data = mf.datasets.load("sleepstudy")
    m = mf.fit(FORMULA, data, method="Bayes", control={"seed": 1})
    assert status == 0
    assert out.startswith(f"{m}\n\nRandom effects:\n")


def test_correlation_on_request(capsys):
    _, out, _ = run(capsys, FORMULA, "sleepstudy", "--correlation")
    assert "Correlation of fixed effects:" in out


@pytest.mark.parametrize(("layout", "sign"), [("html", "<table"), ("latex", "tabular")])
def test_other_formats(capsys, layout, sign):
    arguments = [FORMULA, "sleepstudy", "--anova", "--ranef", "--format", layout]
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert out.count(sign) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Reaction ~ Dys", "sleepstudy"], "Unknown column 'Dys' in formula."),
        (
            ["Reaction ~ (Days | Subject", "sleepstudy"],
            "The bracket '(' is not closed.",
        ),
        ([FORMULA, "sleepstdy"], "There is no file and no built-in data set"),
        ([FORMULA, "none.csv"], "There is no file 'none.csv'."),
        ([FORMULA, "sleepstudy", "--weights", "w"], "Unknown column 'w'."),
        ([FORMULA, "sleepstudy", "--contrasts", "a"], "--contrasts 'a' is not"),
        ([FORMULA, "sleepstudy", "--subset", "Days >"], "subset='Days >' cannot be"),
        (
            [FORMULA, "sleepstudy", "--anova", "--method", "Bayes"],
            "--anova has no use with --method Bayes.",
        ),
        ([FORMULA, "sleepstudy", "--seed", "1"], "Unknown control option 'seed'"),
    ],
    ids=str,
)
def test_error_is_one_line_and_status_2(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"mixform: error: {message}")
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_error_names_the_column_of_the_formula(capsys):
    _, _, err = run(capsys, "Reaction ~ Dys", "sleepstudy")
    assert "(at 'Dys', column 12 of the formula) Did you mean 'Days'?" in err


def test_missing_argument_is_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main([FORMULA])
    assert caught.value.code == 2
    assert "the following arguments are required: data" in capsys.readouterr().err


def test_aliased_column_is_a_note_not_a_warning(capsys, csv):
    status, out, err = run(capsys, "Reaction ~ Days + I(2 * Days) + (1 | Subject)", csv)
    assert (status, err) == (0, "")
    assert "dropped as combinations of other columns: I(2 * Days)" in out


def test_module_runs_as_a_program():
    program = [sys.executable, "-m", "mixform"]
    done = subprocess.run(
        [*program, "travel ~ 1 + (1 | Rail)", "Rail"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "REML criterion at convergence: 122.2" in done.stdout


SIDE_BY_SIDE = Path(__file__).parent / "references" / "side_by_side"


def test_saved_output_of_r_is_printed_beside_the_fit(capsys):
    output = SIDE_BY_SIDE / "sleepstudy.out"
    status, out, _ = run(
        capsys, FORMULA, "sleepstudy", "--lme4-output", str(output), "--format", "html"
    )
    assert status == 0
    assert "lme4 1.1.31" in out
    assert out.count("<table") > 4


def test_r_program_is_written_with_its_data(capsys, tmp_path):
    path = tmp_path / "sleep.R"
    status, out, err = run(capsys, FORMULA, "sleepstudy", "--lme4-program", str(path))
    assert (status, err) == (0, "")
    assert "beside" not in out
    assert "model <- Reaction ~ 1 + Days + (1 + Days | Subject)" in path.read_text()
    assert len(path.with_suffix(".csv").read_text().splitlines()) == 181


def test_comparison_without_r_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    status, _, err = run(capsys, FORMULA, "sleepstudy", "--lme4")
    assert status == 2
    assert "R is not installed here" in err
    assert err.count("\n") == 1
