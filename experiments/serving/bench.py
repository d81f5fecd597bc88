"""Requests per second with many prompts over one model: spoton against PEFT, in the same process, in turns.

    python -m experiments.serving.bench [--rounds 3] [--dtype float32] [--write-docs]

There are 100 prompts and mixed traffic: every request has one text and one prompt, drawn at random. The arms are
spoton's service (queue, templates, cache of keys and values), PEFT with `set_adapter` before every request, and PEFT's
batches of several adapters (`adapter_names`), whose wrong rows are counted. All use the same texts and the same type,
which is the model's own choice (bfloat16 where the processor computes in it) unless `--dtype` names another. PEFT
gets token ids, so it does not pay for templates and tokenizing, which spoton does for every request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, get_peft_model

from experiments.bench import machine
from experiments.pages import filled
from experiments.serving.prompts import LENGTHS, fill_library, name_of, texts, varied
from spoton.evaluation.encoding import encode
from spoton.models import FrozenModel, load_model
from spoton.serving.limits import Limits
from spoton.serving.service import Service
from spoton.tasks import Example
from spoton.tasks.fill import fill
from spoton.tuning.record import write_record

CHECKOUT = Path(__file__).parents[2]
OUT = CHECKOUT / "docs" / "experiments" / "serving_bench.json"
PAGE = CHECKOUT / "docs" / "performance.md"
PROMPTS = 100
REQUESTS = {1: 24, 8: 64, 32: 128}  # requests at once -> requests in a round
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""A row is wrong if a probability differs by more: 8 bits of mantissa alone can move one by some hundredths."""

Ask = Callable[[int, str], Awaitable[torch.Tensor]]
"""Takes a prompt's number and a text, and returns the probabilities of the labels."""


class Peft:
    """PEFT: one model with every prompt as an adapter.

    Args:
        model: A copy of the frozen model.
    """

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self.prompts = [varied(number) for number in range(PROMPTS)]
        self.lock = asyncio.Lock()
        wrapped: Any = None
        for number, prompt in enumerate(self.prompts):
            config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prompt.length)
            if wrapped is None:
                wrapped = get_peft_model(model.network, config, adapter_name=name_of(number))
            else:
                wrapped.add_adapter(name_of(number), config)
            with torch.no_grad():
                wrapped.prompt_encoder[name_of(number)].embedding.weight.copy_(prompt.value)
        self.network = wrapped.eval()

    def encoded(self, number: int, text: str) -> tuple[list[int], list[int]]:
        """Returns the tokens of an input and of its labels, which have one token each."""
        card = self.prompts[number].card
        (filled,) = fill(card.template, [text])
        ids = encode(
            self.model, [Example(filled, "")], end=False, prompt_length=max(LENGTHS), max_input_tokens=256
        ).inputs[0]
        return ids, [self.model.encode_target(label, end=False)[0] for label in card.labels or []]

    async def one_by_one(self, number: int, text: str) -> torch.Tensor:
        """Switches the adapter, then runs the text."""
        async with self.lock:
            ids, labels = self.known[number, text]
            return await asyncio.to_thread(self._run, number, ids, labels)

    @torch.no_grad()
    def _run(self, number: int, ids: Sequence[int], labels: Sequence[int]) -> torch.Tensor:
        self.network.set_adapter(name_of(number))
        tokens = torch.tensor([ids])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits = self.network(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        return logits[0, -1, labels].float().softmax(0)

    @torch.no_grad()
    def mixed(self, asked: Sequence[tuple[int, str]]) -> list[torch.Tensor] | str:
        """Runs a batch of several adapters at once; returns probabilities, or PEFT's error message."""
        pairs = [self.known[one] for one in asked]
        longest = max(len(ids) for ids, _ in pairs)
        tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in pairs])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in pairs])
        names = [name_of(number) for number, _ in asked]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logits = self.network(input_ids=tokens, attention_mask=mask, adapter_names=names).logits
        except Exception as error:  # any error is a result
            return f"{type(error).__name__}: {str(error)[:200]}"
        virtual = logits.shape[1] - longest
        return [
            logits[row, virtual + len(ids) - 1, labels].float().softmax(0)
            for row, (ids, labels) in enumerate(pairs)
        ]

    known: dict[tuple[int, str], tuple[list[int], list[int]]]


async def timed(ask: Ask, asked: Sequence[tuple[int, str]], at_once: int) -> dict[str, Any]:
    """Sends requests, `at_once` at a time; returns requests per second, their times, and the answers."""
    waiting = list(enumerate(asked))[::-1]
    seconds: list[float] = []
    found: list[torch.Tensor | None] = [None] * len(asked)

    async def client() -> None:
        while waiting:
            place, one = waiting.pop()
            start = time.perf_counter()
            found[place] = await ask(*one)
            seconds.append(time.perf_counter() - start)

    start, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(at_once)))
    wall, used = time.perf_counter() - start, time.process_time() - processor
    cuts = statistics.quantiles(seconds, n=20)
    return {
        "requests_per_second": len(asked) / wall, "cpu_seconds_per_request": used / len(asked),
        "p50_ms": 1000 * statistics.median(seconds), "p95_ms": 1000 * cuts[18], "found": found,
    }  # fmt: skip


async def measure(rounds: int, requests: dict[int, int], dtype: str) -> dict[str, Any]:
    """Measures all arms, in turns.

    Args:
        rounds: Number of rounds.
        requests: Requests to send in a round, by number of requests at once.
        dtype: Type of the weights of all arms.
    """
    model = load_model(dtype=dtype, device="cpu")
    # Counted, since resident memory says little until every page of the weights has been read.
    weights = sum(weight.nbytes for weight in model.network.parameters())
    with tempfile.TemporaryDirectory() as folder:
        service = Service(model, [fill_library(Path(folder) / "prompts", PROMPTS)], Limits(seconds=600))
        peft = Peft(load_model(dtype=dtype, device="cpu"))
        chosen = texts(40)
        peft.known = {
            (number, text): peft.encoded(number, text) for number in range(PROMPTS) for text in chosen[:8]
        }

        async def spoton(number: int, text: str) -> torch.Tensor:
            (answer,) = await service.classify([name_of(number)], [text])
            assert answer.probabilities is not None
            return torch.tensor(list(answer.probabilities.values()))

        draw = random.Random(0)
        rows: list[dict[str, Any]] = []
        await timed(spoton, [(0, chosen[0])] * 4, 2)  # starts the process for templates
        start = time.perf_counter()
        for number in range(1, PROMPTS):  # computes every prompt's keys
            await spoton(number, chosen[0])
        first = (time.perf_counter() - start) / (PROMPTS - 1)
        for at_once, count in requests.items():
            for round_number in range(rounds):
                asked = [(draw.randrange(PROMPTS), draw.choice(chosen[:8])) for _ in range(count)]
                arms: list[tuple[str, Ask]] = [("spoton", spoton), ("PEFT, set_adapter", peft.one_by_one)]
                answers = {}
                for name, ask in arms if round_number % 2 else arms[::-1]:
                    result = await timed(ask, asked, at_once)
                    answers[name] = result.pop("found")
                    rows.append({"arm": name, "concurrency": at_once, "round": round_number} | result)
                    print(at_once, round_number, name, round(result["requests_per_second"], 2), flush=True)
                pairs = zip(answers["spoton"], answers["PEFT, set_adapter"], strict=True)
                rows[-1]["largest_difference"] = max(float((a - b).abs().max()) for a, b in pairs)
        mixed = wrong_rows(peft, [(draw.randrange(PROMPTS), draw.choice(chosen[:8])) for _ in range(32)])
        cached = service.passes.cache.bytes
        values = sum(prompt.value.numel() * 4 for prompt in service.roster.served.values())
        await service.close()
    return {
        "date": date.today().isoformat(), "rounds": rounds, "prompts": PROMPTS, "rows": rows, "mixed_batch": mixed,
        "first_use_ms": 1000 * first, "dtype": str(model.dtype).removeprefix("torch."),
        "memory": {
            "model_bytes": weights,
            "prompt_bytes": values / PROMPTS, "cached_keys_bytes": cached / PROMPTS,
        },
    }  # fmt: skip


def wrong_rows(peft: Peft, asked: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Returns how many rows of PEFT's mixed batches differ from the same rows one by one.

    Args:
        peft: The adapters.
        asked: Rows, with prompts of several lengths. Rows with prompts of one length are also tried separately.
    """
    result: dict[str, Any] = {}
    lengths = sorted({peft.prompts[number].length for number, _ in asked})
    same = [one for one in asked if peft.prompts[one[0]].length == lengths[-1]]
    for name, part in (("several lengths", asked), ("one length", same)):
        found = peft.mixed(part)
        if isinstance(found, str):
            result[name] = {"rows": len(part), "error": found}
            continue
        alone = [peft._run(number, *peft.known[number, text]) for number, text in part]
        differences = [float((a - b).abs().max()) for a, b in zip(found, alone, strict=True)]
        wrong = sum(one > TOLERANCE[peft.model.dtype] for one in differences)
        result[name] = {"rows": len(part), "wrong": wrong, "largest_difference": max(differences)}
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the part for docs/performance.md."""
    names = ("requests_per_second", "p50_ms", "p95_ms", "cpu_seconds_per_request")
    lines = [
        "| at once | arm | requests a second | p50 ms | p95 ms | CPU s a request |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ratios = []
    for at_once in sorted({row["concurrency"] for row in result["rows"]}):
        middle = {}
        for arm in ("PEFT, set_adapter", "spoton"):
            own = [row for row in result["rows"] if (row["arm"], row["concurrency"]) == (arm, at_once)]
            middle[arm] = [statistics.median(row[name] for row in own) for name in names]
            a, b, c, d = middle[arm]
            lines.append(f"| {at_once} | {arm} | {a:.1f} | {b:.0f} | {c:.0f} | {d:.3f} |")
        ours, theirs = middle["spoton"], middle["PEFT, set_adapter"]
        ratios.append(
            f"{at_once} at once, {ours[0] / theirs[0]:.2f} times the throughput for "
            f"1/{theirs[3] / ours[3]:.2f} of the CPU seconds"
        )
    largest = max(row.get("largest_difference", 0) for row in result["rows"])
    described, lengths = result["machine"], ", ".join(map(str, LENGTHS))
    paragraphs = [
        f"{result['prompts']} prompts of {lengths} tokens, {result['dtype']}, {described['cores']} cores, "
        f"{described['threads']} thread(s), {result['rounds']} rounds, {result['date']}; "
        "processors busy with something else before the "
        f"start: {described['load_before']}.",
        "\n".join(lines),
        "Keys and values of all prompts are cached before the first round. The first request for a prompt, which "
        f"computes them, took {result['first_use_ms']:.0f} ms. spoton against PEFT with `set_adapter`: "
        f"{'; '.join(ratios)}. The answers differ by {largest:.1e} at most.",
        f"PEFT's batches of several adapters: {_mixed(result['mixed_batch'])}.",
        _memory(result["memory"]),
    ]
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 132) for part in paragraphs)


def _mixed(found: dict[str, Any]) -> str:
    """Returns a text on the result of PEFT's mixed batches."""
    return "; ".join(
        f"{name}: {one['error']}"
        if "error" in one
        else f"{name}: {one['wrong']} of {one['rows']} rows wrong (by up to {one['largest_difference']:.2f})"
        for name, one in found.items()
    )


def _memory(memory: dict[str, float]) -> str:
    """Returns a text on the memory of a prompt here, and in a separate process."""
    return (
        f"Memory: the weights take {memory['model_bytes'] / 2**20:.0f} MiB, which one process a prompt takes for each. "
        f"Here a further prompt takes {memory['prompt_bytes'] / 2**10:.0f} KiB and, "
        f"in the cache, {memory['cached_keys_bytes'] / 2**10:.0f} KiB of keys and values (means)."
    )


def main() -> int:
    """Runs the benchmark, or writes its result into the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's choice)")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="32 requests at once only, 32 a round")
    parser.add_argument("--write-docs", action="store_true", help="run nothing; write docs/performance.md")
    arguments = parser.parse_args()
    if not arguments.write_docs:
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        described = machine.describe(allocator_tuned=False)
        result = asyncio.run(
            measure(arguments.rounds, {32: 32} if arguments.quick else REQUESTS, arguments.dtype)
        ) | {"machine": described}
        gc.collect()
        write_record(OUT, result)
        print(table(result))
        return 0
    PAGE.write_text(filled(PAGE.read_text(), "serving", table(json.loads(OUT.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
