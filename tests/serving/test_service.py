"""Answers of the service equal those of `predict`, one by one, whatever else is in the same pass."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoton.errors import DataError, LibraryError
from spoton.evaluation import predict
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, ensemble_of
from spoton.prompts.remote_folder import RemoteFolder
from spoton.serving import service as service_module
from spoton.serving.api_types import CompletionRequest
from spoton.serving.completions import begin
from spoton.serving.errors import RequestError
from spoton.serving.limits import Limits
from spoton.serving.service import Answer, Service
from tests.serving.running import LABELS, a_library, a_prompt, patient
from tests.tiny import BAD, GOOD, NOUNS, tiny

WORDS = (*GOOD, *BAD, *NOUNS, "The", "was", ".", "\n", "é", "日")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join).filter(str.strip)


class Running:
    """A service in an event loop of its own."""

    def __init__(self, model: FrozenModel, folder: Path, limits: Limits | None = None) -> None:
        self.model, self.library = model, a_library(model, folder)
        self.runner = asyncio.Runner()
        self.service = Service(model, [self.library], limits or patient())

    def classify(self, names: list[str], rows: list[str]) -> list[Answer]:
        return self.runner.run(self.service.classify(names, rows, max_tokens=6))

    def close(self) -> None:
        self.runner.run(self.service.close())
        self.runner.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # A pass holds a few texts only, so that a request is cut into several.
    started = Running(tiny("llama"), tmp_path_factory.mktemp("llama") / "prompts", patient(pass_tokens=150))
    yield started
    started.close()


def require_equal(found: list[Answer], names: list[str], rows: list[str], started: Running) -> None:
    """Compares with `predict`, one row at a time."""
    assert len(found) == len(rows)
    for answer, name, row in zip(found, names, rows, strict=True):
        (expected,) = predict(started.model, started.library.get(name), [row], max_tokens=6)
        assert answer.prompt == name
        assert (answer.probabilities is None) == (expected.probabilities is None)
        if expected.probabilities is None or answer.probabilities is None:
            assert answer.answer == expected.answer
        else:
            assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
            assert answer.answer == max(answer.probabilities, key=answer.probabilities.__getitem__)


@given(st.lists(st.tuples(st.sampled_from(sorted(LABELS)), TEXTS), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_equals_one_by_one(llama: Running, asked: list[tuple[str, str]]) -> None:
    names, rows = [name for name, _ in asked], [text for _, text in asked]
    require_equal(llama.classify(names, rows), names, rows, llama)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(sorted(LABELS)), TEXTS), min_size=1, max_size=4), max_size=5)
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_requests_that_come_together_do_not_mix_up(
    llama: Running, asked: list[list[tuple[str, str]]]
) -> None:
    async def together() -> list[list[Answer]]:
        return await asyncio.gather(
            *(llama.service.classify(*map(list, zip(*one, strict=True)), max_tokens=6) for one in asked)
        )

    for one, found in zip(asked, llama.runner.run(together()), strict=True):
        names, rows = map(list, zip(*one, strict=True))
        require_equal(found, names, rows, llama)


def test_requests_that_are_being_read_join_the_pass(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts", patient(read_seconds=60, wait_seconds=0))
    sizes: list[int] = []
    counted = started.service.batcher._on_pass

    def on_pass(inputs: int, tokens: int, seconds: float) -> None:
        sizes.append(inputs)
        counted(inputs, tokens, seconds)

    started.service.batcher._on_pass = on_pass
    names = sorted(name for name, labels in LABELS.items() if labels)

    async def all_at_once() -> None:
        await asyncio.gather(*(started.service.classify([names[0]], [f"good {n}"]) for n in range(8)))

    started.runner.run(all_at_once())
    with pytest.raises(DataError):  # a request that fails is no longer waited for
        started.classify([names[0]], [{"no": "column"}])  # type: ignore[list-item]
    started.classify([names[0]], ["good"])
    started.close()
    assert sizes == [8, 1]


def test_an_error_behind_finished_answers_does_not_end_the_thread(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts")
    batcher = started.service.batcher
    counted, failed = batcher._on_pass, threading.Event()

    def on_pass(inputs: int, tokens: int, seconds: float) -> None:
        batcher._on_pass = counted
        failed.set()
        raise RuntimeError("The answers are there, and then this.")

    batcher._on_pass = on_pass
    name = next(name for name, labels in LABELS.items() if labels)
    first = started.classify([name], ["good"])
    assert failed.wait(60)
    assert started.classify([name], ["good"]) == first
    started.close()


@pytest.mark.parametrize("family", ["gpt2", "bloom", "t5"])
def test_other_engines(family: str, tmp_path: Path) -> None:
    started = Running(tiny(family), tmp_path / "prompts")
    names = ["short", "long", "many", "open", "short", "nested"]
    rows = [
        f"The {noun} was {word}."
        for noun, word in zip((*NOUNS, "film"), (*GOOD, "dull", "cold"), strict=True)
    ]
    require_equal(started.classify(names, rows), names, rows, started)
    started.close()


def test_a_sliding_window(tmp_path: Path) -> None:
    started = Running(tiny("mistral", sliding_window=12), tmp_path / "prompts")
    names, rows = ["many", "long", "short"], ["film", "The film was lovely. " * 4, "book"]
    require_equal(started.classify(names, rows), names, rows, started)
    started.close()


def test_without_room_for_keys_the_answers_are_the_same(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts", patient(cache_bytes=3000))
    names, rows = ["short", "many", "long", "short"], ["A film.", "A book.", "A song.", "A meal."]
    require_equal(started.classify(names, rows), names, rows, started)
    assert started.service.passes.cache.bytes <= 3000
    started.close()


def test_what_was_cut_is_told(llama: Running) -> None:
    text = "The film was lovely. " * 80
    (whole,) = llama.classify(["short"], ["The film."])
    (cut,) = llama.classify(["short"], [text])
    model = llama.model
    assert whole.cut == 0 and cut.cut > 0
    assert cut.tokens + cut.cut == len(model.encode_input(f"{text}\nVerdict:"))


def test_a_request_of_too_many_tokens(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts", patient(tokens=50))
    with pytest.raises(RequestError, match="at most 50") as told:
        started.classify(["short"] * 9, ["The film was lovely."] * 9)
    assert told.value.status == 413
    started.close()


def test_time_is_up(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts", Limits(seconds=-1))
    for name in ("short", "open"):
        with pytest.raises(RequestError, match="took longer") as told:
            started.classify([name], ["The film was lovely."])
        assert told.value.status == 504
    started.close()


def test_rows_that_do_not_fit_their_template(llama: Running) -> None:
    with pytest.raises(DataError, match="empty"):
        llama.classify(["short"], [" "])


def test_an_ensemble_answers_as_predict_does_and_does_not_continue_texts(tmp_path: Path) -> None:
    started = Running(tiny("llama"), tmp_path / "prompts", patient(pass_tokens=60))
    try:
        several = [a_prompt(started.model, "short"), a_prompt(started.model, "nested", labels=["yes", "no"])]
        started.library.add(ensemble_of(several, "joint"))
        started.library.add(ensemble_of([started.library.get("open")] * 2, "joint-open"))
        names, rows = ["joint", "long", "joint"], ["The film was warm", "A dull book", "é"]
        require_equal(started.classify(names, rows), names, rows, started)
        with pytest.raises(RequestError, match="votes on whole texts"):
            started.classify(["joint-open"], ["The film"])
        with pytest.raises(RequestError, match="joint is an ensemble, which classifies"):
            request = CompletionRequest(model="joint", prompt="The film", max_tokens=2)
            started.runner.run(begin(started.service, request))
    finally:
        started.close()


@pytest.mark.parametrize(
    "template",
    [
        "{{ 9 ** (9 ** 9) }}{{ text }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ text }}",
        "{{ 'a' * 9999999999 }}{{ text }}",
    ],
)
def test_a_template_that_never_ends(tmp_path: Path, template: str) -> None:
    llama = Running(tiny("llama"), tmp_path / "prompts", patient(template_seconds=3))
    llama.library.add(a_prompt(llama.model, "endless", template=template), replace=True)
    llama.service.roster.refresh()
    with pytest.raises(DataError, match=r"template (needs more than|fails)"):
        llama.classify(["endless"], ["A text."])
    names, rows = ["short"], ["The film."]
    require_equal(llama.classify(names, rows), names, rows, llama)
    llama.close()


def test_prompts_come_and_go(llama: Running) -> None:
    with pytest.raises(RequestError, match="no prompt 'fresh'"):
        llama.classify(["fresh"], ["A film."])
    llama.library.add(a_prompt(llama.model, "fresh"))
    (first,) = llama.classify(["fresh"], ["A film."])
    llama.library.add(a_prompt(llama.model, "fresh", labels=["maybe", "other"]), replace=True)
    llama.service.roster.refresh()
    (second,) = llama.classify(["fresh"], ["A film."])
    assert first.probabilities is not None and second.probabilities is not None
    assert set(first.probabilities) == {"yes", "no"} and set(second.probabilities) == {"maybe", "other"}
    llama.library.remove("fresh")
    llama.service.roster.refresh()
    with pytest.raises(RequestError) as told:
        llama.classify(["fresh"], ["A film."])
    assert told.value.status == 404


def test_a_library_behind_a_url_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path))
    monkeypatch.setattr(service_module, "_FETCH_SECONDS", 0.05)
    model, url = tiny("llama"), f"memory://{uuid.uuid4()}/prompts"
    elsewhere = PromptLibrary(url)
    elsewhere.add(a_prompt(model, "short"))
    elsewhere.add(a_prompt(model, "foreign", model_fingerprint="f00d"))
    service = Service(model, [PromptLibrary(url, readonly=True)])
    roster = service.roster
    assert list(roster.served) == ["short"] and [one.folder for one in roster.refused] == [url]

    async def seen(condition: Callable[[], bool]) -> bool:
        until = time.monotonic() + 20
        while not condition() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return condition()

    async def serve() -> None:
        await service.start()
        fs = fsspec.filesystem("memory")  # as another machine changes it, past this one's mirror
        root = url.removeprefix("memory:/")
        fs.pipe_file(f"{root}/many.safetensors", a_prompt(model, "many").to_bytes())
        fs.rm_file(f"{root}/short.safetensors")
        assert await seen(lambda: list(roster.served) == ["many"])
        assert (await service.prompt("many")).name == "many"
        monkeypatch.setattr(RemoteFolder, "refresh", unreachable)
        assert await seen(lambda: "no such host" in caplog.text)
        assert list(roster.served) == ["many"]
        await service.close()

    def unreachable(self: RemoteFolder) -> None:
        raise LibraryError("no such host")

    asyncio.run(serve())


def test_prompts_under_an_older_fingerprint_of_the_model_are_served(llama: Running) -> None:
    older = llama.model.fingerprints[-1]
    assert older != llama.model.fingerprint
    llama.library.add(a_prompt(llama.model, "older", model_fingerprint=older))
    require_equal(llama.classify(["older"], ["A film."]), ["older"], ["A film."], llama)
    llama.library.remove("older")


def test_prompts_that_are_not_served_say_why(llama: Running) -> None:
    llama.library.add(a_prompt(llama.model, "foreign", model_fingerprint="f00d"))
    (llama.library.folder / "broken.safetensors").write_bytes(b"no prompt")
    with pytest.raises(RequestError, match="f00d"):
        llama.classify(["foreign"], ["A film."])
    with pytest.raises(RequestError, match="damaged"):
        llama.classify(["broken"], ["A film."])
    for name in ("foreign", "broken"):
        llama.library.remove(name)


def test_a_name_in_two_libraries_and_the_name_of_the_model(tmp_path: Path) -> None:
    model = tiny("llama")
    first, second = PromptLibrary(tmp_path / "a"), PromptLibrary(tmp_path / "b")
    first.add(a_prompt(model, "news", labels=["yes", "no"]))
    second.add(a_prompt(model, "news", labels=["maybe", "other"]))
    second.add(a_prompt(model, "tiny-llama"))
    service = Service(model, [first, second])
    assert service.roster.served["news"].card.labels == ["yes", "no"]
    reasons = {refused.name: refused.reason for refused in service.roster.refused}
    assert "comes first" in reasons["news"] and "model itself" in reasons["tiny-llama"]
    asyncio.run(service.close())


def test_a_pass_that_fails_is_told_to_those_in_it_alone(
    llama: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = llama.service.passes

    def broken(jobs: object) -> list[torch.Tensor]:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(passes, "label_scores", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            llama.classify(["short"], ["A film."])
    require_equal(llama.classify(["short"], ["A film."]), ["short"], ["A film."], llama)
