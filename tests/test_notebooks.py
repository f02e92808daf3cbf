"""Every notebook runs from top to bottom and shows what it computes."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
FIGURE = "image/png"
#: pandas' own settings, which a notebook may change for itself.
SHOWN = ("display.width", 80, "display.precision", 6)


def cells_of(path, kind):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def fenced(path, language):
    """Return the lines of the code blocks of one language in the text."""
    blocks = []
    for cell in cells_of(path, "markdown"):
        inside = False
        for line in "".join(cell["source"]).split("\n"):
            if line.startswith("```"):
                inside = line == f"```{language}"
            elif inside:
                blocks.append(line)
    return blocks


def pop_figures(text):
    """Return how many figures are open, and close them."""
    if "matplotlib" not in text:
        return 0
    from matplotlib import pyplot

    count = len(pyplot.get_fignums())
    pyplot.close("all")
    return count


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_it_computes(path):
    text = path.read_text(encoding="utf-8")
    if "matplotlib" in text:
        pytest.importorskip("matplotlib").use("Agg")
        pop_figures(text)  # of a notebook that failed
    names: dict[str, object] = {}
    with np.printoptions(), pd.option_context(*SHOWN):
        for cell in cells_of(path, "code"):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("".join(cell["source"]), path.name, "exec"), names)
            shown = "".join("".join(o.get("text", [])) for o in cell["outputs"])
            assert out.getvalue() == shown
            figures = sum(FIGURE in o.get("data", {}) for o in cell["outputs"])
            assert pop_figures(text) == figures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_and_ends_in_assertions(path):
    assert path.stat().st_size < 200_000
    assert "assert" in "".join(cells_of(path, "code")[-1]["source"])


def test_output_of_r_is_what_r_printed():
    path = HERE.parent / "notebooks" / "02_from_lme4_to_mixform.ipynb"
    raw = (HERE / "references" / "notebook_lme4.txt").read_text(encoding="utf-8")
    printed = {line.rstrip() for line in raw.split("\n")}
    shown = [line for line in fenced(path, "r") if not line.startswith(("> ", "+ "))]
    assert len(shown) > 100
    assert set(shown) <= printed
