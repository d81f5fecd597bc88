"""The packed engine against the naive formula: losses, prompt gradients and label scores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.packed_decoder import PackedEngine
from tests.models.naive import (
    INPUTS,
    assert_equal_gradients,
    assert_equal_losses,
    naive_loss,
    naive_losses,
    ragged,
)
from tests.tiny import VOCABULARY, WIDTH, draw, tiny, with_biases

PACKED = (
    "llama", "smollm3", "olmo2", "granite", "gpt2", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi", "phi3",
    "gpt_neox", "opt",
)  # fmt: skip
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
LABELS = [[30], [31, 32], [33, 34, 35]]


def gradients_of(losses: Tensor, prompts: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(losses.sum(), prompts))


@pytest.mark.parametrize("family", PACKED)
def test_losses_and_gradient_equal_the_naive_formula(family: str) -> None:
    model = tiny(family)
    engine = engine_for(model)
    assert engine.name == "packed"
    value = draw(5, WIDTH).requires_grad_()
    found, expected = engine.losses(value[None], ragged()), naive_losses(model, [value], ragged())
    assert found.shape == (4,) and found.dtype == torch.float32
    assert_equal_losses(found, expected)
    assert_equal_gradients(gradients_of(found, [value])[0], gradients_of(expected, [value])[0])


@pytest.mark.parametrize("family", PACKED)
def test_layers_run_by_hand_where_they_are_known(family: str) -> None:
    engine = engine_for(tiny(family))
    assert isinstance(engine, PackedEngine) and engine.by_hand == (family in LLAMA_LIKE)


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_layers_by_hand_with_biases_and_scales(family: str) -> None:
    model, value = with_biases(family), draw(5, WIDTH).requires_grad_()
    engine = engine_for(model)
    assert isinstance(engine, PackedEngine) and engine.by_hand
    found, expected = engine.losses(value[None], ragged()), naive_losses(model, [value], ragged())
    assert_equal_losses(found, expected)
    assert_equal_gradients(gradients_of(found, [value])[0], gradients_of(expected, [value])[0])


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_what_hangs_on_a_layer_is_not_passed_by(family: str) -> None:
    model, value, seen = tiny(family), draw(3, WIDTH), []
    model.network.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append("called"))
    engine = engine_for(model)
    assert isinstance(engine, PackedEngine) and not engine.by_hand
    assert_equal_losses(engine.losses(value[None], ragged()), naive_losses(model, [value], ragged()))
    assert seen


def test_layers_that_only_claim_to_be_like_llama_run_as_they_are() -> None:
    """The check at load compares numbers: here the residual sum of a layer is another one."""
    model, value = tiny("llama"), draw(3, WIDTH)
    layer = model.network.model.layers[0]
    plain = layer.forward
    layer.forward = lambda *args, **options: 0.5 * plain(*args, **options)
    engine = engine_for(model)
    assert isinstance(engine, PackedEngine) and not engine.by_hand
    assert_equal_losses(engine.losses(value[None], ragged()), naive_losses(model, [value], ragged()))


@pytest.mark.parametrize("family", PACKED)
def test_two_prompts_of_unlike_lengths_in_one_batch(family: str) -> None:
    model = tiny(family)
    prompts = [draw(5, WIDTH).requires_grad_(), draw(2, WIDTH, seed=1).requires_grad_()]
    batch = ragged([0, 1, 1, 0])
    found, expected = engine_for(model).losses(prompts, batch), naive_losses(model, prompts, batch)
    assert_equal_losses(found, expected)
    pairs = zip(gradients_of(found, prompts), gradients_of(expected, prompts), strict=True)
    for ours, theirs in pairs:
        assert_equal_gradients(ours, theirs)


@pytest.mark.parametrize("family", PACKED)
def test_no_prompt_is_the_bare_model(family: str) -> None:
    model, nothing = tiny(family), torch.zeros(0, WIDTH)
    assert_equal_losses(
        engine_for(model).losses(nothing[None], ragged()), naive_losses(model, [nothing], ragged())
    )


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("family", PACKED)
def test_label_scores_equal_one_loss_at_a_time(family: str, length: int) -> None:
    model, value = tiny(family), draw(length, WIDTH)
    scores = engine_for(model).scorer(value[None])(ragged(), LABELS)
    expected = [[-naive_loss(model, value, text, label) for label in LABELS] for text in INPUTS]
    assert scores.shape == (4, 3)
    assert_equal_losses(scores, torch.tensor(expected))


def test_label_scores_of_two_prompts_of_unlike_lengths() -> None:
    model, prompts = tiny("llama"), [draw(5, WIDTH), draw(2, WIDTH, seed=1)]
    batch = ragged([1, 0, 1, 0])
    scores = engine_for(model).scorer(prompts)(batch, LABELS)
    rows = zip(batch.inputs, batch.rows, strict=True)
    expected = [[-naive_loss(model, prompts[row], text, label) for label in LABELS] for text, row in rows]
    assert_equal_losses(scores, torch.tensor(expected))


def test_one_scorer_serves_many_batches() -> None:
    model, value = tiny("llama"), draw(4, WIDTH)
    score = engine_for(model).scorer(value[None])
    together = score(ragged(), LABELS)
    for row, text in enumerate(INPUTS):
        assert_equal_losses(score(Batch([text], [[]]), LABELS)[0], together[row])


def _is_packed(model: FrozenModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every packed forward pass of `model`."""
    passes: list[str] = []
    packed = PackedEngine._run

    def noted(self: PackedEngine, *args: object, **options: object) -> object:
        """The real pass."""
        passes.append("packed")
        return packed(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedEngine, "_run", noted)
    return passes


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 8}),
        ("gemma3", {"sliding_window": 8}),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}),
    ],
)
def test_rows_beyond_the_sliding_window_are_concatenated(
    family: str, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, value = tiny(family, **changes), draw(6, WIDTH).requires_grad_()
    engine = engine_for(model)
    passes = _is_packed(model, monkeypatch)
    found, expected = engine.losses(value[None], ragged()), naive_losses(model, [value], ragged())
    assert not passes  # the longest row has 6 + 6 tokens
    assert_equal_losses(found, expected)
    assert_equal_gradients(gradients_of(found, [value])[0], gradients_of(expected, [value])[0])
    scores = engine.scorer(value.detach()[None])(ragged(), LABELS)
    with torch.no_grad():
        one_by_one = [[-naive_loss(model, value, text, label) for label in LABELS] for text in INPUTS]
    assert_equal_losses(scores, torch.tensor(one_by_one))


def test_rows_within_the_sliding_window_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The longest row fills the window to its last place: 6 prompt tokens, 6 of input, the target is not read.
    model, value = tiny("mistral", sliding_window=12), draw(6, WIDTH)
    engine = PackedEngine(model)
    passes = _is_packed(model, monkeypatch)
    found = engine.losses(value[None], ragged())
    assert passes == ["packed"]
    assert_equal_losses(found, naive_losses(model, [value], ragged()))


tokens = st.integers(3, VOCABULARY - 1)
row = st.tuples(
    st.lists(tokens, min_size=1, max_size=9), st.lists(tokens, min_size=1, max_size=4), st.integers(0, 1)
)


@pytest.fixture(scope="module")
def llama() -> FrozenModel:
    return tiny("llama")


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(row, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_batch(
    llama: FrozenModel, rows: list[tuple[list[int], list[int], int]], order: object
) -> None:
    """Neither on the order of rows, nor on which others there are, nor on how much they pad."""
    engine = engine_for(llama)
    prompts = [draw(5, WIDTH), draw(2, WIDTH, seed=1)]

    def losses(chosen: list[tuple[list[int], list[int], int]]) -> Tensor:
        inputs, targets, own = zip(*chosen, strict=True)
        return engine.losses(prompts, Batch(list(inputs), list(targets), list(own)))

    together = losses(rows)
    alone = torch.cat([losses([one]) for one in rows])
    assert_equal_losses(together, alone)
    shuffled = list(range(len(rows)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert_equal_losses(losses([rows[i] for i in shuffled]), together[shuffled])


@settings(deadline=None, max_examples=20)
@given(
    inputs=st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=5),
    labels=st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_label_scores_do_not_depend_on_the_batch_or_the_other_labels(
    llama: FrozenModel, inputs: list[list[int]], labels: list[list[int]]
) -> None:
    score = engine_for(llama).scorer(draw(3, WIDTH)[None])
    together = score(Batch(inputs, [[]] * len(inputs)), labels)
    for b, text in enumerate(inputs):
        for c, label in enumerate(labels):
            assert_equal_losses(score(Batch([text], [[]]), [label])[0, 0], together[b, c])
