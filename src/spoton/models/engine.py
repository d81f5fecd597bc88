"""What every engine does: losses, label scores and generation for K prompts over one frozen model.

A prompt stack is ``[K, P, D]`` and each row of a batch names its prompt. Outputs speak of the rows' own tokens only;
virtual positions never leave an engine. Which engine runs is decided here, once per model, by a check on real numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from spoton.errors import ModelError
from spoton.models.frozen import FrozenModel


@dataclass(frozen=True)
class Batch:
    """Token ids of a few examples and the prompt of each.

    Attributes:
        inputs: Input tokens of each row; never empty.
        targets: Target tokens of each row; empty where only the input matters.
        prompt: Index of each row's prompt in the stack; None: all rows use prompt 0.
    """

    inputs: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]]
    prompt: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not self.inputs or not all(self.inputs):
            raise ValueError("a batch needs at least one row, and every row at least one input token")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def rows(self) -> list[int]:
        """Index of every row's prompt."""
        return [0] * len(self.inputs) if self.prompt is None else list(self.prompt)


Scorer = Callable[[Batch, Sequence[Sequence[int]]], Tensor]
"""Log-likelihood of each label behind each input, summed over the label's tokens: ``[B, C]`` float32, in nats."""

Generator = Callable[[Batch, int], list[list[int]]]
"""Greedy continuation of each input, at most that many tokens, cut before the end token."""


class Engine(Protocol):
    """Runs soft prompts through one frozen model.

    ``prompts`` is a float32 stack ``[K, P, D]`` (P may be 0: the bare model) or a list of K matrices ``[P_k, D]`` of
    different lengths.
    """

    name: str
    repeats_prompts: bool
    """Whether a prompt runs once a row, rather than once a pass."""

    def losses(self, prompts: Tensor | Sequence[Tensor], batch: Batch) -> Tensor:
        """Negative log-likelihood of each row's target, summed over its tokens: ``[B]`` float32, in nats."""

    def scorer(self, prompts: Tensor | Sequence[Tensor]) -> Scorer:
        """Prepares scoring many batches with the same prompts; what does not depend on the batch is done once."""

    def generator(self, prompts: Tensor | Sequence[Tensor]) -> Generator:
        """Prepares continuing many batches with the same prompts; what does not depend on the batch is done once."""


def engine_for(model: FrozenModel) -> Engine:
    """The fastest engine that is exact for ``model``.

    Encoder-decoder models read the prompt in front of the encoder's input; those of the T5 family run without padding.
    Decoder-only models run packed, each prompt once for all rows. Both only if a short check shows the same numbers as
    the plain way; otherwise (sliding window, recurrent state, ALiBi, ...) decoder-only models concatenate.

    Raises:
        ModelError: The model takes no input embeddings, so no prompt can be put before them.
    """
    from spoton.models.concatenation import ConcatenationEngine
    from spoton.models.decoder import PackedEngine
    from spoton.models.encoder_decoder import EncoderDecoderEngine, T5Engine
    from spoton.models.llama import runs_by_hand

    if model not in _CHOSEN:
        plain: Engine
        faster: list[Engine]
        if model.is_encoder_decoder:
            plain, faster = EncoderDecoderEngine(model), [T5Engine(model)] if T5Engine.fits(model) else []
        else:
            plain, faster = ConcatenationEngine(model), [PackedEngine(model)]
            if runs_by_hand(model):
                faster.insert(0, PackedEngine(model, by_hand=True))
        _CHOSEN[model] = next((engine for engine in faster if _agree(engine, plain, model)), plain)
    return _CHOSEN[model]


_CHOSEN: WeakKeyDictionary[FrozenModel, Engine] = WeakKeyDictionary()


# Texts of unlike lengths, so that packing, positions and masks all matter for the result.
_CHECK_LENGTHS = ((5, 2), (1, 1), (9, 3))


def check_rows(model: FrozenModel, lengths: Sequence[tuple[int, int]]) -> tuple[Tensor, Batch]:
    """Two random prompts ``[2, P, D]`` and a batch of random rows, to compare two ways of computing the same.

    Args:
        model: The frozen model.
        lengths: Tokens of input and target of every row.
    """
    draw = torch.Generator().manual_seed(0)
    vocabulary, dim = model.embeddings.shape
    ids = [torch.randint(vocabulary, (n + m,), generator=draw).tolist() for n, m in lengths]
    batch = Batch(
        [row[:n] for row, (n, _) in zip(ids, lengths, strict=True)],
        [row[n:] for row, (n, _) in zip(ids, lengths, strict=True)],
        prompt=[row % 2 for row in range(len(ids))],
    )
    scale = float(model.embeddings[:1000].float().std())
    return torch.randn(2, 6, dim, generator=draw) * scale, batch


def tolerance_of(model: FrozenModel) -> float:
    """How far two ways of computing the same may differ in the type of ``model``, in nats and relatively."""
    return 1e-4 if model.dtype == torch.float32 else 0.05


def _agree(fast: Engine, plain: Engine, model: FrozenModel) -> bool:
    """Whether two engines give the same losses and label scores on a few random rows with two prompts."""
    prompts, batch = check_rows(model, _CHECK_LENGTHS)
    labels = batch.targets

    def numbers(engine: Engine) -> Tensor:
        """Losses and label scores of the rows."""
        return torch.cat([engine.losses(prompts, batch), engine.scorer(prompts)(batch, labels).flatten()])

    try:
        with torch.no_grad():
            expected = numbers(plain)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(
            f"{model.name} ({model.network.config.model_type}) does not accept input embeddings, so a soft prompt "
            f"cannot be put before its text: {error}"
        ) from error
    try:
        with torch.no_grad():
            found = numbers(fast)
    except Exception:  # whatever an unknown architecture raises, it means: not this way
        return False
    tolerance = tolerance_of(model)
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance))
