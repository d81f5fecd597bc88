"""Foreign formats: the three prompts that the authors published, and files that only look like prompts."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from spoton.errors import PromptError
from spoton.exchange import import_npy, load_t5x
from spoton.prompts import SoftPrompt

REQUIRED = {"name": "sst2", "task": "sst2", "model": "t5-1.1-lm100k-base", "model_fingerprint": "f00d"}


def published(name: str) -> Path:
    """A prompt for T5 1.1 LM100K Base from google-research/prompt-tuning, below the folder $SPOTON_SHARED."""
    beside = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("SPOTON_SHARED", beside))
    path = folder / "prompts" / "t5_1_1_lm100k_base" / f"{name}.npy"
    if not path.exists():
        pytest.skip("the published T5X prompts are not here; set SPOTON_SHARED to the folder above prompts/")
    return path


@pytest.mark.parametrize(("name", "norm"), [("sst2", 1384.8), ("mrpc", 867.7), ("rte", 903.3)])
def test_published_prompts(name: str, norm: float, tmp_path: Path) -> None:
    path = published(name)
    value = load_t5x(path)
    assert value.shape == (100, 768) and value.dtype == torch.float32
    assert value.norm(dim=1).mean().item() == pytest.approx(norm, abs=0.05)
    prompt = import_npy(path, **REQUIRED, scores={"validation": {"accuracy": 95.07}})
    again = SoftPrompt.load(prompt.save(tmp_path / "imported.safetensors"))
    assert torch.equal(again.value, torch.from_numpy(np.load(path))) and again.key is None
    assert again.card.source == f"{name}.npy"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
def test_any_floating_point_array(tmp_path: Path, dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    np.save(tmp_path / "prompt.npy", array)
    assert load_t5x(tmp_path / "prompt.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    assert load_t5x(tmp_path / "fortran.npy").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.float32),
        np.zeros((1, 2, 3), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((2, 3), np.int32),
        np.zeros((2, 3), "V2"),
        np.full((2, 3), np.nan, np.float32),
    ],
)
def test_arrays_that_are_no_prompt(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(PromptError, match=r"array\.npy holds"):
        load_t5x(tmp_path / "array.npy")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(PromptError, match="damaged or not a NumPy array file"):
        load_t5x(tmp_path / "trap.npy")
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_missing_cut_or_foreign(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((2, 3), np.float32))
    content = (tmp_path / "whole.npy").read_bytes()
    for length in range(len(content)):
        (tmp_path / "cut.npy").write_bytes(content[:length])
        with pytest.raises(PromptError, match="damaged"):
            load_t5x(tmp_path / "cut.npy")
    (tmp_path / "huge.npy").write_bytes(content.replace(b"(2, 3), }" + b" " * 14, b"(20000000000, 30000), }"))
    np.savez(tmp_path / "several.npz", a=np.zeros(3))
    for name in ("huge.npy", "several.npz"):
        with pytest.raises(PromptError, match="damaged or not a NumPy array file"):
            load_t5x(tmp_path / name)
    with pytest.raises(PromptError, match="There is no file"):
        load_t5x(tmp_path / "missing.npy")
    with pytest.raises(PromptError, match="Cannot read"):
        load_t5x(tmp_path)


def test_a_card_that_cannot_be(tmp_path: Path) -> None:
    np.save(tmp_path / "prompt.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(
        PromptError, match=r"card's lables: there is no such field; did you mean labels\? Correct"
    ):
        import_npy(tmp_path / "prompt.npy", **REQUIRED, lables=["a"])
    with pytest.raises(PromptError, match="card's name: found ''; expected a text that is not empty"):
        import_npy(tmp_path / "prompt.npy", **{**REQUIRED, "name": ""})
