"""Data sets: bytes, levels, citations, and statistics fixed by balanced designs.

In a balanced design the REML estimates and the F ratios of a mixed model are those of
the analysis of variance, so figures printed by lme4, lmerTest, nlme and SAS PROC MIXED
(example 1 of its documentation, for the split plot) must come out of sums of squares
of cell means, without a model. Digits of iterative fits are cut where they are unsure.
"""

import hashlib
import json
import shutil
import subprocess
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from mixform import datasets
from mixform.errors import MixformError

NAMES = datasets.names()

#: One per line: R package, and the name both there and here.
IN_R = {
    "sleepstudy": "lme4",
    "Dyestuff": "lme4",
    "Dyestuff2": "lme4",
    "Penicillin": "lme4",
    "Pastes": "lme4",
    "cake": "lme4",
    "Rail": "nlme",
    "ergoStool": "nlme",
    "Machines": "nlme",
    "Oats": "nlme",
    "Orthodont": "nlme",
}

R_PROGRAM = """
packages <- jsonlite::fromJSON(commandArgs(TRUE)[1])
text <- function(x) if (is.numeric(x)) sprintf("%.17g", x) else as.character(x)
one <- function(name) {
  data(list = name, package = packages[[name]], envir = environment())
  data <- as.data.frame(get(name, envir = environment()))
  list(
    values = lapply(data, text),
    levels = Filter(Negate(is.null), lapply(data, levels)),
    ordered = names(Filter(is.ordered, data))
  )
}
all <- sapply(names(packages), one, simplify = FALSE)
cat(jsonlite::toJSON(all, auto_unbox = FALSE))
"""


def mean_squares(table, response, terms):
    """Sequential mean squares of a balanced design, one per term, then the residual.

    A term is the tuple of factors whose cell means it fits; its sum of squares is what
    those cells explain beyond the terms listed before that are contained in it.
    """
    y = table[response]
    fitted = {(): pd.Series(y.mean(), index=y.index)}
    effect = {(): fitted[()]}
    df = {(): 1}
    for term in terms:
        groups = table.groupby(list(term), observed=True)[response]
        inside = [t for t in effect if set(t) < set(term)]
        fitted[term] = groups.transform("mean")
        effect[term] = fitted[term] - sum(effect[t] for t in inside)
        df[term] = groups.ngroups - sum(df[t] for t in inside)
    residual = y - sum(effect.values())
    squares = [(effect[t] ** 2).sum() / df[t] for t in terms]
    return [*squares, (residual**2).sum() / (len(y) - sum(df.values()))]


def half_unit(printed):
    return 0.5 * 10.0 ** Decimal(printed).as_tuple().exponent


def assert_prints_as(values, *printed):
    for value, text in zip(values, printed, strict=True):
        assert value == pytest.approx(
            float(text), rel=0.0, abs=1.0001 * half_unit(text)
        )


@pytest.mark.parametrize("name", NAMES)
def test_file_has_the_recorded_sha256_and_plain_line_ends(name):
    raw = (files(datasets) / f"{name}.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == datasets.describe(name).sha256
    assert raw.isascii()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw


def test_every_file_has_an_entry():
    here = Path(str(files(datasets)))
    assert {path.stem for path in here.glob("*.csv")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_description_matches_the_table(name):
    info = datasets.describe(name)
    table = datasets.load(name)
    assert info.name == name
    assert info.n == len(table)
    assert list(info.columns) == list(table.columns)
    assert all(info.columns.values())


@pytest.mark.parametrize("name", NAMES)
def test_citation_has_an_author_a_year_and_a_place(name):
    citation = datasets.describe(name).citation
    author, _, rest = citation.partition(" (")
    assert author[0].isupper()
    assert "," in author
    assert rest.endswith(".")
    assert any(str(year) in citation for year in range(1930, 2030))


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_missing_and_no_level_is_empty(name):
    table = datasets.load(name)
    assert not table.isna().to_numpy().any()
    for column in table.select_dtypes("category"):
        levels = table[column].cat.categories
        assert set(levels) == set(table[column])
        assert all(isinstance(level, str) for level in levels)


def test_each_call_returns_a_new_frame():
    first = datasets.load("sleepstudy")
    first["Reaction"] = 0.0
    first["Subject"] = first["Subject"].cat.rename_categories(lambda s: f"S{s}")
    second = datasets.load("sleepstudy")
    assert second["Reaction"].iloc[0] == 249.56
    assert second["Subject"].cat.categories[0] == "308"


def test_describing_twice_gives_independent_columns():
    datasets.describe("pigs").columns.clear()
    assert list(datasets.describe("pigs").columns) == ["pig", "group", "gain"]


@pytest.mark.parametrize("spelling", ["ergoStool", "ergostool", "ERGOSTOOL"])
def test_names_are_matched_in_any_case(spelling):
    assert datasets.describe(spelling).name == "ergoStool"
    assert len(datasets.load(spelling)) == 36


def test_names_are_in_alphabetical_order():
    assert list(NAMES) == sorted(NAMES, key=str.lower)


@pytest.mark.parametrize("call", [datasets.load, datasets.describe])
def test_unknown_name_suggests_the_nearest_and_lists_all(call):
    with pytest.raises(ValueError, match="Unknown data set 'sleepstuddy'") as caught:
        call("sleepstuddy")
    assert "Did you mean 'sleepstudy'?" in str(caught.value)
    assert str(caught.value).endswith(f"Data sets: {', '.join(NAMES)}.")


def test_unknown_name_far_from_all_suggests_none():
    with pytest.raises(ValueError, match="Unknown data set 'zzz'") as caught:
        datasets.load("zzz")
    assert "Did you mean" not in str(caught.value)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "pigs.csv").write_bytes(b"pig,group,gain\n1,Control,54\n")
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(MixformError, match=r"(?s)'pigs' has changed.*Reinstall"):
        datasets.load("pigs")


def test_original_orders_of_levels_are_kept():
    sex = datasets.load("Orthodont")["Sex"].cat
    assert list(sex.categories) == ["Male", "Female"]
    assert not sex.ordered
    temperature = datasets.load("cake")["temperature"].cat
    assert list(temperature.categories) == ["175", "185", "195", "205", "215", "225"]
    assert temperature.ordered
    assert list(datasets.load("Rail")["Rail"].cat.categories) == list("251634")


def test_pigs_have_the_means_and_pooled_variance_worked_by_hand():
    table = datasets.load("pigs")
    assert table["pig"].to_list() == [1, 2, 3, 4, 5, 6]
    means = table.groupby("group", observed=True)["gain"].mean()
    assert means.to_list() == pytest.approx([157 / 3, 184 / 3])
    _, residual = mean_squares(table, "gain", [("group",)])
    assert residual == pytest.approx((654 + 366) / 9 / 4)


def test_sleepstudy_has_the_published_line():
    table = datasets.load("sleepstudy")
    days = table["Days"] - table["Days"].mean()
    slope = (days * table["Reaction"]).sum() / (days**2).sum()
    intercept = table["Reaction"].mean() - slope * table["Days"].mean()
    assert_prints_as([intercept, slope], "251.405105", "10.467286")


@pytest.mark.parametrize(
    ("name", "mean", "between", "within"),
    [
        ("Dyestuff", "1527.5", "11271.5", "2451.25"),
        ("Dyestuff2", "5.6656", "8.3363", "14.9459"),
    ],
)
def test_batches_have_the_published_mean_squares(name, mean, between, within):
    table = datasets.load(name)
    assert_prints_as([table["Yield"].mean()], mean)
    assert_prints_as(mean_squares(table, "Yield", [("Batch",)]), between, within)


def test_penicillin_has_the_anova_variance_components():
    table = datasets.load("Penicillin")
    plate, sample, residual = mean_squares(table, "diameter", [("plate",), ("sample",)])
    assert_prints_as([table["diameter"].mean()], "22.972222")
    assert_prints_as(
        [(plate - residual) / 6, (sample - residual) / 24, residual],
        "0.716908",
        "3.730918",
        "0.302415",
    )


def test_pastes_has_the_anova_variance_components():
    table = datasets.load("Pastes")
    batch, sample, residual = mean_squares(
        table, "strength", [("batch",), ("batch", "sample")]
    )
    assert_prints_as([table["strength"].mean()], "60.053333")
    assert_prints_as(
        [(batch - sample) / 6, (sample - residual) / 2, residual],
        "1.657309",
        "8.433667",
        "0.678000",
    )
    assert (table["sample"] == table["batch"].str.cat(table["cask"], ":")).all()


def test_cake_has_the_published_f_ratios():
    table = datasets.load("cake")
    terms = [
        ("recipe",),
        ("recipe", "replicate"),
        ("temperature",),
        ("recipe", "temperature"),
    ]
    recipe, whole, temperature, both, residual = mean_squares(table, "angle", terms)
    assert_prints_as(
        [recipe / whole, temperature / residual, both / residual, residual],
        "0.248789",
        "20.51986",
        "1.006198",
        "20.470899",
    )
    assert (table["temperature"].astype(int) == table["temp"]).all()


def test_rail_has_the_anova_standard_deviations():
    table = datasets.load("Rail")
    rail, residual = mean_squares(table, "travel", [("Rail",)])
    deviations = [((rail - residual) / 3) ** 0.5, residual**0.5]
    assert_prints_as(deviations, "24.805465", "4.020779")


def test_ergostool_has_the_published_f_ratio():
    terms = [("Type",), ("Subject",)]
    kind, subject, residual = mean_squares(datasets.load("ergoStool"), "effort", terms)
    deviations = [((subject - residual) / 4) ** 0.5, residual**0.5]
    assert_prints_as(
        [kind / residual, *deviations], "22.355641", "1.332465", "1.100295"
    )


def test_machines_has_the_published_f_ratio():
    terms = [("Machine",), ("Worker",), ("Machine", "Worker")]
    machine, worker, both, residual = mean_squares(
        datasets.load("Machines"), "score", terms
    )
    components = [((worker - both) / 9) ** 0.5, ((both - residual) / 3) ** 0.5]
    assert_prints_as(
        [machine / both, *components, residual**0.5],
        "20.576083",
        "4.78105",
        "3.729538",
        "0.961577",
    )


def test_oats_has_the_published_f_ratios():
    terms = [
        ("Block",),
        ("Variety",),
        ("Block", "Variety"),
        ("nitro",),
        ("Variety", "nitro"),
    ]
    block, variety, whole, nitro, both, residual = mean_squares(
        datasets.load("Oats"), "yield", terms
    )
    assert_prints_as(
        [variety / whole, nitro / residual, both / residual],
        "1.485",
        "37.686",
        "0.303",
    )
    assert_prints_as(
        [(block - whole) / 12, (whole - residual) / 4, residual],
        "214.477",
        "106.062",
        "177.083",
    )


def test_orthodont_has_the_published_line_and_children():
    table = datasets.load("Orthodont")
    age = table["age"] - table["age"].mean()
    slope = (age * table["distance"]).sum() / (age**2).sum()
    intercept = table["distance"].mean() - slope * table["age"].mean()
    assert_prints_as([intercept, slope], "16.761111", "0.660185")
    children = table.groupby("Sex", observed=True)["Subject"].nunique()
    assert children.to_dict() == {"Male": 16, "Female": 11}


def test_stroup_has_the_components_and_tests_that_sas_prints():
    terms = [("Block",), ("A",), ("A", "Block"), ("B",), ("A", "B")]
    block, a, whole, b, both, residual = mean_squares(
        datasets.load("stroup"), "Y", terms
    )
    assert_prints_as(
        [(block - whole) / 6, (whole - residual) / 2, residual],
        "62.395833",
        "15.381944",
        "9.361111",
    )
    assert_prints_as(
        [a / whole, b / residual, both / residual], "4.069574", "19.388724", "4.019288"
    )


@pytest.fixture(scope="module")
def tables_in_r():
    program = shutil.which("Rscript")
    if program is None:
        pytest.skip("Rscript is not installed")
    run = subprocess.run(
        [program, "-e", R_PROGRAM, json.dumps(IN_R)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "there is no package called" in run.stderr:
        pytest.skip("R lacks lme4 or jsonlite")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", IN_R)
def test_table_equals_the_copy_in_r(name, tables_in_r):
    table = datasets.load(name)
    original = tables_in_r[name]
    assert list(table.columns) == list(original["values"])
    for column, values in original["values"].items():
        if column in original["levels"]:
            assert table[column].to_list() == values
            assert list(table[column].cat.categories) == original["levels"][column]
            assert table[column].cat.ordered == (column in original["ordered"])
        else:
            assert table[column].to_list() == [float(value) for value in values]
