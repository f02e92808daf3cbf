"""The bar of long work: silent on request and when short, gone when done."""

from __future__ import annotations

import sys

import mixform as mf
from mixform.progress import Progress, SearchProgress


def test_silent_bar_counts_and_writes_nothing(capsys):
    with Progress(False, 3, "refits") as bar:
        bar.advance()
        bar.advance(2)
    assert bar.done == 3
    assert capsys.readouterr().err == ""


def test_short_work_shows_nothing_by_default(capsys):
    with Progress(None, 3, "refits") as bar:
        bar.advance(3)
    assert bar.bar is None
    assert capsys.readouterr().err == ""


def test_bar_asked_for_names_the_steps(capsys):
    with Progress(True, 2, "refits") as bar:
        bar.advance(1, "1 singular")
        bar.advance()
        assert bar.bar.n == 2
        assert bar.bar.total == 2
    assert "refits" in capsys.readouterr().err


def test_bar_without_tqdm_is_silent(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Progress(True, 2, "refits") as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""


def test_bar_that_opens_late_knows_what_was_done_before(monkeypatch):
    """Else all of it would count as done in no time."""
    with Progress(None, 10, "refits") as bar:
        bar.advance(4)
        monkeypatch.setattr("mixform.progress.PATIENCE", 0.0)
        bar.advance()
        assert bar.bar.initial == 5
        bar.advance(2)
        assert bar.bar.n == 7


def test_search_reports_its_criterion():
    with SearchProgress(True) as bar:
        bar(1, 10.0, None)
        bar(3, 9.5, None)
        assert bar.progress.done == bar.progress.bar.n == 3
        assert bar.progress.bar.postfix == "criterion 9.500000"


def test_fit_with_a_bar_is_the_same_fit():
    data = mf.datasets.load("Dyestuff")
    quiet = mf.fit("Yield ~ 1 + (1|Batch)", data)
    assert mf.fit("Yield ~ 1 + (1|Batch)", data, progress=True).criterion == (
        quiet.criterion
    )
