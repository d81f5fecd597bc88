"""Requests for vLLM, checked as its loader documents it, and answered by a local server that runs the model.

vLLM itself is not run: it needs a GPU build of torch. The server below restates the checks of its loader, then
continues the embeddings with transformers.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from spoton.errors import DataError, DownloadError, ModelError, PromptError
from spoton.evaluation import predict
from spoton.exchange.vllm import VllmClient, completion_body, encode_tensor, mixed_prompt, text_ids
from spoton.models import FrozenModel
from spoton.prompts.ensemble import ensemble_of
from tests.exchange.conftest import TEXTS, prompt_of
from tests.tiny import tiny


def loaded(payload: str, width: int) -> torch.Tensor:
    """What vLLM's loader makes of a payload; its checks raise as they do there."""
    content = base64.b64decode(payload, validate=True)
    with torch.sparse.check_sparse_tensor_invariants():
        tensor = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError("not a tensor")
        tensor = tensor.to_dense()
    if tensor.dim() > 2:
        tensor = tensor.squeeze(0)
    if tensor.dim() != 2 or tensor.shape[1] != width:
        raise ValueError(f"shape {list(tensor.shape)}")
    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):  # what older versions take
        raise ValueError(f"type {tensor.dtype}")
    return tensor


def answer(model: FrozenModel, body: dict[str, Any]) -> dict[str, Any]:
    """The choice of a completion, with log-probabilities of the tokens asked for."""
    if body.get("echo") or "prompt" in body:
        raise ValueError("Echo is unsupported with prompt embeds.")
    embeds = loaded(body["prompt_embeds"], model.dim)[None].to(model.dtype)
    with torch.no_grad():
        likelihoods = model.network(inputs_embeds=embeds).logits[0, -1].log_softmax(-1)
        ids = model.network.generate(
            inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=body["max_tokens"],
            do_sample=False, eos_token_id=model.end_token, pad_token_id=1,
        )[0].tolist()  # fmt: skip
    wanted = body.get("logprob_token_ids")
    if body.get("logprobs", 0) > 20:
        raise ValueError("Requested sample logprobs is greater than max allowed: 20")
    assert not wanted or body["return_tokens_as_token_ids"]
    logprobs = {f"token_id:{token}": float(likelihoods[token]) for token in wanted or ()}
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    return {"index": 0, "text": text, "logprobs": {"top_logprobs": [logprobs]} if wanted else None}


@pytest.fixture
def server() -> Iterator[tuple[str, FrozenModel, list[dict[str, Any]]]]:
    """A completions endpoint over a tiny model: its address, the model, and the bodies it was sent."""
    model = tiny("llama")
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Keeps stderr free."""

        def do_POST(self) -> None:
            """Answers or refuses a completion."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            try:
                if body["model"] != "tiny":
                    raise ValueError("no such model")
                status, document = 200, {"object": "text_completion", "choices": [answer(model, body)]}
            except ValueError as error:
                status, document = 400, {"error": {"message": str(error), "param": "prompt_embeds"}}
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/v1", model, bodies
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_body_passes_the_loaders_checks(dtype: torch.dtype) -> None:
    model = tiny("llama")
    model.network.to(dtype)
    prompt = prompt_of(model, template="{{ text }}\nVerdict:")
    body = completion_body(model, prompt, TEXTS[0], served_model="tiny")
    tensor = loaded(body["prompt_embeds"], model.dim)
    ids = model.encode_input(f"{TEXTS[0]}\nVerdict:")
    assert tensor.dtype == dtype and tensor.is_contiguous() and tensor.layout == torch.strided
    assert torch.equal(tensor[: prompt.length], prompt.value.to(dtype))
    assert torch.equal(tensor[prompt.length :], model.embeddings[ids])
    assert body.keys() == {"model", "prompt_embeds", "max_tokens", "temperature"}
    json.dumps(body)


def test_a_view_is_sent_without_what_lies_around_it() -> None:
    whole = torch.arange(60_000.0).reshape(1000, 60)
    payload = encode_tensor(whole[:2].T)
    assert torch.equal(loaded(payload, 2), whole[:2].T) and len(payload) < 8000


def test_the_mixed_form_marks_what_comes_from_where() -> None:
    model = tiny("llama")
    prompt = prompt_of(model)
    ids = text_ids(model, prompt, TEXTS[0])
    mixed = mixed_prompt(model, prompt, ids)
    is_token = torch.tensor(mixed["prompt_is_token_ids"])
    assert (
        len(is_token)
        == len(mixed["prompt_token_ids"])
        == len(mixed["prompt_embeds"])
        == prompt.length + len(ids)
    )
    from_ids = model.embeddings[mixed["prompt_token_ids"]]
    merged = torch.where(is_token[:, None], from_ids, mixed["prompt_embeds"])
    expected = loaded(completion_body(model, prompt, TEXTS[0], served_model="x")["prompt_embeds"], model.dim)
    assert torch.equal(merged, expected)


def test_the_client_completes_as_predict_does(server: tuple[str, FrozenModel, list[dict[str, Any]]]) -> None:
    url, model, bodies = server
    prompt = prompt_of(model, template="{{ text }}\nVerdict:")
    client = VllmClient(url, model, prompt, "tiny", api_key="secret")
    expected = predict(model, prompt, TEXTS[:10], max_tokens=8)
    for text, one in zip(TEXTS[:10], expected, strict=True):
        assert client.complete(text, max_tokens=8) == one.answer
    assert {(body["path"], body["key"]) for body in bodies} == {("/v1/completions", "Bearer secret")}


MANY = [chr(ord("a") + n) for n in range(26)]
"""More labels, each with a first token of its own, than a server gives log-probabilities at once."""


@pytest.mark.parametrize(
    "labels", [["yes", "no"], ["yes", "yes and no", "dreadful"], ["lovely", "love"], MANY], ids=len
)
def test_the_client_ranks_labels_as_predict_does(
    labels: list[str], server: tuple[str, FrozenModel, list[dict[str, Any]]]
) -> None:
    """Labels of one token and of several, some of which begin alike."""
    url, model, _ = server
    bias = [0.5 * n for n in range(len(labels))]
    calibration = {"bias": bias, "temperature": 1.5, "rows": 8}
    prompt = prompt_of(model, template="{{ text }}\nVerdict:", labels=labels, calibration=calibration)
    client = VllmClient(url, model, prompt, "tiny")
    for text, one in zip(TEXTS[:4], predict(model, prompt, TEXTS[:4]), strict=True):
        assert client.classify(text) == pytest.approx(one.probabilities, abs=1e-4)


def test_the_client_scores_labels_as_the_prompt_was_tuned(
    server: tuple[str, FrozenModel, list[dict[str, Any]]],
) -> None:
    """A long label loses by the sum of its tokens, and not by their mean."""
    url, model, _ = server
    labels, recipe = ["yes", "yes maybe no yes", "no maybe"], {"label_score": "mean"}
    prompt = prompt_of(model, template="{{ text }}\nVerdict:", labels=labels, recipe=recipe)
    client = VllmClient(url, model, prompt, "tiny")
    for text, one in zip(TEXTS[:4], predict(model, prompt, TEXTS[:4]), strict=True):
        assert client.classify(text) == pytest.approx(one.probabilities, abs=1e-4)


def test_an_ensemble_is_refused(server: tuple[str, FrozenModel, list[dict[str, Any]]]) -> None:
    url, model, _ = server
    whole = ensemble_of(
        [prompt_of(model, seed=seed, name=f"p{seed}", labels=["yes", "no"]) for seed in (1, 2)], "both"
    )
    with pytest.raises(PromptError, match="ensemble of p1, p2"):
        VllmClient(url, model, whole, "tiny")
    with pytest.raises(PromptError, match="ensemble of p1, p2"):
        completion_body(model, whole, TEXTS[0], served_model="tiny")


def test_what_goes_wrong_is_said(server: tuple[str, FrozenModel, list[dict[str, Any]]]) -> None:
    url, model, _ = server
    prompt = prompt_of(model)
    with pytest.raises(DownloadError, match=r"answered 400: .*no such model"):
        VllmClient(url, model, prompt, "other").complete("it")
    with socket.socket() as silent, pytest.raises(DownloadError, match="gave no completion"):
        silent.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets the port meanwhile
        VllmClient(f"http://127.0.0.1:{silent.getsockname()[1]}", model, prompt, "tiny").complete("it")
    with pytest.raises(DataError, match="no labels"):
        VllmClient(url, model, prompt, "tiny").classify("it")
    with pytest.raises(DataError, match="empty"):
        VllmClient(url, model, prompt, "tiny").complete(" ")
    seq2seq = tiny("t5")
    with pytest.raises(ModelError, match="encoder-decoder"):
        VllmClient(url, seq2seq, prompt_of(seq2seq), "tiny")
