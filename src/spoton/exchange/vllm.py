"""vLLM's `prompt_embeds`: request bodies for a running server, and a client that sends them.

A server started with `--enable-prompt-embeds` takes the embedded prompt and text of `/v1/completions` as base64 of
`torch.save` of one tensor `[P + T, D]`. It adds no BOS and no chat template, so the text is tokenized and embedded
here. It refuses `echo` with embeddings. So labels are ranked by the log-probabilities of their tokens, with one request
for each position where labels diverge, or several if more tokens follow there than a server tells at once.

The client speaks plain HTTP and does not need vLLM. `mixed_prompt` gives the tensors that offline `LLM.generate` takes.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spoton.errors import DataError, DownloadError, ModelError
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.many_prompts import label_tokens
from spoton.evaluation.predict import answers_from_scores
from spoton.evaluation.score import input_limit, label_score_of
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.example import Example
from spoton.tasks.fill import fill

_MOST_LOGPROBS = 20
"""Most log-probabilities of one answer, as vLLM's `--max-logprobs` has it unless it is given."""


def encode_tensor(tensor: Tensor) -> str:
    """Returns a tensor `[P + T, D]` as vLLM's loader expects it: dense, on the CPU, through `torch.save` and base64."""
    content = io.BytesIO()
    # A clone: for a view, `torch.save` would write the whole underlying storage.
    torch.save(tensor.detach().to("cpu").contiguous().clone(), content)
    return base64.b64encode(content.getvalue()).decode("ascii")


def prompt_embeds(model: FrozenModel, prompt: SoftPrompt, ids: Sequence[int]) -> Tensor:
    """Returns prompt and text as the model's first layer reads them: `[P + T, D]` in the model's type, on the CPU.

    Args:
        model: The frozen model.
        prompt: The prompt.
        ids: Tokens of the text, BOS included where the model has one.
    """
    tokens = model.network.get_input_embeddings()(torch.tensor(list(ids), device=model.device))
    return torch.cat([prompt.value.to(tokens), tokens]).detach().cpu()


def mixed_prompt(model: FrozenModel, prompt: SoftPrompt, ids: Sequence[int]) -> dict[str, Any]:
    """Returns the input of newer offline `LLM.generate`: rows for the prompt, plain token ids for the text.

    Returns:
        `prompt_token_ids` (0 for each virtual token), `prompt_is_token_ids`, and `prompt_embeds`
        `[P + T, D]`, of which only the first P rows are read.
    """
    rows = torch.zeros(prompt.length + len(ids), prompt.dim, dtype=model.dtype)
    rows[: prompt.length] = prompt.value.to(rows)
    return {
        "prompt_token_ids": [0] * prompt.length + list(ids),
        "prompt_is_token_ids": [False] * prompt.length + [True] * len(ids),
        "prompt_embeds": rows,
    }


def text_ids(model: FrozenModel, prompt: SoftPrompt, text: str) -> list[int]:
    """Returns the tokens of a text as `predict` reads it: with its template filled, and cut as in tuning.

    Raises:
        DataError: The text is empty, or does not fit the template.
    """
    labels = prompt.card.labels
    encoded = encode(
        model,
        [Example(fill(prompt.card.template, [text])[0], "")],
        end=needs_end(model, labels),
        prompt_length=prompt.length,
        max_input_tokens=input_limit(prompt.card),
        labels=labels,
    )
    return encoded.inputs[0]


def completion_body(
    model: FrozenModel, prompt: SoftPrompt, text: str, *, served_model: str, max_tokens: int = 32
) -> dict[str, Any]:
    """Returns the body of one `POST /v1/completions` that continues a text greedily.

    Args:
        model: The frozen model.
        prompt: The prompt; its card's template turns the text into the input.
        text: The text.
        served_model: The server's name for the model.
        max_tokens: Most tokens of the answer.

    Raises:
        PromptError: The prompt belongs to another model, or is an ensemble.
        ModelError: The model is an encoder-decoder, for which vLLM takes no embeddings.
        DataError: The text is empty, or does not fit the template.
    """
    _require_fit(model, prompt)
    embeds = prompt_embeds(model, prompt, text_ids(model, prompt, text))
    return _body(served_model, embeds, max_tokens)


@dataclass(frozen=True)
class VllmClient:
    """Completions and label probabilities of a prompt from a running vLLM server.

    Attributes:
        url: URL of the server, such as `http://localhost:8000/v1`.
        model: The frozen model; only its tokenizer and embedding matrix are used.
        prompt: The prompt.
        served_model: The server's name for the model.
        api_key: Bearer token, if the server requires one.
        timeout: Seconds to wait for an answer.

    Raises:
        PromptError: The prompt belongs to another model, or is an ensemble.
        ModelError: The model is an encoder-decoder.

    Examples:
        >>> client = VllmClient("http://localhost:8000/v1", model, prompt, "my-model")  # doctest: +SKIP
        >>> client.complete("A joy from start to end.")  # doctest: +SKIP
        'positive'
    """

    url: str
    model: FrozenModel
    prompt: SoftPrompt
    served_model: str
    api_key: str | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        _require_fit(self.model, self.prompt)

    def complete(self, text: str, *, max_tokens: int = 32) -> str:
        """Returns the greedy continuation of a text after the prompt.

        Raises:
            DataError: The text is empty, or does not fit the prompt's template.
            DownloadError: The server is not reachable, or refuses.
        """
        body = completion_body(
            self.model, self.prompt, text, served_model=self.served_model, max_tokens=max_tokens
        )
        return str(self._post(body)["text"]).strip()

    def classify(self, text: str) -> dict[str, float]:
        """Returns the probabilities of the prompt's labels, as `predict` does.

        Raises:
            DataError: The prompt has no labels, the text is empty, or does not fit the template.
            DownloadError: The server is not reachable, refuses, or does not support `logprob_token_ids`.
        """
        labels = self.prompt.card.labels
        if not labels:
            raise DataError(f"{self.prompt.card.name!r} has no labels to rank. Use complete.")
        tokens = label_tokens(self.model, labels)
        start = text_ids(self.model, self.prompt, text)
        likelihoods = [0.0] * len(labels)
        for prefix in sorted({tuple(ids[:n]) for ids in tokens for n in range(len(ids))}, key=len):
            behind = [n for n, ids in enumerate(tokens) if tuple(ids[: len(prefix)]) == prefix]
            behind = [n for n in behind if len(tokens[n]) > len(prefix)]
            following = sorted({tokens[n][len(prefix)] for n in behind})
            found = self._token_log_probabilities([*start, *prefix], following)
            for n in behind:
                likelihoods[n] += found[tokens[n][len(prefix)]]
        scores = torch.tensor([likelihoods])
        if label_score_of(self.prompt.card) == "mean":
            scores = scores / torch.tensor([len(ids) for ids in tokens])
        # As `predict` makes answers of scores, calibration included.
        ((_, chances),) = answers_from_scores(self.prompt.card, scores[None])
        return chances

    def _token_log_probabilities(self, ids: list[int], tokens: list[int]) -> dict[int, float]:
        """Returns the log-probability of each of `tokens` after prompt and `ids`."""
        body = _body(self.served_model, prompt_embeds(self.model, self.prompt, ids), max_tokens=1)
        found: dict[int, float] = {}
        for start in range(0, len(tokens), _MOST_LOGPROBS):
            some = tokens[start : start + _MOST_LOGPROBS]
            more = {"logprobs": len(some), "logprob_token_ids": some, "return_tokens_as_token_ids": True}
            choice = self._post(body | more)
            try:
                answered = choice["logprobs"]["top_logprobs"][0]
                found |= {token: float(answered[f"token_id:{token}"]) for token in some}
            except (KeyError, IndexError, TypeError) as error:
                raise DownloadError(
                    f"{self.url} gave no log-probability for all of the tokens {some}. "
                    "Ranking needs a vLLM with logprob_token_ids; upgrade it, or use complete."
                ) from error
        return found

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the first choice of a completion."""
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/completions",
            data=json.dumps(body).encode(),
            headers=headers,
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.load(response)
            choice: dict[str, Any] = answer["choices"][0]
        except urllib.error.HTTPError as error:
            raise DownloadError(
                f"{self.url} answered {error.code}: {error.read()[:500].decode(errors='replace')}. "
                "The server needs --enable-prompt-embeds and the prompt's own model."
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DownloadError(f"{self.url} gave no completion: {error}. Check the address.") from error
        return choice


def _body(served_model: str, embeds: Tensor, max_tokens: int) -> dict[str, Any]:
    return {
        "model": served_model,
        "prompt_embeds": encode_tensor(embeds),
        "max_tokens": max_tokens,
        "temperature": 0,
    }


def _require_fit(model: FrozenModel, prompt: SoftPrompt) -> None:
    prompt.require_model(model.fingerprints, model.name)
    prompt.require_single("a request to vLLM")  # the rows of all members one after another are none of them
    if model.is_encoder_decoder:
        raise ModelError(
            f"{model.name} is an encoder-decoder model, and vLLM takes embeddings for decoder-only models alone. "
            "Export its prompts to peft or tgis."
        )
