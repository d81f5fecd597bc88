"""The mixture of sources and target: whose rows it takes, how many of each, and the weights on the card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spoton.errors import DataError
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.tasks import Task
from spoton.transfer import Retrieved
from spoton.transfer.combining.mixture import catalog_rows, mixture, with_rows
from spoton.transfer.kept_runs import KeptRuns
from spoton.transfer.sources import sources_for
from spoton.tuning import Recipe
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=2, evaluate_every=2, batch_size=4)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


def prompt(name: str, task: str, model: FrozenModel, source: str = "") -> SoftPrompt:
    card = Card(
        name=name, task=task, model=model.name, model_fingerprint=model.fingerprint, source=source,
        form="natural",
    )  # fmt: skip
    return SoftPrompt(draw(4, WIDTH), card, draw(4, WIDTH))


def test_every_task_has_as_many_rows_as_the_target(
    model: FrozenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One source has fewer rows than the target, one has more, and two prompts are of one task."""
    rows = {"small": 4, "large": 60}
    mixed: list[Task] = []
    real = KeptRuns.tuned

    def watched(self: KeptRuns, *given: object, **options: object) -> object:
        mixed.append(self.task)
        return real(self, *given, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(KeptRuns, "tuned", watched)
    target = toy_task()
    example = target.train[0]

    def rows_of(card: Card) -> Task:
        own = tuple(type(example)(f"{card.task} {n}", "yes") for n in range(rows[card.task]))
        return toy_task(name=card.task, train=own)

    runs = KeptRuns(model, target, "rank", None, lambda event: None)
    retrieved = [
        Retrieved(name, 0.5, prompt(name, task, model))
        for name, task in (("a", "small"), ("b", "large"), ("c", "large"))
    ]
    start = mixture(runs, retrieved, RECIPE, rows_of)
    counts = Counter(row.input.split()[0] for row in mixed[0].train)
    small, large = counts.pop("small"), counts.pop("large")
    assert abs(small - large) <= 1 and abs(large - counts.total()) <= 1
    assert {parent.name: parent.weight for parent in start.parents} == pytest.approx(
        {"a": 1 / 3, "b": 1 / 6, "c": 1 / 6}
    )


def test_rows_of_a_file_with_the_name_of_a_task_are_not_those_of_the_task(
    model: FrozenModel, tmp_path: Path
) -> None:
    library = PromptLibrary(tmp_path)
    for own in (
        prompt("mine", "movie_sentiment", model, "file:movie_sentiment.csv@1234"),
        prompt("theirs", "movie_sentiment", model, "bundled:movie_sentiment"),
        prompt("unknown", "x", model),
    ):
        library.add(own)
    sources = sources_for([library], model.fingerprints)
    assert [entry.name for _, entry in with_rows(sources)] == ["theirs"]
    left = [(lib, entry) for lib, entry in sources if entry.name != "theirs"]
    with pytest.raises(
        DataError, match="The rows of movie_sentiment are not at hand, on which mine was tuned"
    ):
        with_rows(left)


def test_rows_are_read_as_the_prompt_read_them(model: FrozenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    card = prompt("theirs", "movie_sentiment", model).card
    plain = catalog_rows(card, model)
    assert plain.form == "natural"
    model.tokenizer.chat_template = (
        "{% for m in messages %}<user>{{ m['content'] }}</user>{% endfor %}<assistant>"
    )
    turned = catalog_rows(card.model_copy(update={"form": "natural+chat"}), model)
    assert turned.form == "natural+chat" and len(turned.train) == len(plain.train)
    assert turned.train[0].input.startswith("<user>")
