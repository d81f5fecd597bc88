"""The engine for encoder-decoder models: the prompt precedes the embedded encoder input.

The encoder sees prompt and input in both directions, so rows share nothing. The decoder is unchanged (Lester et al.
2021, section 2) and never sees the prompt: losses cover target positions only. `T5Engine` computes the same for the T5
family with less work (`t5_layers.py`); the plain engine is its reference and serves all other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from spoton.models.engine import Batch, Choice, Generator, Prompts, Scorer, Wanted, label_scores_by_losses
from spoton.models.frozen import FrozenModel
from spoton.models.frozen_layers import is_plain, tunes_weights
from spoton.models.generation import generated
from spoton.models.t5_layers import T5_FAMILIES, EncodedRows, decode, encode, scales_outputs
from spoton.models.target_loss import target_losses
from spoton.shapes import Float


class EncoderDecoderEngine:
    """Runs prompts through T5, BART and similar models.

    Args:
        model: The frozen model.

    Raises:
        ModelError: See `FrozenModel.encoder_scale`.
    """

    name = "encoder-decoder"
    repeats_prompts = True
    choice: Choice | None = None

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self._scale = model.encoder_scale

    def losses(self, prompts: Prompts, batch: Batch) -> Float[Tensor, " {len(batch)}"]:
        """Returns losses `[B]`; see `Engine.losses`."""
        encoded, mask = self._encode(prompts, batch)
        return self._target_losses(encoded, mask, batch.targets)

    def label_scores(
        self, prompts: Prompts, batch: Batch, labels: Sequence[Sequence[int]]
    ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
        """Returns scores `[B, C]`; see `Engine.label_scores`."""
        return label_scores_by_losses(self, prompts, batch, labels)

    def scorer(self, prompts: Prompts) -> Scorer:
        """See `Engine.scorer`; the encoder runs once for all labels."""

        @torch.no_grad()
        def score(
            batch: Batch, labels: Sequence[Sequence[int]]
        ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
            encoded, mask = self._encode(prompts, batch)
            columns = [-self._target_losses(encoded, mask, [label] * len(batch)) for label in labels]
            return torch.stack(columns, dim=1)

        return score

    def generator(self, prompts: Prompts) -> Generator:
        """See `Engine.generator`; transformers generates from the encoder states."""

        @torch.no_grad()
        def generate(
            batch: Batch, max_tokens: int, wanted: Sequence[Wanted] | None = None
        ) -> list[list[int]]:
            encoded, mask = self._encode(prompts, batch)
            end = self.model.end_token
            tokens = generated(
                self.model, wanted, encoder_outputs=encoded, attention_mask=mask, max_new_tokens=max_tokens,
                do_sample=False, eos_token_id=end, pad_token_id=end, decoder_start_token_id=self._start_token,
            )  # fmt: skip
            # The start token is not part of the answer.
            rows = [[int(token) for token in row[1:]] for row in tokens]
            return [row[: row.index(end)] if end in row else row for row in rows]

        return generate

    @property
    def _start_token(self) -> int:
        config = self.model.network.config
        return int(
            config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        )

    def _encode(self, prompts: Prompts, batch: Batch) -> tuple[ModelOutput, Tensor]:
        """Returns the encoder's output for prompts and inputs (states `[B, P + L, D]` and more) and the mask."""
        sequences = self._embedded(prompts, batch)
        embedded = pad_sequence(sequences, batch_first=True)
        ones = [torch.ones(len(s), dtype=torch.long, device=embedded.device) for s in sequences]
        mask = pad_sequence(ones, batch_first=True)
        encoder: Any = self.model.network.get_encoder()
        return encoder(inputs_embeds=embedded, attention_mask=mask, **self._extras), mask

    @property
    def _extras(self) -> dict[str, bool]:
        """Returns the encoder options that the decoder of a mixture of experts (Switch Transformers) needs."""
        return {"output_router_logits": True} if hasattr(self.model.network.config, "num_experts") else {}

    def _embedded(self, prompts: Prompts, batch: Batch) -> list[Tensor]:
        """Returns `[P + L_b, D]` prompt and input of each row, as the encoder reads them."""
        embed = self.model.network.get_input_embeddings()
        sequences = []
        for text, row in zip(batch.inputs, batch.rows, strict=True):
            tokens = embed(torch.tensor(list(text), device=self.model.device))
            scaled = tokens if self._scale == 1 else tokens * self._scale
            sequences.append(torch.cat([prompts[row].to(tokens), scaled]))
        return sequences

    def _target_losses(self, encoded: ModelOutput, mask: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """Returns `[B]` negative log-likelihood of targets given the encoder output; teacher forcing, right padding."""
        device = mask.device
        wanted = pad_sequence([torch.tensor(list(t), device=device) for t in targets], batch_first=True)
        real = pad_sequence([torch.ones(len(t), device=device) for t in targets], batch_first=True)
        start = torch.full_like(wanted[:, :1], self._start_token)
        decoder_inputs = torch.cat([start, wanted[:, :-1]], dim=1)
        logits = self.model.network(
            encoder_outputs=encoded, attention_mask=mask,
            decoder_input_ids=decoder_inputs, use_cache=False,
        ).logits  # fmt: skip
        likelihood = torch.log_softmax(logits.float(), dim=-1).gather(2, wanted[..., None])[..., 0]
        return -(likelihood * real).sum(dim=1)


class T5Engine(EncoderDecoderEngine):
    """Runs prompts through the T5 family, layer by layer and without padding (`t5_layers.py`).

    transformers generates.

    Args:
        model: The frozen model.
    """

    name = "t5"

    @staticmethod
    def fits(model: FrozenModel) -> bool:
        """Returns whether `model` is of the T5 family and its layers may run by hand (none compiled, no hooks)."""
        return model.network.config.model_type in T5_FAMILIES and is_plain(model.network)

    def losses(self, prompts: Prompts, batch: Batch) -> Float[Tensor, " {len(batch)}"]:
        """Returns losses `[B]`; see `Engine.losses`.

        Model tuning runs transformers' own layers, which give the weights their gradient.
        """
        if tunes_weights(self.model.network):
            return super().losses(prompts, batch)
        encoded = encode(self.model.network.get_encoder(), self._embedded(prompts, batch))
        return self._losses_of(encoded, batch.targets)

    def scorer(self, prompts: Prompts) -> Scorer:
        """See `Engine.scorer`; the encoder runs once for all labels."""

        @torch.no_grad()
        def score(
            batch: Batch, labels: Sequence[Sequence[int]]
        ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
            encoded = encode(self.model.network.get_encoder(), self._embedded(prompts, batch))
            return torch.stack([-self._losses_of(encoded, [label] * len(batch)) for label in labels], dim=1)

        return score

    def _losses_of(self, encoded: EncodedRows, targets: Sequence[Sequence[int]]) -> Tensor:
        """Returns `[B]` negative log-likelihood of the targets of all rows, numbered as in the batch."""
        network, device = self.model.network, self.model.device
        order = [row for group in encoded.groups for row in group.rows]
        wanted = [torch.tensor(list(targets[row]), device=device) for row in order]
        read = [functional.pad(one[:-1], (1, 0), value=self._start_token) for one in wanted]
        decoder: PreTrainedModel = network.get_decoder()  # type: ignore[no-untyped-call]  # transformers' own
        hidden = decode(decoder, encoded, pad_sequence(read, batch_first=True))
        hidden = torch.cat([states[: len(one)] for states, one in zip(hidden, wanted, strict=True)])
        if scales_outputs(network):
            hidden = hidden * network.config.d_model**-0.5
        output: nn.Module = network.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own
        losses = target_losses(hidden, torch.cat(wanted), output, self.model.embeddings.shape[0])
        owners = torch.tensor(order, device=device).repeat_interleave(
            torch.tensor([len(one) for one in wanted], device=device)
        )
        return torch.zeros(len(order), device=device).index_add(0, owners, losses)
