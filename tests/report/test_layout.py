"""Printed forms carry every number, in text, HTML and LaTeX."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import mixform as mf
from mixform.report.layout import column_grid


@pytest.fixture(scope="module")
def summary():
    data = mf.datasets.load("sleepstudy")
    return mf.fit("Reaction ~ Days + (Days | Subject)", data).summary()


class Cells(HTMLParser):
    """Collect the text of table cells."""

    def __init__(self):
        super().__init__()
        self.cells, self.open = [], False

    def handle_starttag(self, tag, attrs):
        if tag in {"td", "th"}:
            self.open = True
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


NUMBERS = ("251.405", "6.825", "36.838", "3.26e-06 ***", "612.09", "5.922", "0.07")


def test_html_has_every_number_in_a_cell(summary):
    parser = Cells()
    parser.feed(summary.as_html())
    cells = {cell.strip() for cell in parser.cells}
    assert set(NUMBERS) <= cells
    assert "Pr(>|t|)" in cells


def test_latex_is_balanced_and_has_every_number(summary):
    text = summary.as_latex()
    assert all(number in text for number in NUMBERS)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    for body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", text, re.DOTALL):
        for line in body[1].splitlines():
            if r"\\" in line:
                assert line.count("&") == len(body[0]) - 1


def test_text_columns_are_aligned(summary):
    lines = summary.as_text().splitlines()
    start = lines.index("Fixed effects:") + 1
    ends = [
        line.rindex(end) + len(end)
        for line, end in zip(
            lines[start : start + 3], ("Std. Error", "6.825", "1.546"), strict=True
        )
    ]
    assert len(set(ends)) == 1


def test_notebook_shows_html(summary):
    assert summary._repr_html_() == summary.as_html()


def test_special_characters_are_escaped():
    grid = column_grid(["", "a_b"], [["x<y & 5%"], ["1"]])
    assert r"a\_b" in grid.as_latex()
    assert r"x\textless{}y \& 5\%" in grid.as_latex()
    assert "x&lt;y &amp; 5%" in grid.as_html()


def test_correlation_of_fixed_effects_is_printed_on_request():
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    assert "Correlation" not in str(m)
    text = str(m.summary(correlation=True))
    assert "-0.138" in text.split("Correlation of fixed effects:")[1]


def test_ml_prints_information_criteria():
    m = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff"), method="ML")
    # MixedModels.jl test/pls.jl: AIC 333.327060, BIC 337.530652, deviance 327.327060
    assert re.search(r"333\.3 +337\.5 +-163\.7 +327\.3 +27", str(m))
