"""The public surface: which names `spoton` offers, and that importing it stays light."""

import subprocess
import sys

import pytest

import spoton

PUBLIC = {
    "PRESETS",
    "Card",
    "Example",
    "PromptLibrary",
    "Recipe",
    "SoftPrompt",
    "SpotonError",
    "Task",
    "__version__",
    "adapt",
    "diagnose",
    "evaluate",
    "list_models",
    "load_model",
    "load_task",
    "predict",
    "resolve_task",
    "retrieve",
    "similarity",
    "starter_library",
    "tune",
}
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "sklearn", "scipy", "pandas")


def test_the_surface_is_exactly_this() -> None:
    assert set(spoton.__all__) == PUBLIC
    assert set(dir(spoton)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(spoton, name)
    assert value is not None
    if callable(value):
        assert value.__doc__, f"spoton.{name} has no docstring"
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"spoton.*'adopt'"):
        spoton.adopt  # noqa: B018


@pytest.mark.parametrize("module", ["spoton", "spoton.cli.app"])
def test_importing_is_light(module: str) -> None:
    """Wall time would depend on the machine; the modules that cost it do not."""
    script = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
