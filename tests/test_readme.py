"""The README's example prints what the README shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language):
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_example_prints_the_output_shown():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block("python"), "README.md", "exec"), {})
    shown = [line for line in block("text").splitlines() if line.strip()]
    assert [line for line in out.getvalue().splitlines() if line.strip()] == shown


def test_longer_examples_run():
    import mixform as mf

    longer = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:]
    assert len(longer) == 5
    names = {"mf": mf}
    for text in longer:
        exec(compile(text, "README.md", "exec"), names)
        assert names["m"].converged


def test_every_attribute_in_the_table_exists():
    import mixform as mf

    table = README.split("**Results**")[1].split("**Estimation**")[0]
    names = set(re.findall(r"`m\.(\w+)", table))
    assert len(names) > 20
    assert all(hasattr(mf.Result, name) for name in names)
    assert all(hasattr(mf, name) for name in re.findall(r"`mf\.(\w+)", README))
