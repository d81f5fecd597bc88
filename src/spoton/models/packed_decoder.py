"""The engine for decoder-only models: prompts once, texts packed after them, logits at target positions only.

It is exact: losses and prompt gradients equal those of concatenating the prompt to every row (`concatenation.py`; tests
compare the two). `packed_rows.py` decides how tokens attend; callers use the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spoton.models.concatenation import ConcatenationEngine, longest_exact
from spoton.models.engine import Batch, Choice, Generator, Prompts, Scorer, Wanted
from spoton.models.exactness import check_rows
from spoton.models.frozen import FrozenModel
from spoton.models.frozen_layers import tunes_weights
from spoton.models.generation import continue_greedily, is_exact
from spoton.models.llama_layers import last_hidden_states
from spoton.models.packed_attention import packed_attention
from spoton.models.packed_rows import (
    ON_GPU,
    ON_PROCESSOR,
    Layout,
    PromptCache,
    lay_out,
    send,
)
from spoton.models.target_loss import OutputHead, head_of, log_likelihoods, target_losses
from spoton.models.token_scores import TokenScores, token_scores
from spoton.shapes import Float

# Token counts of input and target in the check of generation.
_CHECK_LENGTHS = ((5, 3), (1, 3), (9, 3))


class PackedEngine:
    """Runs K prompts through a decoder-only model without padding and without repeating a prompt.

    Args:
        model: The frozen model.
        by_hand: Run the layers as in `llama_layers.py`, for models that `runs_by_hand` accepts; otherwise as
            transformers does.
    """

    name = "packed"
    repeats_prompts = False
    choice: Choice | None = None

    def __init__(self, model: FrozenModel, *, by_hand: bool = False) -> None:
        self.model, self.by_hand = model, by_hand
        self._plain = ConcatenationEngine(model)
        self._head = head_of(model.network)
        self._window = longest_exact(model.network)

    def losses(self, prompts: Prompts, batch: Batch) -> Float[Tensor, " {len(batch)}"]:
        """Returns losses `[B]`; see `Engine.losses`."""
        texts = [[*i, *t[:-1]] for i, t in zip(batch.inputs, batch.targets, strict=True)]
        lengths = [len(prompt) for prompt in prompts]
        if self._exceeds_window(lengths, texts):
            return self._plain.losses(prompts, batch)
        layout = self._layout(lengths, texts, batch.rows)
        counts = [len(target) for target in batch.targets]
        ends = [start + len(text) for start, text in zip(layout.starts, texts, strict=True)]
        places = [p for end, n in zip(ends, counts, strict=True) for p in range(end - n, end)]
        packed = [texts[row] for row in layout.order]
        tokens = [token for target in batch.targets for token in target]
        owners = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(counts))
        wanted, row = send([torch.tensor(tokens), owners], self.model.device)
        if self._head is None or self._head_is_tuned:
            logits = self._logits(prompts, packed, layout, places)
            token_losses = functional.cross_entropy(logits.float(), wanted, reduction="none")
        else:
            hidden = self._hidden(prompts, packed, layout, places)
            token_losses = target_losses(hidden, wanted, self._head, self.model.embeddings.shape[0])
        total = torch.zeros(len(batch), device=token_losses.device)
        return total.index_add(0, row.to(total.device), token_losses)

    @property
    def _by_hand_now(self) -> bool:
        """Whether this pass runs the layers by hand, which gives no gradient to their weights."""
        return self.by_hand and not tunes_weights(self.model.network)

    @property
    def _head_is_tuned(self) -> bool:
        """Whether the output layer needs a gradient (model tuning), which `target_losses` does not give."""
        output = self.model.network.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own
        return any(weight.requires_grad for weight in output.parameters())

    def label_scores(
        self, prompts: Prompts, batch: Batch, labels: Sequence[Sequence[int]]
    ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
        """Returns scores `[B, C]`; see `Engine.label_scores`."""
        return torch.stack(self.row_label_scores(prompts, batch, [labels] * len(batch)))

    @torch.no_grad()
    def scorer(self, prompts: Prompts) -> Scorer:
        """See `Engine.scorer`: computes the keys and values of the prompts once, here."""
        known = self.remember(prompts)

        def score(
            batch: Batch, labels: Sequence[Sequence[int]]
        ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
            with torch.no_grad():
                return torch.stack(self.row_label_scores(prompts, batch, [labels] * len(batch), known))

        return score

    def row_label_scores(
        self,
        prompts: Prompts,
        batch: Batch,
        labels: Sequence[Sequence[Sequence[int]]],
        known: PromptCache | None = None,
    ) -> list[Float[Tensor, " _"]]:
        """Returns log-likelihoods of each row's own labels after its input: `[C_b]` float32 for every row, in nats.

        An input's tokens run once for all its labels, and only labels of several tokens add branches.

        Args:
            prompts: The prompts of the batch.
            batch: Inputs; targets are not read.
            labels: Tokens of the labels of each row.
            known: The result of `remember` for the same prompts; None: the prompts run in the pass and get gradients.
        """
        lengths = [len(prompt) for prompt in prompts]
        longest = max(len(label) for own in labels for label in own)
        if self._exceeds_window(lengths, batch.inputs, longest):
            each = zip(batch.inputs, batch.rows, labels, strict=True)
            return [
                self._plain.label_scores(prompts, Batch([text], [()], [prompt]), own)[0]
                for text, prompt, own in each
            ]
        stems = [[list(label[:-1]) for label in own] for own in labels]
        layout = self._layout(lengths, batch.inputs, batch.rows, stems, known)
        # An input's last place predicts every label's first token; the places of a stem predict the rest of it.
        behind = [start + len(text) for start, text in zip(layout.starts, batch.inputs, strict=True)]
        places = [place - 1 for place in behind]
        tokens: list[int] = []
        owners: list[int] = []
        pair = 0
        for branch, own, own_stems in zip(behind, labels, stems, strict=True):
            for label, stem in zip(own, own_stems, strict=True):
                places.extend(range(branch, branch + len(stem)))
                tokens.extend(label[1:])
                owners.extend([pair] * len(stem))
                branch += len(stem)
                pair += 1
        packed = [part for row in layout.order for part in (batch.inputs[row], *stems[row])]
        head: OutputHead = lambda logits: logits  # noqa: E731  # if the head is unknown here, or needs a gradient
        if self._head is None or self._head_is_tuned:
            states = self._logits(prompts, packed, layout, places)
        else:
            states, head = self._hidden(prompts, packed, layout, places), self._head
        return self._split_scores(states, labels, tokens, owners, head)

    def _split_scores(
        self,
        states: Tensor,
        labels: Sequence[Sequence[Sequence[int]]],
        tokens: list[int],
        owners: list[int],
        head: OutputHead,
    ) -> list[Tensor]:
        """Returns scores of each row's labels, from the states after its input and after all label tokens but the last.

        Args:
            states: `[B + R, D]` after the inputs, then after the R label tokens that are not the last of their label;
                logits `[B + R, V]` if `head` returns its input.
            labels: Tokens of the labels of each row.
            tokens: The R tokens that follow.
            owners: The label that each of them belongs to, counted over all rows.
            head: Turns states into logits.
        """
        firsts = sorted({label[0] for own in labels for label in own})
        column = {token: place for place, token in enumerate(firsts)}
        pairs = [(row, column[label[0]]) for row, own in enumerate(labels) for label in own]
        first, row_of, column_of, rest, owner = send(
            [
                torch.tensor(numbers, dtype=torch.long)
                for numbers in (firsts, [row for row, _ in pairs], [c for _, c in pairs], tokens, owners)
            ],
            states.device,
        )
        vocabulary, n_rows = self.model.embeddings.shape[0], len(labels)
        scores = log_likelihoods(states[:n_rows], first, head, vocabulary)[row_of, column_of]
        if tokens:
            scores = scores.index_add(0, owner, -target_losses(states[n_rows:], rest, head, vocabulary))
        return list(torch.split(scores, [len(own) for own in labels]))

    @torch.no_grad()
    def token_scores(self, prompts: Prompts, batch: Batch, known: PromptCache, k: int) -> list[TokenScores]:
        """Returns the log-likelihood of each input token given those before it, and the k likeliest at its place.

        Args:
            prompts: The prompts of the batch.
            batch: Inputs; targets are not read.
            known: The result of `remember` for the same prompts.
            k: Number of likeliest tokens to return.
        """
        lengths = [len(prompt) for prompt in prompts]
        layout = self._layout(lengths, batch.inputs, batch.rows, cache=known)
        starts = zip(layout.starts, batch.inputs, strict=True)
        places = [place for start, text in starts for place in range(start, start + len(text) - 1)]
        packed = [batch.inputs[row] for row in layout.order]
        wanted = torch.tensor(
            [token for text in batch.inputs for token in text[1:]], device=self.model.device
        )
        if self._head is None:
            whole = self._logits(prompts, packed, layout, places)
            logits: Callable[[slice], Tensor] = whole.__getitem__
        else:
            hidden, head = self._hidden(prompts, packed, layout, places), self._head

            def logits(part: slice) -> Tensor:
                return head(hidden[part])

        own = [len(text) - 1 for text in batch.inputs]
        return token_scores(logits, wanted.long(), own, k, self.model.embeddings.shape[0])

    @torch.no_grad()
    def generator(self, prompts: Prompts) -> Generator:
        """See `Engine.generator`: computes the keys and values of the prompts once, here."""
        lengths = [len(prompt) for prompt in prompts]
        plain = self._plain.generator(prompts)
        if not self._continues_exactly:
            return plain
        cache = self.remember(prompts)

        def generate(
            batch: Batch, max_tokens: int, wanted: Sequence[Wanted] | None = None
        ) -> list[list[int]]:
            if self._exceeds_window(lengths, batch.inputs, max_tokens):
                return plain(batch, max_tokens, wanted)
            return continue_greedily(self.model, cache, batch, max_tokens, wanted)

        return generate

    @cached_property
    def _continues_exactly(self) -> bool:
        """Whether cached prompts can be continued, checked on a few rows at first use."""
        prompts, batch = check_rows(self.model, _CHECK_LENGTHS)
        unlike = [prompts[0], prompts[1, :2]]
        lengths = [len(prompt) for prompt in unlike]
        if self._exceeds_window(lengths, batch.inputs, len(batch.targets[0])):
            return False
        cache = self.remember(unlike)
        return is_exact(self.model, cache, batch, self._plain.losses(unlike, batch))

    def reads_by_token(self, prompts: Prompts, texts: Sequence[Sequence[int]], extra: int = 0) -> bool:
        """Returns whether `token_scores` and a `Continuation` are exact for these prompts and texts.

        Args:
            prompts: The prompts.
            texts: The inputs.
            extra: Number of tokens that may follow each.
        """
        lengths = [len(prompt) for prompt in prompts]
        return self._continues_exactly and not self._exceeds_window(lengths, texts, extra)

    @torch.no_grad()
    def remember(self, prompts: Prompts) -> PromptCache:
        """Returns keys and values of the prompts in every layer."""
        record = PromptCache()
        lengths = [len(prompt) for prompt in prompts]
        end = [self.model.end_token]
        layout = self._layout(lengths, [end], [0], record=record)
        self._logits(prompts, [end], layout, [sum(lengths)])
        return record

    def _exceeds_window(self, lengths: list[int], texts: Sequence[Sequence[int]], extra: int = 0) -> bool:
        """Returns whether a row exceeds the model's sliding window, where sharing a prompt would not be exact."""
        return self._window is not None and max(lengths) + max(map(len, texts)) + extra > self._window

    def _layout(
        self,
        lengths: list[int],
        texts: Sequence[Sequence[int]],
        prompt: list[int],
        stems: Sequence[Sequence[Sequence[int]]] | None = None,
        cache: PromptCache | None = None,
        record: PromptCache | None = None,
    ) -> Layout:
        """Lays out prompts, texts and, after every text, the label stems that continue it."""
        is_processor = self.model.device.type == "cpu"
        return lay_out(
            lengths, list(map(len, texts)), prompt, self.model.dtype,
            branches=None if stems is None else [list(map(len, own)) for own in stems],
            cache=cache, record=record, bounds=ON_PROCESSOR if is_processor else ON_GPU,
        )  # fmt: skip

    def _logits(
        self,
        prompts: Prompts,
        texts: Sequence[Sequence[int]],
        layout: Layout,
        places: list[int],
    ) -> Tensor:
        """Returns logits `[N, V]` at N places of the packed row."""
        network = self.model.network
        if self._by_hand_now and self._head is not None:
            return self._head(self._hidden(prompts, texts, layout, places))
        (keep,) = send([torch.tensor(places, dtype=torch.long)], self.model.device)
        logits: Tensor = self._run(network, prompts, texts, layout, logits_to_keep=keep).logits[0]
        if logits.shape[0] != len(places):  # `engine_for` then rejects this engine
            raise NotImplementedError(f"{network.config.model_type} ignores logits_to_keep")
        return logits

    def _hidden(
        self,
        prompts: Prompts,
        texts: Sequence[Sequence[int]],
        layout: Layout,
        places: list[int],
    ) -> Tensor:
        """Returns last hidden states `[N, D]` at N places of the packed row."""
        (wanted,) = send([torch.tensor(places, dtype=torch.long)], self.model.device)
        body = self.model.network.base_model
        if not self._by_hand_now:
            states: Tensor = self._run(body, prompts, texts, layout).last_hidden_state[0]
            return states.index_select(0, wanted.to(states.device))
        with packed_attention(self.model.network, layout):
            embedded = self._embedded(prompts, texts, layout)
            return last_hidden_states(body, embedded, layout.position_ids, wanted)

    def _run(
        self,
        network: nn.Module,
        prompts: Prompts,
        texts: Sequence[Sequence[int]],
        layout: Layout,
        **options: Any,
    ) -> Any:
        """Returns the output of the model, or of the part below its head, for a packed row."""
        embedded = self._embedded(prompts, texts, layout)
        positions = layout.on(embedded.device).position_ids
        with packed_attention(self.model.network, layout):
            return network(inputs_embeds=embedded[None], position_ids=positions, use_cache=False, **options)

    def _embedded(self, prompts: Prompts, texts: Sequence[Sequence[int]], layout: Layout) -> Tensor:
        """Returns the packed row `[T, D]`: prompts, unless their keys are cached, and texts."""
        model = self.model
        (ids,) = send([torch.tensor([token for text in texts for token in text])], model.device)
        embedded: Tensor = model.network.get_input_embeddings()(ids)
        if layout.cache is None:
            embedded = torch.cat([*(prompt.to(embedded) for prompt in prompts), embedded])
        return embedded
