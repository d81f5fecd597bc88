"""The HTTP interface as real clients use it: the `openai` package, and plain requests."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from spoton.evaluation import predict
from spoton.models import FrozenModel
from spoton.models.concatenation import ConcatenationEngine
from spoton.models.engine import Batch
from spoton.prompts import PromptLibrary
from spoton.serving import http
from spoton.serving.jobs import ChosenToken, GenerateJob, Sampling, TextJob
from spoton.serving.passes import Passes
from spoton.serving.service import Service
from tests.serving.running import LABELS, a_library, get, patient, post, running, serving
from tests.tiny import WIDTH, tiny, tokenizer

TEXT = "The film was lovely.\nVerdict:"


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def library(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> PromptLibrary:
    return a_library(model, tmp_path_factory.mktemp("served") / "prompts")


@pytest.fixture(scope="module")
def url(model: FrozenModel, library: PromptLibrary) -> Iterator[str]:
    with serving(model, library) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def naive_likelihoods(model: FrozenModel, value: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """`[L, V]` log-likelihoods of what follows every token, by concatenation."""
    network = model.network
    embedded = torch.cat([value, network.get_input_embeddings()(torch.tensor(ids))])
    with torch.no_grad():
        logits = network(inputs_embeds=embedded[None]).logits[0, len(value) :]
    return torch.log_softmax(logits.float(), dim=-1)


def value_of(library: PromptLibrary, name: str) -> torch.Tensor:
    return torch.zeros(0, WIDTH) if name == "tiny-llama" else library.get(name).value


def test_models_are_listed_with_their_parent(client: openai.OpenAI) -> None:
    listed = {one.id: one.model_extra for one in client.models.list()}
    assert set(listed) == {"tiny-llama", *LABELS}
    parents = {name: extra["parent"] for name, extra in listed.items() if extra}
    assert parents == {"tiny-llama": None} | dict.fromkeys(LABELS, "tiny-llama")
    assert client.models.retrieve("short").id == "short"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


@pytest.mark.parametrize("name", ["short", "many", "tiny-llama"])
def test_completions_are_the_greedy_text_with_its_log_probabilities(
    client: openai.OpenAI, model: FrozenModel, library: PromptLibrary, name: str
) -> None:
    done = client.completions.create(
        model=name, prompt=TEXT, max_tokens=5, temperature=0, logprobs=3, echo=True
    )
    (choice,) = done.choices
    ids, value = model.encode_input(TEXT), value_of(library, name)
    batch = Batch([ids], [[]])
    (expected,) = ConcatenationEngine(model).generator(value[None])(batch, 5)
    whole = [*ids, *expected]
    assert choice.text == model.tokenizer.decode(whole)
    assert done.usage is not None and done.usage.prompt_tokens == len(ids)
    assert done.usage.completion_tokens == len(expected)
    logprobs = choice.logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.token_logprobs is not None
    assert len(logprobs.tokens) == len(whole) and "".join(logprobs.tokens[: len(ids)]) == TEXT
    naive = naive_likelihoods(model, value, whole)
    wanted = naive[:-1].gather(1, torch.tensor(whole[1:])[:, None])[:, 0].tolist()
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == pytest.approx(wanted, abs=1e-4)
    assert logprobs.top_logprobs is not None
    for top, row in zip(logprobs.top_logprobs[1:], naive[:-1], strict=True):
        assert sorted(top.values(), reverse=True) == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)


def test_texts_and_token_ids_alone_and_several(client: openai.OpenAI, model: FrozenModel) -> None:
    texts = ["The film was", "A book"]
    ids = [model.encode_input(text) for text in texts]
    settings: dict[str, Any] = {"model": "long", "max_tokens": 4, "temperature": 0}
    together = client.completions.create(prompt=texts, **settings)
    by_ids = client.completions.create(prompt=ids, **settings)
    assert [one.text for one in together.choices] == [one.text for one in by_ids.choices]
    assert [one.index for one in together.choices] == [0, 1]
    for text, own, choice in zip(texts, ids, together.choices, strict=True):
        assert client.completions.create(prompt=text, **settings).choices[0].text == choice.text
        assert client.completions.create(prompt=own, **settings).choices[0].text == choice.text


def test_a_stream_gives_the_same_text(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "short", "prompt": [TEXT, "A book"], "max_tokens": 12, "seed": 5}
    whole = client.completions.create(temperature=0.8, top_p=0.9, **settings)
    stream = client.completions.create(
        temperature=0.8, top_p=0.9, stream=True, stream_options={"include_usage": True}, **settings
    )
    texts, reasons, usage = ["", ""], {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == [one.text for one in whole.choices]
    assert reasons == {one.index: one.finish_reason for one in whole.choices}
    assert usage == whole.usage


def test_a_stream_on_the_wire_ends_with_done(url: str) -> None:
    body = {"model": "short", "prompt": TEXT, "max_tokens": 2, "stream": True, "echo": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"


def test_a_seed_decides_and_temperature_zero_does_not_draw(client: openai.OpenAI) -> None:
    def text(**settings: Any) -> str:
        return (
            client.completions.create(model="short", prompt=TEXT, max_tokens=10, **settings).choices[0].text
        )

    assert text(seed=1, temperature=1.5) == text(seed=1, temperature=1.5)
    assert len({text(seed=seed, temperature=1.5) for seed in range(6)}) > 1
    assert text(seed=1, temperature=0) == text(seed=2, temperature=0) == text(seed=3, top_p=1e-6)


def test_stop_strings(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "many", "prompt": TEXT, "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**settings).choices[0].text
    assert len(whole) > 4
    stop = whole[3:5]
    cut = client.completions.create(stop=["never there", stop], **settings).choices[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"
    streamed = client.completions.create(stop=stop, stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.text


def test_a_text_can_be_scored_without_adding_to_it(client: openai.OpenAI) -> None:
    done = client.completions.create(model="short", prompt=TEXT, max_tokens=0, echo=True, logprobs=1)
    assert done.choices[0].text == TEXT and done.usage is not None and done.usage.completion_tokens == 0


def test_requests_in_one_pass_get_as_many_top_tokens_as_each_asks_for(
    model: FrozenModel, library: PromptLibrary
) -> None:
    """The pass computes as many as the greediest of its requests wants."""
    passes, text = Passes(model, 2**20), model.encode_input(TEXT)
    jobs = [
        TextJob(key=name, value=library.get(name).value, text=text, deadline=0.0, top=top)
        for name, top in (("short", 0), ("short", 5), ("many", 2))
    ]
    found = passes.token_scores(jobs)
    assert [one.top.shape for one in found] == [(len(text) - 1, job.top) for job in jobs]
    alone = passes.token_scores(jobs[2:])[0]
    assert torch.equal(found[2].top_tokens, alone.top_tokens)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_text_of_one_token_has_nothing_before_it_to_be_scored_by(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    with serving(model, a_library(model, tmp_path)) as address:
        body = {"model": "short", "prompt": [[5], [6]], "max_tokens": 0, "echo": True, "logprobs": 1}
        answer = post(f"{address}/v1/completions", json=body)
    assert answer.status_code == 200
    for choice in answer.json()["choices"]:
        assert choice["logprobs"]["token_logprobs"] == [None] and choice["logprobs"]["top_logprobs"] == [None]


def test_errors_are_those_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nothing", prompt="A")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="short", prompt="A", temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="short", prompt="A film. " * 100)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="vocabulary"):
        client.completions.create(model="short", prompt=[1, 10**6])


def test_a_fault_of_the_server_is_answered_as_every_error(
    model: FrozenModel, library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(model, [library], patient())

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(service.roster, "refresh", broken)
    with running(service) as server:
        found = get(f"{server.address}/v1/prompts")
        assert found.status_code == 500 and found.json()["error"]["code"] == "internal_error"
        assert "a fault" not in found.text
        assert get(f"{server.address}/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": "short", "prompt": ""}, "prompt", "prompt: found ''; expected a text that is not empty."),
        ({"model": "short", "prompt": ["A", ""]}, "prompt", "prompt.1: found ''; expected a text that is not empty."),
        ({"model": "short", "prompt": 5}, "prompt", "prompt: found 5; expected text or a list."),
        ({"model": "short", "prompt": "A", "stop": [3]}, "stop", "stop.0: found 3; expected text."),
        ({"model": "short", "prompt": "A", "stream_options": {"x": 1}}, "stream_options", "stream_options.x: there"),
        ([], None, "found a list of 0; expected a mapping."),
        (None, None, "The body is not JSON: Expecting property name enclosed in double quotes, at character 1."),
    ],
)  # fmt: skip
def test_a_malformed_body_is_told_by_its_field(url: str, body: Any, param: str | None, message: str) -> None:
    sent: dict[str, Any] = {"content": "{bad"} if body is None else {"json": body}
    kind = {"Content-Type": "application/json"}
    answer = post(f"{url}/v1/completions", headers=kind, **sent)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert error["message"].startswith(message)


def test_another_path_is_told_those_that_there_are(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"/v1/chat/completions. There are POST /v1/classify"):
        client.chat.completions.create(model="short", messages=[{"role": "user", "content": "A"}])
    wrong = get(f"{url}/v1/classify")
    assert wrong.status_code == 405 and "POST /v1/classify" in wrong.json()["error"]["message"]


def test_a_prompt_that_is_not_there_is_told_by_its_field(url: str) -> None:
    for path, body in (
        ("classify", {"prompt": "nope", "inputs": ["A"]}), ("completions", {"model": "nope", "prompt": "A"}),
    ):  # fmt: skip
        answer = post(f"{url}/v1/{path}", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == next(
            name for name, value in body.items() if value == "nope"
        )


def test_a_damaged_prompt_is_told_in_one_sentence(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    own = PromptLibrary(tmp_path)
    own.add(library.get("short"))
    own.path("broken").write_bytes(b"x")
    with serving(model, own) as url:
        answer = post(f"{url}/v1/classify", json={"prompt": "broken", "inputs": ["A"]})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 404 and "'broken' is not served" in message and not message.endswith("..")


def test_classify_equals_predict(url: str, model: FrozenModel, library: PromptLibrary) -> None:
    rows = [{"text": "The film was lovely."}, "The book was dull.", "A meal."]
    names = ["short", "many", "open"]
    body = {"prompt": names, "inputs": rows, "max_tokens": 4}
    data = post(f"{url}/v1/classify", json=body).json()["data"]
    for index, (one, name, row) in enumerate(zip(data, names, rows, strict=True)):
        (expected,) = predict(model, library.get(name), [row], max_tokens=4)
        assert (one["index"], one["prompt"], one["answer"], one["cut"]) == (index, name, expected.answer, 0)
        assert one["probabilities"] == (
            None if expected.probabilities is None else pytest.approx(expected.probabilities, abs=1e-5)
        )


def test_health_metrics_and_prompts(url: str) -> None:
    assert get(f"{url}/health").json() == {"status": "ok", "prompts": len(LABELS)}
    post(f"{url}/v1/classify", json={"prompt": "short", "inputs": ["A film."]})
    text = get(f"{url}/metrics").text
    for line in (
        'spoton_requests_total{path="/v1/classify",status="200"}',
        'spoton_prompt_inputs_total{prompt="short"}',
        "spoton_cache_bytes",
        "spoton_queue_inputs",
        "spoton_pass_tokens_bucket",
        "spoton_request_seconds_bucket",
    ):
        assert line in text
    listed = get(f"{url}/v1/prompts").json()
    assert {one["name"]: one["labels"] for one in listed["served"]} == LABELS and listed["refused"] == []


def test_a_model_that_only_continues_greedily(tmp_path: Path) -> None:
    model = tiny("t5")
    with serving(model, a_library(model, tmp_path / "prompts"), patient()) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert client.completions.create(model="short", prompt=TEXT, max_tokens=3, temperature=0).choices
        with pytest.raises(openai.BadRequestError, match="greedily only"):
            client.completions.create(model="short", prompt=TEXT, temperature=0, logprobs=1)


def test_sampling_is_the_same_next_to_a_request_that_the_window_does_not_hold_with_it(tmp_path: Path) -> None:
    """Each fits into the window, but not the longest text of one with the many new tokens of the other."""
    model = tiny("mistral", sliding_window=40, max_position_embeddings=128)
    passes, value = Passes(model, 2**20), a_library(model, tmp_path).get("short").value

    def job(length: int, new: int, told: list[ChosenToken]) -> GenerateJob:
        return GenerateJob(
            key="short", value=value, text=list(range(5, 5 + length)), deadline=math.inf, max_tokens=new,
            sampling=Sampling(1.0, 1.0, 7, 1), on_token=told.append, on_end=lambda why: None,
        )  # fmt: skip

    def run(*jobs: GenerateJob) -> None:
        for generation in passes.generations(jobs):
            while generation.step():
                pass

    told: list[list[ChosenToken]] = [[], [], [], []]
    long, short = (25, 4), (3, 25)
    run(job(*long, told[0]))
    run(job(*short, told[1]))
    run(job(*long, told[2]), job(*short, told[3]))
    assert [[one.token for one in row] for row in told[2:]] == [
        [one.token for one in row] for row in told[:2]
    ]
    assert all(math.isfinite(one.log_likelihood) for row in told for one in row)


def test_an_encoder_decoder_reads_and_writes_as_many_tokens_as_it_has_positions(tmp_path: Path) -> None:
    model = tiny("bart")
    with serving(model, a_library(model, tmp_path / "prompts"), patient()) as address:
        for body in ({"prompt": [5] * 200, "max_tokens": 4}, {"prompt": [5], "max_tokens": 400}):
            answer = post(f"{address}/v1/completions", json={"model": "short", "temperature": 0, **body})
            assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
        body = {"model": "short", "temperature": 0, "prompt": [5] * 124, "max_tokens": 127}
        assert post(f"{address}/v1/completions", json=body).status_code == 200


def test_a_temperature_too_small_to_divide_by_is_none(client: openai.OpenAI) -> None:
    asked = {"model": "short", "prompt": TEXT, "max_tokens": 5}
    greedy = client.completions.create(temperature=0, **asked)
    assert client.completions.create(temperature=1e-40, **asked).choices[0].text == greedy.choices[0].text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "completions",
            {"model": "short", "prompt": TEXT, "max_tokens": 4000, "temperature": 1.5, "seed": 3},
        ),
        ("classify", {"prompt": "open", "inputs": ["A film"] * 15, "max_tokens": 2048}),
    ],
)
def test_nothing_more_is_generated_for_a_client_that_has_left(
    path: str, body: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_LOOK_SECONDS", 0.02)
    model = tiny("llama", max_position_embeddings=8192)
    service = Service(model, [a_library(model, tmp_path)], patient())
    with running(service) as server:
        with pytest.raises(httpx.ReadTimeout):
            post(f"{server.address}/v1/{path}", json=body, timeout=httpx.Timeout(60, read=0.3))
        patience = time.monotonic() + 20
        while service.batcher._running and time.monotonic() < patience:
            time.sleep(0.05)
        # That many tokens take longer on any processor.
        assert not service.batcher._running
        assert passes_of(server.address) < 0.75 * body["max_tokens"]


def passes_of(url: str) -> float:
    lines = get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("spoton_pass_inputs_count")))


def test_a_model_is_found_by_an_id_with_a_slash(tmp_path: Path) -> None:
    small = tiny("llama")
    model = FrozenModel("Qwen/Tiny-0.5B", small.network, small.tokenizer)
    with serving(model, a_library(model, tmp_path)) as address:
        (name, *_) = [one["id"] for one in get(f"{address}/v1/models").json()["data"]]
        assert get(f"{address}/v1/models/{name}").json()["id"] == name == "Qwen/Tiny-0.5B"


@pytest.mark.parametrize("family", ["t5", "bloom"])
def test_models_that_continue_in_one_step_stop_when_nobody_waits(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    passes, value = Passes(model, 2**20), a_library(model, tmp_path).get("short").value
    ends: list[str | Exception] = []

    def job(new: int) -> GenerateJob:
        return GenerateJob(
            key="short", value=value, text=[5, 6, 7], deadline=math.inf, max_tokens=new, sampling=Sampling(),
            on_token=lambda token: None, on_end=ends.append,
        )  # fmt: skip

    left, late, brief = job(1000), job(1000), job(2)
    seen: list[int] = []

    def leave(*_: object) -> None:
        seen.append(1)
        if len(seen) == 5:
            left.cancelled, late.deadline = True, 0.0

    (generation,) = passes.generations([left, late, brief])
    watched = model.network.register_forward_hook(leave)
    try:
        assert not generation.step()
    finally:
        watched.remove()
    assert len(seen) == 5  # the rows of this model do not end by themselves
    assert [type(end) for end in ends] == [TimeoutError, str]


def test_the_echo_is_the_text_as_given_and_offsets_are_places_in_it(tmp_path: Path) -> None:
    small, begun = tiny("llama"), tokenizer()
    begun.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begun.bos_token_id)]
    )
    model = FrozenModel("tiny-llama", small.network, begun)
    text = "é大 film<s> was"
    assert model.encode_input(text)[0] == begun.bos_token_id
    asked: dict[str, Any] = {"model": "short", "max_tokens": 6, "temperature": 0, "logprobs": 1}
    with serving(model, a_library(model, tmp_path)) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        (echoed,) = client.completions.create(prompt=text, echo=True, **asked).choices
        (alone,) = client.completions.create(prompt=text, **asked).choices
        (by_ids,) = client.completions.create(prompt=begun.encode(text), echo=True, **asked).choices
    assert echoed.text == text + alone.text
    assert by_ids.text == "<s>" + echoed.text  # whoever sends the token is shown it
    for choice in (echoed, alone, by_ids):
        logprobs = choice.logprobs
        assert logprobs is not None and logprobs.tokens is not None and logprobs.text_offset is not None
        places = list(zip(logprobs.tokens, logprobs.text_offset, strict=True))
        for token, offset in places[1:] if choice is echoed else places:
            assert token.startswith("token_id:") or choice.text.startswith(token, offset)
    assert echoed.logprobs is not None and echoed.logprobs.text_offset is not None
    # <s>, two tokens of é, three of 大, " film", "<s>", " was"
    assert echoed.logprobs.text_offset[:9] == [0, 0, 0, 1, 1, 1, 2, 7, 10]
