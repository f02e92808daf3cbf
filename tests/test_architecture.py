"""The layers import downwards only; files and functions stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mixform"
FILES = sorted(ROOT.rglob("*.py"))

#: Lowest first; a module imports only from its own package and from lines above.
LAYERS = [
    {"errors", "_typing", "_version", "_jit"},
    {"progress", "priors"},
    {"datasets"},
    {"formula"},
    {"design"},
    {"relationship"},
    {"covariance"},
    {"residual"},
    {"mme"},
    {"estimate"},
    {"inference"},
    {"report"},
    {"call"},
    {"storage", "lme4"},
    {"result"},
    {"api", "linear"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

#: Imports inside functions, each of something heavy that most sessions do not need.
LAZY = {
    "progress.py": {"tqdm"},
    "estimate/bayes/density.py": {"mixform.estimate.bayes"},
    "estimate/bayes/nuts.py": {"arviz", "nutpie"},
    "inference/means/adjustment.py": {"statsmodels.stats.multitest"},
    "inference/posterior/inference_data.py": {"arviz"},
    "inference/resampling/replication.py": {"joblib"},
    "mme/backends.py": {"mixform.mme.sparse", "threadpoolctl"},
    "relationship/pedigree.py": {"mixform.relationship"},
    "report/plots.py": {"matplotlib"},
    "report/layout.py": {"statsmodels.iolib.table"},
    "result/bayes.py": {"mixform.result"},
    "result/result.py": {"mixform.result"},
}

#: Kernels compiled by numba may be longer than a screen: one loop nest each, which
#: splitting would slow down or hide.
LONG_KERNELS = {
    "add_traces",
    "build_tree",
    "factor_panels",
    "invert_panels",
    "merge_supernodes",
    "order_by_minimum_degree",
    "place_rows",
    "place_updates",
}


def name_of(path):
    return str(path.relative_to(ROOT))


def layer_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def is_type_checking(node):
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports_of(tree):
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        if is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_imports_only_from_lower_layers(path):
    own = layer_of(path)
    for _, module in imports_of(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] != "mixform" or len(parts) < 2 or parts[1] not in RANK:
            continue
        if parts[1] != own:
            assert RANK[parts[1]] < RANK[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stand_at_the_top_except_heavy_ones(path):
    tree = ast.parse(path.read_text())
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    inside = {module for f in functions for _, module in imports_of(f)}
    allowed = LAZY.get(name_of(path), set())
    extra = {m for m in inside if not any(m.startswith(ok) for ok in allowed)}
    assert not extra


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_has_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_function_has_at_most_60_lines(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG_KERNELS:
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_public_names_are_few_and_exist():
    import mixform as mf

    # 20 for models, and what breeders bring: relationships and matrix-level equations;
    # 4 for the course: gls, estimable, lm_list, priors.
    assert len(mf.__all__) <= 30
    for name in mf.__all__:
        assert getattr(mf, name).__doc__


def test_small_model_needs_neither_numba_nor_statsmodels():
    import subprocess
    import sys

    program = (
        "import sys, mixform as mf;"
        "mf.fit('Yield ~ 1 + (1|Batch)', mf.datasets.load('Dyestuff')).pvalues;"
        "print([m for m in ('numba', 'statsmodels', 'matplotlib', 'nutpie', 'arviz')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
