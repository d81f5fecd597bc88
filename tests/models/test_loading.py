"""Loading: folders, names nobody knows, damage of every kind, and the types that weights are held in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from spoton.errors import ModelError
from spoton.models import load_model, parameters_of
from spoton.models.frozen import FrozenModel
from tests.tiny import config, tiny


def saved(family: str, folder: Path) -> Path:
    model = tiny(family)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on disk, `llama` and `t5`."""
    root = tmp_path_factory.mktemp("models")
    for family in ("llama", "t5"):
        saved(family, root / family)
    return root


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(folders / "llama", tmp_path / "copy"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub: huggingface_hub reads its environment at import, so its constants are set as well."""
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_hub_whose_host_has_no_address_is_not_asked_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    def unknown(host: str, *arguments: object) -> None:
        raise OSError(f"{host} is unknown")

    offline: list[bool] = []

    def from_pretrained(*arguments: object, **options: object) -> None:
        offline.append(constants.HF_HUB_OFFLINE)
        raise OSError("not cached")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("spoton.hub_offline.getproxies", dict)
    monkeypatch.setattr("spoton.models.loading.AutoConfig.from_pretrained", from_pretrained)
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(ModelError, match="not cached"):
        load_model("nobody/nothing")
    assert offline == [True]
    assert constants.HF_HUB_OFFLINE == before


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_folder_gives_back_the_model_that_was_saved(folders: Path, family: str) -> None:
    said: list[str] = []
    model = load_model(str(folders / family), dtype="float32", on_message=said.append)
    original = tiny(family)
    assert model.fingerprint == original.fingerprint
    assert model.encode_input("The film was dull.") == original.encode_input("The film was dull.")
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert "float32 on cpu" in said[-1]  # the choice is said


def test_bfloat16_has_the_same_fingerprint(folders: Path) -> None:
    model = load_model(str(folders / "llama"), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.fingerprint == tiny("llama").fingerprint


def test_auto_is_a_type_that_the_processor_computes_in(folders: Path) -> None:
    assert load_model(str(folders / "llama")).dtype in {torch.float32, torch.bfloat16}


def test_an_unknown_type_names_those_there_are(folders: Path) -> None:
    with pytest.raises(ModelError, match=r"'int3'.*auto, float32, bfloat16, float16"):
        load_model(str(folders / "llama"), dtype="int3")


def test_t5_in_float16_is_refused(folders: Path) -> None:
    with pytest.raises(ModelError, match=r"overflows in float16.*bfloat16 or float32"):
        load_model(str(folders / "t5"), dtype="float16")
    assert load_model(str(folders / "llama"), dtype="float16").dtype == torch.float16


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["no/such-model", "/no/such/folder", "./missing.gguf"])
def test_a_name_that_is_nothing_here_says_what_to_give(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    message = str(caught.value)
    assert name in message and "smollm2-135m" in message and "folder" in message
    assert "\n" not in message


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"could not be read as a model.*config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64])
def test_a_damaged_folder_is_refused_by_name(copy: Path, file: str, content: bytes) -> None:
    (copy / file).write_bytes(content)
    with pytest.raises(ModelError, match="could not be read as a model") as caught:
        load_model(str(copy))
    assert str(copy) in str(caught.value)


def test_weights_cut_short_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="could not be read as a model"):
        load_model(str(copy))


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 96, "head_dim": 16}))
    with pytest.raises(ModelError, match="could not be read as a model"):
        load_model(str(copy))


@pytest.mark.parametrize("content", [b"", b"not a gguf file", b"GGUF\x03\x00\x00\x00" + b"\xff" * 40])
def test_a_file_that_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.gguf could not be read as a model"):
        load_model(str(file))


def test_a_model_is_frozen_whatever_it_was(folders: Path) -> None:
    model = load_model(str(folders / "llama"))
    assert isinstance(model, FrozenModel) and not model.network.training


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no device 'foo'; there is: auto, cpu"):
        load_model(str(tmp_path), device="foo")


def test_parameters_follow_from_the_configuration() -> None:
    for family in ("llama", "gpt2", "t5"):
        assert parameters_of(config(family)) == tiny(family).network.num_parameters()
    # GPT-2 small, as published; T5 v1.1's output matrix counts, though transformers ties it without a checkpoint.
    assert parameters_of(transformers.GPT2Config()) == 124_439_808
    assert parameters_of(config("t5_v1_1")) == tiny("t5_v1_1").network.num_parameters()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_what_is_there_is_never_looked_for_on_the_hub(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="neither a folder nor a file"):
        load_model(str(tmp_path / "pipe"))


def test_a_folder_may_be_a_path_and_its_name_is_text(folders: Path) -> None:
    """Cards hold the name, and refused a path only after the tuning."""
    assert load_model(folders / "llama").name == str(folders / "llama")
