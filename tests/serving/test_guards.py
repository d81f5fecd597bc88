"""What stands in front of every request: token, host, sizes, queue, time, shutdown; and 100 malformed requests."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from spoton.errors import ServingError
from spoton.models import FrozenModel
from spoton.serving.guards import is_loopback
from spoton.serving.server import Server
from spoton.serving.service import Service
from tests.serving.running import a_library, get, patient, post, running, serving
from tests.tiny import tiny, tokenizer

ROW = {"prompt": "short", "inputs": ["The film was lovely."]}


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def url(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    library = a_library(model, tmp_path_factory.mktemp("guarded") / "prompts")
    with serving(model, library, patient(body_bytes=20_000, inputs=8)) as address:
        yield address


def answers(url: str) -> bool:
    return post(f"{url}/v1/classify", json=ROW).status_code == 200


def test_others_need_a_token(model: FrozenModel, tmp_path: Path) -> None:
    service = Service(model, [a_library(model, tmp_path / "prompts")])
    with pytest.raises(ServingError, match="--token-file"):
        Server(service, host="0.0.0.0", port=0)
    asyncio.run(service.close())


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.7", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_local(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_the_token_is_wanted_everywhere_but_for_health(model: FrozenModel, tmp_path: Path) -> None:
    service = Service(model, [a_library(model, tmp_path / "prompts")], patient())
    with running(service, token="0123456789abcdef") as server:
        address = server.address
        assert get(f"{address}/health").status_code == 200
        for path in ("/", "/metrics", "/v1/models", "/static/page.js", "/prompts/short"):
            for authorization in (
                "",
                "Bearer wrong",
                "Bearer 0123456789abcdeF",
                "Basic !!!",
                "Basic eDp5",
                "Bearer é",
            ):
                found = get(f"{address}{path}", headers={"Authorization": authorization.encode()})
                assert found.status_code == 401 and found.json()["error"]["code"] == "invalid_api_key"
            good = {"Authorization": "Bearer 0123456789abcdef"}
            assert get(f"{address}{path}", headers=good).status_code == 200
            assert get(f"{address}{path}", auth=("me", "0123456789abcdef")).status_code == 200


def test_a_name_that_is_not_this_machine_s_is_refused(url: str) -> None:
    port = url.rpartition(":")[2]
    assert get(f"{url}/v1/models", headers={"Host": f"evil.example:{port}"}).status_code == 403
    assert get(f"{url}/v1/models", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_no_other_site_may_read(url: str) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    asked = httpx.options(f"{url}/v1/classify", headers=headers, timeout=60)
    got = get(f"{url}/v1/models", headers={"Origin": "https://evil.example"})
    for response in (asked, got):
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    plain = post(f"{url}/v1/classify", content=json.dumps(ROW), headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415


def test_too_much_is_413(url: str) -> None:
    assert post(f"{url}/v1/classify", json=ROW | {"inputs": ["A"] * 9}).status_code == 413
    large = json.dumps(ROW | {"inputs": ["A" * 30_000]}).encode()
    kind = {"Content-Type": "application/json"}
    assert post(f"{url}/v1/classify", content=large, headers=kind).status_code == 413
    pieces = (large[i : i + 1000] for i in range(0, len(large), 1000))  # chunked, without a length
    assert post(f"{url}/v1/classify", content=pieces, headers=kind).status_code == 413
    assert answers(url)


def test_a_body_that_does_not_come_is_408(model: FrozenModel, tmp_path: Path) -> None:
    with serving(model, a_library(model, tmp_path / "prompts"), patient(body_seconds=0.5)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as open_socket:
            open_socket.sendall(
                f"POST /v1/classify HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
                "Content-Length: 100\r\n\r\n{".encode()
            )
            assert b" 408 " in open_socket.recv(1000).splitlines()[0]


def test_a_full_queue_is_429(model: FrozenModel, tmp_path: Path) -> None:
    with serving(model, a_library(model, tmp_path / "prompts"), patient(queue=2)) as address:
        found = post(f"{address}/v1/classify", json=ROW | {"inputs": ["A film."] * 3})
        assert found.status_code == 429 and int(found.headers["retry-after"]) >= 1
        assert found.json()["error"]["type"] == "rate_limit_error"
        assert answers(address)


def malformed() -> list[dict[str, Any]]:
    """100 requests that cannot be answered, each by method, path, body and headers."""
    good_completion = {"model": "short", "prompt": "A film.", "max_tokens": 1}
    bodies: list[Any] = [
        b"", b"{", b"[]", b"null", b"42", b'"text"', b"{}", b"\xff\xfe", b"\x00" * 50, b"[" * 5000, b'{"a":' * 3000,
        b'{"prompt": "short", "inputs": ["\\ud800"]}', b'{"prompt": "short", "inputs": [NaN]}',
        b'{"prompt": "short", "inputs": ["A"], "max_tokens": 1e400}', b'{"prompt": "short" "inputs": []}',
    ]  # fmt: skip
    bad_rows: list[Any] = [
        {}, {"prompt": "short"}, {"inputs": ["A"]}, ROW | {"inputs": []}, ROW | {"inputs": "A"}, ROW | {"inputs": [1]},
        ROW | {"inputs": [None]}, ROW | {"inputs": [[]]}, ROW | {"inputs": [{}]}, ROW | {"inputs": [""]},
        ROW | {"inputs": ["\u00a0"]}, ROW | {"inputs": [{"other": "A"}]}, ROW | {"inputs": [{"text": ""}]},
        ROW | {"inputs": [{"text": None}]}, ROW | {"prompt": ""}, ROW | {"prompt": 3}, ROW | {"prompt": []},
        ROW | {"prompt": ["short", "short"]}, ROW | {"prompt": "nothing"}, ROW | {"prompt": "../../etc/passwd"},
        ROW | {"prompt": "/etc/passwd"}, ROW | {"prompt": "short.safetensors"}, ROW | {"prompt": "a" * 1000},
        ROW | {"prompt": "\u0000"}, ROW | {"template": "{{ text }}"}, ROW | {"path": "/etc"}, ROW | {"max_tokens": 0},
        ROW | {"max_tokens": "many"}, ROW | {"max_tokens": -1}, ROW | {"max_tokens": 10**30}, ROW | {"labels": ["a"]},
        ROW | {"model": "short"},
    ]  # fmt: skip
    bad_completions: list[Any] = [
        good_completion | change
        for change in (
            {"model": ""}, {"model": None}, {"model": "nothing"}, {"model": "../short"}, {"prompt": ""}, {"prompt": []},
            {"prompt": [""]}, {"prompt": [[]]}, {"prompt": [[1], "A"]}, {"prompt": [1, "A"]}, {"prompt": [-1]},
            {"prompt": [320]}, {"prompt": [2**40]}, {"prompt": [1.5]}, {"prompt": [True]}, {"prompt": {"a": 1}},
            {"prompt": None}, {"max_tokens": -1}, {"max_tokens": 10**9}, {"max_tokens": "1"[:0]}, {"temperature": -1},
            {"temperature": 3}, {"temperature": "hot"}, {"top_p": 0}, {"top_p": 2}, {"seed": 2**70}, {"seed": "a"},
            {"stop": 3}, {"stop": [""]}, {"stop": ["a"] * 40}, {"logprobs": 99}, {"logprobs": -1}, {"echo": 7},
            {"stream": "maybe"}, {"n": 2}, {"best_of": 3}, {"suffix": "x"}, {"logit_bias": {"1": 5}},
            {"presence_penalty": 1}, {"messages": []}, {"prompt_embeds": "AAAA"}, {"prompt": "A film. " * 400},
            {"stream_options": 1},
        )
    ]  # fmt: skip
    post = {"method": "POST", "headers": {"Content-Type": "application/json"}}
    asked = [post | {"path": "/v1/classify", "content": body} for body in bodies]
    asked += [post | {"path": "/v1/classify", "content": json.dumps(body).encode()} for body in bad_rows]
    asked += [
        post | {"path": "/v1/completions", "content": json.dumps(body).encode()} for body in bad_completions
    ]
    asked += [
        {"method": method, "path": path}
        for method, path in (
            ("GET", "/v1/classify"), ("DELETE", "/v1/models"), ("PUT", "/v1/completions"), ("GET", "/nothing"),
            ("GET", "/prompts/nothing"), ("GET", "/prompts/%2e%2e%2fx"), ("GET", "/static/../routes.py"),
            ("GET", "/static/%2e%2e/routes.py"), ("GET", "/v1/models/%00"), ("TRACE", "/"),
            ("POST", "/v1/chat/completions"),
        )
    ]  # fmt: skip
    return asked


def test_a_hundred_malformed_requests(url: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = malformed()
    assert len(asked) >= 100
    random.Random(0).shuffle(asked)
    with httpx.Client(base_url=url, timeout=60) as client:
        for number, request in enumerate(asked):
            path = request.pop("path")
            response = client.request(url=path, **request)
            assert 400 <= response.status_code < 500, (path, request, response.text)
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"]
            assert "Traceback" not in response.text and "site-packages" not in response.text
            if number % 20 == 0:
                assert answers(url)
    assert answers(url)
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["empty", "garbage", "version", "long", "negative", "tls"],
)
def test_what_is_not_http(url: str, raw: bytes) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as open_socket:
        open_socket.sendall(raw)
        open_socket.shutdown(socket.SHUT_WR)
        answer = open_socket.recv(10_000)
    assert b"Traceback" not in answer and not answer.startswith(b"HTTP/1.1 5")
    assert answers(url)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_end_finishes_what_is_in_flight_and_refuses_the_rest(name: str, tmp_path: Path) -> None:
    """A process of its own, told to stop by a signal in the middle of a long stream."""
    if signal.getsignal(signal.Signals[name]) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and processes started from here ignore it too")
    folder = tmp_path / "tiny-llama"
    model = tiny("llama", max_position_embeddings=2048)
    model.network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    library = a_library(model, tmp_path / "prompts")
    process = subprocess.Popen(
        [sys.executable, "-m", "spoton", "serve", str(library.folder), "--model", str(folder), "--port", "0", "--json",
         "--seconds", "300"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        document = ""
        while not document.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            document += line
        url = json.loads(document)["url"]
        body = {"model": "short", "prompt": "The film", "max_tokens": 1200, "temperature": 0, "stream": True}
        lines: list[str] = []
        begun = threading.Event()

        def read() -> None:
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
                for line in response.iter_lines():
                    lines.append(line)
                    begun.set()

        reader = threading.Thread(target=read)
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/health").status_code == 200
            reader.start()
            assert begun.wait(30)
            process.send_signal(signal.Signals[name])
            end = time.monotonic() + 30
            refused = client.post("/v1/classify", json=ROW)
            while refused.status_code == 200 and time.monotonic() < end:  # the signal has not arrived yet
                time.sleep(0.02)
                refused = client.post("/v1/classify", json=ROW)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
            assert client.get("/health").status_code == 503
        reader.join(60)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(60) == 0
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_process_of_templates_ends_quietly_when_nobody_reads(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spoton.serving.template_process", str(2**33)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.write(b'{"template": "{{ text }}", "rows": ["a"]}\n')
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0
    process.stderr.close()
