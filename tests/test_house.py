"""The house stays one that a newcomer can read: short modules and functions, one name a thing, unit tests, shapes.

Exceptions stand here with their reasons; one that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "spoton", ROOT / "tests"

LONGEST_MODULE, LONGEST_FUNCTION = 400, 60

LONG_FUNCTIONS = {
    "cli/adapt.py:adapt": "two thirds are the declarations of its options",
    "cli/evaluate.py:evaluate": "two thirds are the declarations of its options",
    "cli/predict.py:predict": "two thirds are the declarations of its options",
    "study/analysis/analysis_json.py:analysis_json": "one document, top to bottom in the order of its page",
    "transfer/adapt.py:adapt": "half is its docstring",
}
"""Functions that may be longer, and why."""

TESTED_IN = {
    # Commands are tested as a user runs them.
    "cli/data_options.py": "cli/test_tasks.py",
    "cli/doctor.py": "cli/test_tune.py",
    "cli/libraries.py": "cli/test_library.py",
    "cli/output.py": "cli/test_app.py",
    "cli/retrieve.py": "cli/test_evaluate.py",
    "cli/study_analysis.py": "cli/test_study.py",
    "cli/compared.py": "cli/test_adapt.py",
    # Formats and layers of one kind are tested against each other.
    "exchange/foreign.py": "exchange/test_formats.py",
    "exchange/matrix_files.py": "exchange/test_formats.py",
    "exchange/tgis.py": "exchange/test_formats.py",
    "hub_offline.py": "models/test_loading.py",
    "models/llama_layers.py": "models/test_packed_decoder.py",
    "prompts/prompt_header.py": "prompts/test_soft_prompt.py",
    # A server is tested over HTTP.
    "serving/*": "serving/test_http.py",
    "serving/page/*": "serving/test_page.py",
    # A report is tested as a whole, in a browser as well.
    "study/report/*": "study/report/test_write.py",
    "study/results/tables.py": "study/results/test_import_results.py",
    "study/plan/machine.py": "study/run/test_executors.py",
    "study/run/result.py": "study/run/test_scheduler.py",
    "tasks/archives.py": "tasks/test_catalog.py",
    # A store gives the task that a small file gives, which is what its tests compare.
    "tasks/stored/*": "tasks/stored/test_load.py",
    "tasks/tabular.py": "tasks/test_files.py",
    "tasks/template_limits.py": "faults/test_hostile.py",
    # Methods of transfer are tested side by side.
    "transfer/arms.py": "transfer/test_adapt_methods.py",
    "transfer/combining/*": "transfer/combining/test_methods.py",
    "transfer/document.py": "transfer/test_adapt.py",
    "transfer/sources.py": "transfer/ranking/test_similarity_ranking.py",
    # The loop is tested through what it tunes: a prompt, or all weights.
    "tuning/full_model/checkpoint.py": "tuning/full_model/test_tune.py",
    "tuning/full_model/weights.py": "tuning/full_model/test_tune.py",
    "tuning/row_order.py": "tuning/full_model/test_tune.py",
}
"""Where modules are tested that have neither a test module of their name nor one in their folder that imports them."""


def modules() -> list[str]:
    return sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


def long_functions() -> set[str]:
    found = set()
    for module in modules():
        for node in ast.walk(ast.parse((SOURCE / module).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                    found.add(f"{module}:{node.name}")
    return found


@cache
def imported(path: Path) -> set[str]:
    """Modules that a file names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def has_unit_tests(module: str) -> bool:
    folder = (TESTS / module).parent
    if (folder / f"test_{Path(module).name}").is_file():
        return True
    dotted = "spoton." + module.removesuffix(".py").replace("/", ".")
    return any(dotted in imported(path) for path in folder.glob("test_*.py"))


def test_modules_are_short() -> None:
    lengths = {module: len((SOURCE / module).read_text().splitlines()) for module in modules()}
    assert {module: n for module, n in lengths.items() if n > LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    assert long_functions() == LONG_FUNCTIONS.keys()


def types_of(module: str) -> list[str]:
    """Returns the classes and type aliases that a module defines, which are its names in CamelCase."""
    found = []
    for node in ast.parse((SOURCE / module).read_text()).body:
        match node:
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.append(name)
    return [name for name in found if any(c.islower() for c in name) and name.lstrip("_")[0].isupper()]


def test_no_two_types_share_a_name() -> None:
    """Except in the command line, where the type of an option is named after the value that it sets."""
    places = defaultdict(set)
    for module in modules():
        if not module.startswith("cli/"):
            for name in types_of(module):
                places[name].add(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_module_has_unit_tests() -> None:
    bare = [
        m for m in modules() if Path(m).name not in ("__init__.py", "__main__.py") and not has_unit_tests(m)
    ]
    assert [m for m in bare if not any(fnmatch(m, pattern) for pattern in TESTED_IN)] == []
    needless = [pattern for pattern in TESTED_IN if not any(fnmatch(m, pattern) for m in bare)]
    assert needless == []
    assert [test for test in TESTED_IN.values() if not (TESTS / test).is_file()] == []


def without_shapes(parent: ast.Module | ast.ClassDef, names: str = "") -> list[str]:
    """Public functions whose annotations have a tensor and whose docstrings have no shape, such as `[P, D]`."""
    bare = []
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name[0] == "_":
            continue
        if isinstance(node, ast.ClassDef):
            bare += without_shapes(node, f"{names}{node.name}.")
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        annotations = [argument.annotation for argument in arguments] + [node.returns]
        text = " ".join(ast.unparse(annotation) for annotation in annotations if annotation)
        if re.search(r"Tensor|NDArray|ndarray", text) and "[" not in (ast.get_docstring(node) or ""):
            bare.append(names + node.name)
    return bare


def test_functions_of_tensors_say_their_shapes() -> None:
    trees = {module: ast.parse((SOURCE / module).read_text()) for module in modules()}
    assert {module: bare for module, tree in trees.items() if (bare := without_shapes(tree))} == {}


@pytest.mark.parametrize("run", [1, 2])
def test_what_draws_without_a_seed_draws_the_same_in_every_test(run: int) -> None:
    """As networks do that transformers initialises: a suite is not to pass or fail by chance, see `conftest.py`."""
    expected = random.Random(0).random(), np.random.RandomState(0).rand()
    assert (random.random(), np.random.rand()) == expected
    assert torch.rand(1).equal(torch.rand(1, generator=torch.Generator().manual_seed(0)))
