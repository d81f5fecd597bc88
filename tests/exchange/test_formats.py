"""The small formats: T5X arrays, OpenPrompt's state dicts, TGIS stores; and files that only pretend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spoton.errors import PromptError
from spoton.exchange import export_prompts, read_foreign
from spoton.exchange.openprompt import read_openprompt
from tests.exchange.conftest import prompt_of
from tests.tiny import draw, tiny


class SoftTemplate(torch.nn.Module):
    """The tensors of OpenPrompt's class of that name: the model's embedding matrix and the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.raw_embedding = torch.nn.Embedding(20, 8)
        self.soft_embeds = torch.nn.Parameter(draw(5, 8))


def test_t5x_writes_what_numpy_reads_under_any_name(tmp_path: Path) -> None:
    prompt = prompt_of(tiny("t5"))
    for name in ("prompt.npy", "encoder.prompt.prompt.prompt"):
        (path,) = export_prompts([prompt], "t5x", tmp_path / name).paths
        assert path == tmp_path / name
        array = np.load(path, allow_pickle=False)
        assert array.dtype == np.float32 and np.array_equal(array, prompt.value.numpy())
        assert torch.equal(read_foreign(path, "t5x").value, prompt.value)


def test_openprompt_reads_and_writes_a_templates_state(tmp_path: Path) -> None:
    template = SoftTemplate()
    torch.save(template.state_dict(), tmp_path / "template.pt")
    torch.save({"epoch": 3, "state_dict": {"template": template.state_dict()}}, tmp_path / "runner.ckpt")
    torch.save(template.soft_embeds.detach(), tmp_path / "bare.pt")
    for name in ("template.pt", "runner.ckpt", "bare.pt"):
        assert torch.equal(read_foreign(tmp_path / name, "openprompt").value, template.soft_embeds), name
    prompt = prompt_of(tiny("llama"), length=5)
    (path,) = export_prompts([prompt], "openprompt", tmp_path / "out.pt").paths
    state = torch.load(path, weights_only=True)
    assert state.keys() == {"soft_embeds"} and torch.equal(state["soft_embeds"], prompt.value)
    assert torch.equal(read_foreign(path, "openprompt").value, prompt.value)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"soft_embeds": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(PromptError, match="could run code"):
        read_openprompt(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_states_without_one_prompt(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}, tmp_path / "two.pt")
    with pytest.raises(PromptError, match="2 matrices"):
        read_openprompt(tmp_path / "two.pt")
    both = {"a.soft_embeds": torch.zeros(2, 3), "b.soft_embeds": torch.zeros(2, 3)}
    torch.save(both, tmp_path / "both.pt")
    with pytest.raises(PromptError, match="2 prompts"):
        read_openprompt(tmp_path / "both.pt")
    torch.save({"soft_embeds": torch.full((2, 3), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(PromptError, match="not finite"):
        read_openprompt(tmp_path / "nan.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "two.pt").read_bytes()[:100])
    with pytest.raises(PromptError, match="damaged"):
        read_openprompt(tmp_path / "cut.pt")


@pytest.mark.parametrize(("family", "file"), [("llama", "decoder.pt"), ("t5", "encoder.pt")])
def test_tgis_has_a_plain_tensor_in_the_right_file(family: str, file: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prompt_of(model)
    (path,) = export_prompts([prompt], "tgis", tmp_path / "store" / "toy", model=model).paths
    assert [entry.name for entry in path.parent.iterdir()] == [file]
    tensor = torch.load(path, weights_only=True)
    assert type(tensor) is torch.Tensor and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert torch.equal(tensor, prompt.value) and tensor.untyped_storage().nbytes() == tensor.nbytes
    assert torch.equal(read_foreign(path.parent, "tgis").value, prompt.value)


def test_tgis_refuses_ids_and_folders_that_it_has_no_use_for(tmp_path: Path) -> None:
    model = tiny("llama")
    with pytest.raises(PromptError, match="cannot be a prompt id"):
        export_prompts([prompt_of(model)], "tgis", tmp_path / "my prompt", model=model)
    with pytest.raises(PromptError, match=r"neither encoder\.pt nor decoder\.pt"):
        read_foreign(tmp_path, "tgis")
    for name in ("encoder.pt", "decoder.pt"):
        torch.save(torch.zeros(2, 3), tmp_path / name)
    with pytest.raises(PromptError, match="expected one of the two"):
        read_foreign(tmp_path, "tgis")


def test_several_prompts_become_a_folder(tmp_path: Path) -> None:
    model = tiny("llama")
    prompts = [prompt_of(model), prompt_of(model, name="second", seed=2)]
    exported = export_prompts(prompts, "t5x", tmp_path / "out")
    assert exported.paths == [tmp_path / "out" / "toy.npy", tmp_path / "out" / "second.npy"]
    assert all(path.is_file() for path in exported.paths)
    with pytest.raises(PromptError, match="have one name"):
        export_prompts([prompts[0], prompts[0]], "t5x", tmp_path / "twice")


def test_what_an_export_needs_is_asked_for(tmp_path: Path) -> None:
    model = tiny("llama")
    with pytest.raises(PromptError, match="needs the frozen model"):
        export_prompts([prompt_of(model)], "peft", tmp_path / "out")
    with pytest.raises(PromptError, match="needs a text"):
        export_prompts([prompt_of(model)], "vllm", tmp_path / "out", model=model)
    with pytest.raises(PromptError, match="no format 'trtllm'"):
        export_prompts([prompt_of(model)], "trtllm", tmp_path / "out", model=model)  # type: ignore[arg-type]


def test_a_card_needs_its_four_fields(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((2, 3), np.float32))
    foreign = read_foreign(tmp_path / "p.npy", "t5x")
    with pytest.raises(PromptError, match="does not say the card's name"):
        foreign.to_prompt()
