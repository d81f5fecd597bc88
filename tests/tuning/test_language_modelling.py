"""Language modelling as a source task: prefix-LM for encoder-decoders, plain continuation for decoder-only models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spoton.errors import DownloadError
from spoton.tasks import Task, load_task, resolve_task
from spoton.tuning import Recipe, tune
from tests.tiny import BAD, GOOD, NOUNS, tiny

RECIPE = Recipe(length=4, steps=30, key_step=10, evaluate_every=10, batch_size=4, learning_rate=0.05)
FAMILIES = ("t5", "llama")
ROOMY = {"llama": {"max_position_embeddings": 4096}, "t5": {}}

DEFINITION = """\
name: sayings
data_files: {train: sayings.jsonl}
process_docs: prefix_lm
doc_to_text: "{{ prefix }}"
doc_to_target: "{{ continuation }}"
metrics: [token_f1]
"""


def own_text(folder: Path) -> Task:
    """Plain text of the user's, through a task file."""
    texts = [
        " ".join(f"The {NOUNS[(i + j) % 5]} was {(*GOOD, *BAD)[(3 * i + j) % 8]}." for j in range(3))
        for i in range(40)
    ]
    (folder / "sayings.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "sayings.yaml").write_text(DEFINITION)
    return resolve_task("sayings", task_files=[folder / "sayings.yaml"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_prompt_is_learned_on_plain_text(family: str, tmp_path: Path) -> None:
    task = own_text(tmp_path)
    assert task.labels is None and all(row.input and row.target for row in task.train)
    assert all("was" in f"{row.input} {row.target}" for row in task.train), (
        "a text is cut in two, and nothing is lost"
    )
    tuned = tune(tiny(family), task.limited(validation=2), RECIPE)
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert tuned.prompt.key is not None and tuned.prompt.card.evaluation == "generate"


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_ships_with_a_package(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOTON_DATA_DIR", raising=False)
    try:
        task = load_task("news_text")
    except DownloadError as error:
        pytest.skip(f"offline, and the archive is not in the cache: {error}")
    model = tiny(family, **ROOMY[family])
    tuned = tune(
        model, task.limited(train=4, validation=1), RECIPE.changed(steps=2, evaluate_every=2, key_step=1)
    )
    assert tuned.stopped == "finished" and tuned.prompt.card.source.startswith("bundled:news_text")
