"""The arms: PEFT as its examples use it, PEFT tuned by an expert, spoton, and spoton compiled.

Each arm has its own model, and all start from the same prompt. So the arms can take turns in one process, and must
compute the same loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from experiments.bench.names import COMPILED, DOCUMENTED, SPOTON, T5, TUNED
from experiments.bench.texts import FIXED_LENGTH
from spoton import load_model
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel

LEARNING_RATE = 0.02
_IGNORED = -100  # transformers' label for "no loss here"


class Arm(Protocol):
    """One way to train and to score a prompt.

    Attributes:
        name: Name in the tables.
        dtype: Type of its weights.
        pads_to: The fixed length that it pads every text to, or None. With one, its time does not depend on the texts.
        scores_at_once: How often a round's batches are scored in one call. If an arm does some work once per call, a
            call has to be as long as a real evaluation; for the others once is enough.
    """

    name: str
    dtype: torch.dtype
    pads_to: int | None
    scores_at_once: int

    def reset(self) -> None:
        """Restores the initial prompt, with a new optimizer."""

    def loss(self, batch: Batch) -> float:
        """Returns the mean negative log-likelihood of the target tokens, in nats."""

    def step(self, batch: Batch) -> None:
        """Takes one training step: forward, backward, AdamW on the prompt."""

    def scores(self, batches: Sequence[Batch], labels: Sequence[Sequence[int]]) -> Tensor:
        """Returns the log-likelihood `[N, C]` of each label after each input of all batches."""


class SpotonArm:
    """The engine that the tuning loop and the evaluation use."""

    pads_to: int | None = None
    scores_at_once = 4  # twelve batches: an evaluation on 192 texts at batch 16

    def __init__(self, name: str, model: FrozenModel, initial: Tensor) -> None:
        self.name, self.dtype = name, model.dtype
        self._engine, self._initial, self._device = engine_for(model), initial, model.device
        self.reset()

    def reset(self) -> None:
        """See `Arm.reset`."""
        self._prompt = self._initial.to(self._device, copy=True).requires_grad_()
        self._optimizer = torch.optim.AdamW([self._prompt], lr=LEARNING_RATE)

    def _loss(self, batch: Batch) -> Tensor:
        return self._engine.losses(self._prompt[None], batch).sum() / sum(map(len, batch.targets))

    @torch.no_grad()
    def loss(self, batch: Batch) -> float:
        """See `Arm.loss`."""
        return float(self._loss(batch))

    def step(self, batch: Batch) -> None:
        """See `Arm.step`."""
        self._optimizer.zero_grad()
        self._loss(batch).backward()
        self._optimizer.step()

    @torch.no_grad()
    def scores(self, batches: Sequence[Batch], labels: Sequence[Sequence[int]]) -> Tensor:
        """See `Arm.scores`; includes computing the prompt's keys and values, once per call."""
        score = self._engine.scorer(self._prompt.detach()[None])
        return torch.cat([score(batch, labels) for batch in batches])


class PeftArm:
    """PEFT's prompt tuning around a transformers model. Keeps nothing from batch to batch.

    Args:
        name: Name in the tables.
        network: The model that PEFT wraps.
        initial: `[P, D]` the prompt to start from.
        pads_to: Pads every text to this length; None pads to the longest of its batch.
        expert: Reads labels of one token from one forward pass, and keeps no cache in training.
    """

    scores_at_once = 1

    def __init__(
        self, name: str, network: PreTrainedModel, initial: Tensor, *, pads_to: int | None, expert: bool
    ) -> None:
        self.name, self.dtype, self.pads_to = name, network.dtype, pads_to
        self._seq2seq = bool(network.config.is_encoder_decoder)
        self._expert, self._initial = expert, initial
        config = PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM" if self._seq2seq else "CAUSAL_LM",
            num_virtual_tokens=len(initial),
            num_transformer_submodules=1,  # for T5, the default learns a second prompt that is never used
        )
        self._model = get_peft_model(network, config)
        self._prompt: Tensor = self._model.get_parameter("prompt_encoder.default.embedding.weight")
        self.reset()

    def reset(self) -> None:
        """See `Arm.reset`."""
        with torch.no_grad():
            self._prompt.copy_(self._initial)
        self._optimizer = torch.optim.AdamW([self._prompt], lr=LEARNING_RATE)

    def _loss(self, batch: Batch) -> Tensor:
        if self._seq2seq:
            ids, mask = self._padded(batch.inputs, self.pads_to)
            labels, _ = self._padded(batch.targets, None, fill=_IGNORED)
        else:
            ids, mask = self._padded(_joined(batch.inputs, batch.targets), self.pads_to)
            hidden = [[_IGNORED] * len(text) for text in batch.inputs]
            labels, _ = self._padded(_joined(hidden, batch.targets), self.pads_to, fill=_IGNORED)
        options = {"use_cache": False} if self._expert else {}
        loss: Tensor = self._model(input_ids=ids, attention_mask=mask, labels=labels, **options).loss
        return loss

    @torch.no_grad()
    def loss(self, batch: Batch) -> float:
        """See `Arm.loss`."""
        return float(self._loss(batch))

    def step(self, batch: Batch) -> None:
        """See `Arm.step`."""
        self._optimizer.zero_grad()
        self._loss(batch).backward()
        self._optimizer.step()

    @torch.no_grad()
    def scores(self, batches: Sequence[Batch], labels: Sequence[Sequence[int]]) -> Tensor:
        """See `Arm.scores`: one forward pass per label; with `expert`, one for all labels of one token."""
        if self._expert and all(len(label) == 1 for label in labels):
            words = [label[0] for label in labels]
            return torch.cat([self._log_likelihoods(batch.inputs, 1)[:, 0, words] for batch in batches])
        rows = []
        for batch in batches:
            columns = []
            for label in labels:
                found = self._log_likelihoods([[*text, *label] for text in batch.inputs], len(label) + 1)
                wanted = torch.tensor(label, device=found.device)[None, :, None].expand(len(batch), -1, 1)
                columns.append(found[:, :-1].gather(2, wanted)[..., 0].sum(1))
            rows.append(torch.stack(columns, dim=1))
        return torch.cat(rows)

    def _log_likelihoods(self, texts: Sequence[Sequence[int]], places: int) -> Tensor:
        """Returns log-probabilities `[B, places, V]` of the next token at the last places of each text."""
        ids, mask = self._padded(texts, self.pads_to)
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        ends = torch.tensor([len(self._initial) + len(text) for text in texts])
        at = ends[:, None] + torch.arange(-places, 0)
        return torch.log_softmax(logits[torch.arange(len(texts))[:, None], at].float(), dim=-1)

    def _padded(
        self, rows: Sequence[Sequence[int]], width: int | None, *, fill: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Returns ids and mask `[B, L]`, padded on the right: PEFT drops position ids, so left padding is wrong."""
        ids = pad_sequence([torch.tensor(list(row)) for row in rows], batch_first=True, padding_value=fill)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        missing = 0 if width is None else width - ids.shape[1]
        pad, device = torch.nn.functional.pad, self._prompt.device
        return pad(ids, (0, missing), value=fill).to(device), pad(mask, (0, missing)).to(device)


def arm_names(model: str) -> list[str]:
    """Returns the arms that run on a model, slowest first."""
    if model == T5:
        return [TUNED, SPOTON]
    return [DOCUMENTED, TUNED, SPOTON, *([COMPILED] if can_compile() else [])]


def can_compile() -> bool:
    """Whether this spoton has a compiled engine."""
    return "compile" in inspect.signature(load_model).parameters


def make_arm(name: str, model: str, length: int, device: str = "cpu") -> Arm:
    """Returns an arm with a prompt of `length` tokens; models are loaded once and kept."""
    held = frozen(name, model, device)
    initial = initial_prompt(held, length)
    if name in (SPOTON, COMPILED):
        return SpotonArm(name, held, initial)
    documented = name == DOCUMENTED
    return PeftArm(
        name, held.network, initial, pads_to=FIXED_LENGTH if documented else None, expert=not documented
    )


def initial_prompt(model: FrozenModel, length: int) -> Tensor:
    """Returns embeddings `[P, D]` of random tokens, rounded to bfloat16 so that models of both types start alike."""
    ids = torch.randint(5000, (length,), generator=torch.Generator().manual_seed(length))
    return model.embeddings.detach().cpu()[ids].to(torch.bfloat16).float()


@cache
def frozen(arm: str, model: str, device: str = "cpu") -> FrozenModel:
    """Returns an arm's own copy of its model."""
    if model == T5:
        held = _random_t5()
    elif arm == DOCUMENTED:
        held = load_model(dtype="float32", device=device)
    elif arm == COMPILED:
        option: dict[str, Any] = {
            "compile": True
        }  # separate, since not every version has it (see `can_compile`)
        held = load_model(device=device, **option)
    else:
        held = load_model(device=device)
    if arm == TUNED and device == "cpu":
        # The fused attention of the CPU has a slow backward pass; plain products are faster at these lengths.
        held.network.set_attn_implementation("eager")
    return held


def _random_t5() -> FrozenModel:
    """Returns a model of T5 v1.1 small's shape with random weights, in the type that `load_model` chooses.

    It has no dropout: dropout makes losses differ, and a frozen model in spoton has none.
    """
    plain = load_model(device="cpu")  # for the type, and for a tokenizer, which is never used here
    fields: dict[str, Any] = {
        "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = T5ForConditionalGeneration(T5Config(**fields))
        # transformers draws these a hundred times too large for a meaningful loss.
        torch.nn.init.normal_(network.lm_head.weight, std=fields["d_model"] ** -0.5)
    return FrozenModel(T5, network.to(dtype=plain.dtype), plain.tokenizer)


def _joined(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[*a, *b] for a, b in zip(first, second, strict=True)]
