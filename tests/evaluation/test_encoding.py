"""Token ids of examples, what is cut from long ones, and the rows of every step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spoton.errors import DataError
from spoton.evaluation.encoding import Encoded, encode, needs_end, unknown_in_labels
from spoton.evaluation.many_prompts import label_tokens
from spoton.models import FrozenModel
from spoton.tasks import Example
from spoton.tuning.row_order import rows_of_step
from tests.tiny import tiny


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("gpt2")  # 128 positions


def encoded(model: FrozenModel, *examples: Example, end: bool = False, **changes: object) -> Encoded:
    fields = {"prompt_length": 10, "max_input_tokens": 40} | changes
    return encode(model, examples, end=end, **fields)


def test_inputs_and_targets_as_the_model_sees_them(model: FrozenModel) -> None:
    found = encoded(model, Example("The film", "yes"), Example("A song", "no"), end=True)
    assert [model.decode(ids) for ids in found.inputs] == ["The film", "A song"]
    assert [model.decode(ids) for ids in found.targets] == ["yes", "no"]
    assert all(ids[-1] == model.end_token for ids in found.targets)
    assert found.truncated == 0 and len(found) == 2
    assert found.batch([1, 0]).inputs == found.inputs[::-1]


def test_a_long_input_loses_its_middle_and_is_counted(model: FrozenModel) -> None:
    text = "first" + " word" * 100_000 + " last\nVerdict:"
    whole = model.encode_input(text)
    found = encoded(model, Example(text, "yes"), Example("short", "no"))
    assert found.truncated == 1
    assert found.inputs[0] == whole[:30] + whole[-10:]  # three quarters from the beginning


def test_an_input_of_just_the_longest_length_is_kept(model: FrozenModel) -> None:
    text = "The film was cold. " * 4
    length = len(model.encode_input(text))
    assert encoded(model, Example(text, "yes"), max_input_tokens=length).truncated == 0
    assert encoded(model, Example(text, "yes"), max_input_tokens=length - 1).truncated == 1


def test_prompt_input_and_target_stay_within_the_positions(model: FrozenModel) -> None:
    found = encoded(
        model, Example("word " * 500, "yes"), prompt_length=50, max_input_tokens=512, labels=("no " * 20,)
    )
    target = len(model.encode_target("no " * 20, end=False))
    assert len(found.inputs[0]) == 128 - 50 - target  # room for the longest label, though no example has it


@pytest.mark.parametrize("labels", [None, ("yes", "no " * 200)])
def test_a_label_longer_than_the_context_is_refused(
    model: FrozenModel, labels: tuple[str, ...] | None
) -> None:
    target = "no " * 200 if labels is None else "yes"
    with pytest.raises(DataError, match=r"longest target has .* tokens.*128 positions.*Shorten"):
        encoded(model, Example("The film", target), labels=labels)


def test_an_empty_input_is_refused_by_number(model: FrozenModel) -> None:
    with pytest.raises(DataError, match="Example 2 has an empty input"):
        encoded(model, Example("The film", "yes"), Example("", "no"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, True),  # open targets have to stop somewhere
        (("yes", "no"), False),
        (("yes", "yes no"), True),
        (("yes no", "yes maybe"), False),
    ],
)
def test_targets_end_only_where_they_must(
    model: FrozenModel, labels: tuple[str, ...] | None, expected: bool
) -> None:
    assert needs_end(model, labels) is expected


def test_each_label_is_tokenized_twice_however_many_there_are(
    model: FrozenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, asked = FrozenModel.encode_target, Counter[str]()

    def counted(self: FrozenModel, text: str, *, end: bool) -> list[int]:
        asked[text] += 1
        return plain(self, text, end=end)

    monkeypatch.setattr(FrozenModel, "encode_target", counted)
    label_tokens(model, [f"label {n}" for n in range(50)])
    assert set(asked.values()) == {2}  # once to see whether they need an end, and once with it


@given(st.lists(st.sampled_from(["yes", "yes and no", "no", "no no", "maybe", "y"]), max_size=5))
def test_labels_need_an_end_if_any_begins_with_another(labels: list[str]) -> None:
    model = tiny("gpt2")
    ids = [model.encode_target(label, end=False) for label in labels]
    begins = [b[: len(a)] == a for i, a in enumerate(ids) for k, b in enumerate(ids) if i != k]
    assert needs_end(model, labels) is any(begins)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_every_epoch_shows_every_example_once(n_examples: int, batch_size: int, seed: int) -> None:
    steps = [rows_of_step(n_examples, batch_size, step, seed) for step in range(3 * n_examples)]
    assert all(len(rows) == batch_size for rows in steps)
    shown = [row for rows in steps for row in rows]
    for epoch in range(3):
        assert sorted(shown[epoch * n_examples : (epoch + 1) * n_examples]) == list(range(n_examples))
    assert max(Counter(shown).values()) - min(Counter(shown).values()) <= 1


def test_the_rows_of_a_step_follow_from_seed_and_step() -> None:
    late = rows_of_step(50, 8, 40, seed=3)
    for step in range(40):
        rows_of_step(50, 8, step, seed=3)
    assert rows_of_step(50, 8, 40, seed=3) == late
    assert rows_of_step(50, 8, 40, seed=4) != late
    assert rows_of_step(50, 25, 0, seed=3) != rows_of_step(50, 25, 2, seed=3)  # shuffled anew every epoch


def test_labels_with_equal_tokens_are_refused_and_unknown_ones_named() -> None:
    model = unigram_model()
    with pytest.raises(DataError, match=r"cannot tell the labels '不好' and '很好' apart"):
        encode(
            model,
            [Example("a text", "不好")],
            end=False,
            prompt_length=4,
            max_input_tokens=32,
            labels=["不好", "很好"],
        )
    assert unknown_in_labels(model, ["good", "很好"]) == ["很好"]
    assert unknown_in_labels(tiny("gpt2"), ["good", "很好"]) == []  # bytes know every character


def unigram_model() -> FrozenModel:
    """A model whose vocabulary has whole words and no bytes, as T5's."""
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("▁", -3.0),
        *((f"▁{word}", -2.0) for word in ("good", "bad", "a", "text")),
    ]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>", eos_token="</s>")
    return FrozenModel("tiny-unigram", tiny("llama").network, fast)
