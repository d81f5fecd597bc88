"""A prompt as a model of lm-evaluation-harness: `lm_eval.simple_evaluate(model=SpotonLM(...), tasks=[...])`.

The harness's command line finds no models outside of it, so this is for Python. The harness makes the texts; the
prompt's own template is not applied. Needs `pip install spoton[lm-eval]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from torch import Tensor

from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt


class SpotonLM(TemplateLM):  # type: ignore[misc]  # the harness ships no types
    """One frozen model with one prompt, or alone.

    Args:
        model: The frozen model.
        prompt: The prompt; None: the bare model.
        batch_size: Rows per batch.

    Raises:
        PromptError: The prompt belongs to another model.

    Examples:
        >>> from lm_eval import simple_evaluate  # doctest: +SKIP
        >>> simple_evaluate(model=SpotonLM(model, prompt), tasks=["sst2"])["results"]  # doctest: +SKIP
    """

    def __init__(self, model: FrozenModel, prompt: SoftPrompt | None = None, *, batch_size: int = 32) -> None:
        super().__init__()
        if prompt is not None:
            prompt.require_model(model.fingerprints, model.name)
            prompt.require_single("the harness")
        # What the harness splits a text by: T5's encoder reads a context with its end, and its decoder starts anew.
        self.backend = "seq2seq" if model.is_encoder_decoder else "causal"
        self._model, self._batch_size = model, batch_size
        self._engine = engine_for(model)
        self._prompts = [torch.zeros(0, model.dim) if prompt is None else prompt.value]

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._model.end_token

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the one that texts begin with, or that ends them."""
        begin = self._model.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Returns the token ids of a text.

        Args:
            string: The text.
            add_special_tokens: False for a text that continues another one.
            kwargs: Ignored; the harness passes arguments for some of its own models.
        """
        if add_special_tokens is False:
            return [int(i) for i in self._model.tokenizer.encode(string, add_special_tokens=False)]
        return self._model.encode_input(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Returns, per context and continuation, the log-likelihood in nats and whether it is the greedy text."""
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        generate = self._engine.generator(self._prompts)
        for rows in self._batches([len(context) + len(target) for _, context, target in requests]):
            pairs = [self._shortened(requests[row][1], requests[row][2]) for row in rows]
            batch = Batch([context for context, _ in pairs], [target for _, target in pairs])
            with torch.no_grad():
                losses: Tensor = self._engine.losses(self._prompts, batch)
            greedy = generate(batch, max(len(target) for _, target in pairs))
            for row, loss, tokens, (_, target) in zip(rows, losses.tolist(), greedy, pairs, strict=True):
                found[row] = (-loss, tokens[: len(target)] == target)
        return found

    def _shortened(self, context: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        """Returns a pair that fits into the model's positions: the context loses its beginning, as in the harness."""
        return self._last(context, len(target)), target

    def _last(self, context: list[int], following: int) -> list[int]:
        """Returns the end of a context that fits into the model's positions with a number of tokens behind it."""
        longest = self._model.max_length
        if longest is None:
            return context
        behind = 0 if self._model.is_encoder_decoder else following
        return context[-max(longest - len(self._prompts[0]) - behind, 1) :]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of whole texts behind `prefix_token_id`, in windows that fit the model.

        Args:
            requests: Requests of the harness, with one text each.
            disable_tqdm: Ignored.
        """
        longest = self._model.max_length or 512
        room = longest - len(self._prompts[0]) - 1
        found = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            pairs: list[tuple[Any, list[int], list[int]]] = []
            for start in range(0, len(ids), room):
                before = ids[start - 1] if start else self.prefix_token_id
                pairs.append((None, [before], ids[start : start + room]))
            found.append(sum(likelihood for likelihood, _ in self._loglikelihood_tokens(pairs)))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns greedy continuations, cut before the first stop string.

        Args:
            requests: Requests of the harness, with a text and its settings each.
            disable_tqdm: Ignored.

        Raises:
            ValueError: A task requests sampling.
        """
        texts = [self._model.encode_input(request.args[0]) for request in requests]
        settings = [request.args[1] for request in requests]
        for one in settings:
            if one.get("do_sample") or one.get("temperature"):
                raise ValueError("SpotonLM continues greedily; set do_sample: false and temperature: 0.")
        found = [""] * len(requests)
        generate = self._engine.generator(self._prompts)
        for rows in self._batches(list(map(len, texts))):
            most = max(int(settings[row].get("max_gen_toks", 256)) for row in rows)
            batch = Batch([self._last(texts[row], most) for row in rows], [[]] * len(rows))
            for row, tokens in zip(rows, generate(batch, most), strict=True):
                found[row] = self._cut(tokens[: int(settings[row].get("max_gen_toks", 256))], settings[row])
        return found

    def _cut(self, tokens: list[int], settings: dict[str, Any]) -> str:
        text = str(self._model.tokenizer.decode(tokens, skip_special_tokens=True))
        until = settings.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yields rows in batches of similar length."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]
