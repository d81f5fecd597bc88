"""The soft prompt: bit-exact files, and no damaged, foreign or wrongly shaped one accepted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spoton.errors import PromptError, SpotonError
from spoton.prompts import Card, SoftPrompt, resize_prompt
from spoton.prompts.soft_prompt import read_header

GOLDEN = Path(__file__).parent / "prompt-1.safetensors"

floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
matrices = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=floats)


def same(one: SoftPrompt, other: SoftPrompt) -> bool:
    """Equal in every bit, so that 0.0 and -0.0 differ."""
    return one.card == other.card and one.to_bytes() == other.to_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@settings(deadline=None)
@given(value=matrices, has_key=st.booleans(), notes=st.text())
def test_round_trip_is_bit_exact(
    folder: Path, card: Card, value: np.ndarray, has_key: bool, notes: str
) -> None:
    key = torch.from_numpy(value[::-1].copy()) if has_key else None
    before = SoftPrompt(torch.from_numpy(value), card.model_copy(update={"notes": notes}), key)
    after = SoftPrompt.load(before.save(folder / "any.safetensors"))
    assert after.value.numpy().tobytes() == value.tobytes()
    assert (after.key is not None) == has_key
    assert same(before, after)


def test_halves_take_half_the_space_and_lose_nothing_more(folder: Path, prompt: SoftPrompt) -> None:
    half = prompt.halved()
    assert torch.equal(half.value, prompt.value.half().float()) and half.card == prompt.card
    numbers = sum(tensor.numel() for tensor in prompt._tensors().values())
    assert len(prompt.to_bytes()) - len(half.to_bytes()) == pytest.approx(2 * numbers, abs=16)
    after = SoftPrompt.load(half.save(folder / "half.safetensors"))
    assert same(after, half) and after.value.dtype == torch.float32
    assert after.content_hash() == half.content_hash() != prompt.content_hash()
    assert read_header(folder / "half.safetensors").length == prompt.length


def test_numbers_beyond_float16_stay_as_they_are(prompt: SoftPrompt) -> None:
    with pytest.raises(PromptError, match=r"beyond 65,504 in value"):
        SoftPrompt(prompt.value * 1e9, prompt.card).halved()


def test_saving_twice_gives_the_same_bytes(prompt: SoftPrompt) -> None:
    assert len({prompt.to_bytes() for _ in range(20)}) == 1


def test_files_of_the_first_format_stay_readable(prompt: SoftPrompt) -> None:
    golden = SoftPrompt.load(GOLDEN)
    assert golden.card == prompt.card
    assert torch.equal(golden.value, prompt.value)
    assert golden.content_hash() == prompt.content_hash() == "5aa4b5a55fdf5681"


def test_header_says_what_the_file_holds(folder: Path, prompt: SoftPrompt) -> None:
    header = read_header(prompt.save(folder / "any.safetensors"))
    assert (header.card, header.length, header.dim, header.has_key) == (prompt.card, 4, 3, True)


def test_prompt_is_a_float32_copy(card: Card) -> None:
    tensor = torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    prompt = SoftPrompt(tensor.T, card)
    with torch.no_grad():
        tensor.zero_()
    assert prompt.value.dtype == torch.float32 and prompt.value.is_contiguous()
    assert not prompt.value.requires_grad and prompt.value.min() == 1
    assert (prompt.length, prompt.dim) == (3, 2)


def test_content_hash_is_of_the_tensors_alone(prompt: SoftPrompt, card: Card) -> None:
    value, key = prompt.value, prompt.key
    other_card = SoftPrompt(value, card.model_copy(update={"name": "other"}), key)
    assert other_card.content_hash() == prompt.content_hash()
    others = [SoftPrompt(value, card), SoftPrompt(value.T, card), SoftPrompt(value + 1e-6, card, key)]
    assert len({prompt.content_hash(), *(other.content_hash() for other in others)}) == 4


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3),
        torch.zeros(2, 2, 3),
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.zeros(2, 3, dtype=torch.int64),
        torch.full((2, 3), torch.nan),
        torch.full((2, 3), 1e300, dtype=torch.float64),
    ],
)
def test_values_that_are_no_prompt(value: torch.Tensor, card: Card) -> None:
    with pytest.raises(PromptError, match="value"):
        SoftPrompt(value, card)
    with pytest.raises(PromptError, match="key"):
        SoftPrompt(torch.zeros(2, 3), card, value)


def test_key_of_another_dimension(card: Card) -> None:
    with pytest.raises(PromptError, match="dimension 5 and the value 3"):
        SoftPrompt(torch.zeros(2, 3), card, torch.zeros(2, 5))


def test_wrong_model_names_both(prompt: SoftPrompt) -> None:
    prompt.require_model("f00d", "the same under another name")
    with pytest.raises(PromptError, match=r"tiny-llama .*f00d.* is big-qwen .*beef.* Use tiny-llama, or"):
        prompt.require_model("beef", "big-qwen")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_byte_is_noticed(folder: Path, prompt: SoftPrompt, data: st.DataObject) -> None:
    content = bytearray(prompt.to_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = folder / "changed.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)  # need not notice, but must not fail in any other way
        loaded = SoftPrompt.load(path)
    except PromptError as error:
        assert str(path) in str(error)
    else:
        assert same(loaded, prompt)  # white space in the header may differ


def test_a_truncated_file_is_noticed_at_every_length(folder: Path, prompt: SoftPrompt) -> None:
    content = prompt.to_bytes()
    path = folder / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(PromptError, match=r"cut\.safetensors is damaged"):
            read_header(path)
        with pytest.raises(PromptError, match=r"cut\.safetensors is damaged"):
            SoftPrompt.load(path)


def foreign(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    return path


def test_files_that_are_no_prompts(folder: Path) -> None:
    text = folder / "notes.txt"
    text.write_text("not a prompt at all, but long enough to have a header\n")
    adapter = foreign(folder / "adapter.safetensors", {"prompt_embeddings": torch.zeros(2, 3)})
    not_json = foreign(folder / "not-json.safetensors", {"value": torch.zeros(2, 3)}, {"spoton": "{"})
    not_object = foreign(folder / "list.safetensors", {"value": torch.zeros(2, 3)}, {"spoton": "[1]"})
    later = foreign(
        folder / "later.safetensors",
        {"value": torch.zeros(2, 3)},
        {"spoton": '{"format": "spoton-prompt-9"}'},
    )
    for path, reason in [
        (folder / "missing.safetensors", "There is no prompt file"),
        (folder, "it is a folder"),
        (text, "damaged or not a prompt file"),
        (adapter, "without a card"),
        (not_json, "its card is not JSON"),
        (not_object, "has format"),
        (later, "'spoton-prompt-9'; expected 'spoton-prompt-1'. Upgrade spoton"),
    ]:
        for read in (SoftPrompt.load, read_header):
            with pytest.raises(PromptError, match=reason) as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"key": torch.zeros(2, 3)}, "expected value"),
        ({"value": torch.zeros(2, 3), "bias": torch.zeros(1)}, "'bias'"),
        ({"value": torch.zeros(3)}, r"expected \[P, D\]"),
        ({"value": torch.zeros(0, 3)}, r"expected \[P, D\]"),
        ({"value": torch.zeros(2, 3), "key": torch.zeros(2, 4)}, "with one D"),
        ({"value": torch.zeros(2, 3, dtype=torch.bfloat16)}, "neither float32 nor float16"),
    ],
)
def test_wrong_tensors_under_a_right_card(
    folder: Path, prompt: SoftPrompt, tensors: dict[str, torch.Tensor], reason: str
) -> None:
    with safetensors.safe_open(prompt.save(folder / "right.safetensors"), "pt") as file:
        metadata = file.metadata()
    path = foreign(folder / "wrong.safetensors", tensors, metadata)
    with pytest.raises(PromptError, match=reason):
        read_header(path)
    with pytest.raises(PromptError, match=reason):
        SoftPrompt.load(path)


def test_a_card_with_unknown_fields_names_them(folder: Path) -> None:
    record = '{"format": "spoton-prompt-1", "card": {"name": "a", "task": "b", "model": "c", %s}}'
    for fields, named in [
        ('"model_fingerprint": "d", "flavour": 1', r"used: flavour: there is no such field\. Upgrade"),
        ('"seed": 1', "model_finger"),
    ]:
        path = foreign(folder / "card.safetensors", {"value": torch.zeros(2, 3)}, {"spoton": record % fields})
        with pytest.raises(PromptError, match=named):
            read_header(path)


def test_full_disk_while_saving_keeps_the_old_prompt(tmp_path: Path, prompt: SoftPrompt) -> None:
    path = prompt.save(tmp_path / "old.safetensors")
    code = """
import resource, sys, torch
from spoton.errors import SpotonError
from spoton.prompts import SoftPrompt
old = SoftPrompt.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    SoftPrompt(torch.zeros(100, 576), old.card).save(sys.argv[1])
except SpotonError as error:
    print(error)
"""
    writer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120)
    assert "Free some space" in writer.stdout, writer.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert same(SoftPrompt.load(path), prompt)


def test_saving_where_no_folder_can_be(tmp_path: Path, prompt: SoftPrompt) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpotonError, match="Cannot write"):
        prompt.save(tmp_path / "file" / "prompt.safetensors")


@settings(deadline=None)
@given(value=matrices, length=st.integers(1, 20))
def test_resize_keeps_rows_in_order(value: np.ndarray, length: int) -> None:
    resized = resize_prompt(torch.from_numpy(value), length)
    assert resized.shape == (length, value.shape[1])
    for place in range(length):
        assert torch.equal(resized[place], torch.from_numpy(value[place % len(value)]))


def test_resize_copies_passes_gradients_and_refuses_nothing() -> None:
    value = torch.ones(2, 3, requires_grad=True)
    resized = resize_prompt(value, 5)
    resized.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[3.0] * 3, [2.0] * 3]
    assert resize_prompt(value, 2).data_ptr() != value.data_ptr()
    with pytest.raises(PromptError, match="at least 1"):
        resize_prompt(value, 0)
