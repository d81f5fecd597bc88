"""A single start: a prompt tuned on the mixed rows of the sources and the target (SPoT, section 3.3).

It needs the rows of the sources, not only their prompts. Tuning on them counts: half of the remaining budget goes to
the mixture, half to the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from spoton.errors import DataError
from spoton.evaluation.form import chat_of, form_of, is_chat
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.listing import Identity
from spoton.tasks.catalog import is_task, load_task
from spoton.tasks.chat import in_chat
from spoton.tasks.mixture import mix
from spoton.tasks.task import Task
from spoton.transfer.combining.start import Start
from spoton.transfer.combining.weighted_average import names_of, parents_of
from spoton.transfer.kept_runs import KeptRuns
from spoton.transfer.sources import Retrieved, SourcePrompt, is_of_file
from spoton.tuning.recipe import Recipe

RowsOf = Callable[[Card], Task]
"""Returns the task that a prompt was tuned on."""


def with_rows(sources: Sequence[SourcePrompt]) -> list[SourcePrompt]:
    """Returns the sources that were tuned on tasks of the catalog, whose rows can be read again.

    Raises:
        DataError: There is none.
    """
    found = [(library, entry) for library, entry in sources if _has_rows(entry.identity)]
    if sources and not found:
        entry = sources[0][1]
        raise _without_rows(entry.name, entry.identity.task)
    return found


def _has_rows(prompt: Identity | Card) -> bool:
    return is_task(prompt.task) and not is_of_file(prompt.source)


def _without_rows(name: str, task: str) -> DataError:
    return DataError(
        f"The rows of {task} are not at hand, on which {name} was tuned; the method mixture reads them. From Python, "
        "give them with rows_of=; else use another --method."
    )


def catalog_rows(card: Card, model: FrozenModel) -> Task:
    """Returns the rows of a catalog task, as the prompt read them: in its form, and in the model's chat template.

    Raises:
        DataError: The prompt was not tuned on a task of the catalog.
    """
    if not _has_rows(card):
        raise _without_rows(card.name, card.task)
    rows = load_task(card.task, form=form_of(card))
    return in_chat(rows, chat_of(model.tokenizer, model.name)) if is_chat(card) else rows


def mixture(
    runs: KeptRuns, retrieved: Sequence[Retrieved], recipe: Recipe, rows_of: RowsOf | None = None
) -> Start:
    """Tunes a prompt on the mixture and returns it as a start.

    Args:
        runs: The kept runs of the target.
        retrieved: The sources, from `with_rows` unless `rows_of` is given; two of one task count once.
        recipe: How to tune on the mixture.
        rows_of: Returns the rows of a source; None: `catalog_rows`.

    Raises:
        DataError: The rows of a source cannot be read.
        Interrupted: Ctrl-C.
    """
    sources = [one for one in retrieved if one.is_source]
    cards = [one.prompt.card for one in sources]
    members = {
        card.task: catalog_rows(card, runs.model) if rows_of is None else rows_of(card) for card in cards
    }
    target = runs.task
    # Each source counts as much as the target: most are far larger and would outweigh it.
    size = len(target.train)
    mixed = mix(
        "+".join([*members, target.name]),
        [*(task.limited(train=size) for task in members.values()), target],
        sizes=[size] * (len(members) + 1),
        seed=recipe.seed,
    )
    apart = KeptRuns(runs.model, mixed, "rank" if mixed.labels else "generate", runs.folder, runs.on_event)
    tuned = apart.tuned(f"seed {recipe.seed}: mixture of {mixed.name}", recipe)
    of_task = Counter(card.task for card in cards)
    weights = [1 / (len(members) + 1) / of_task[card.task] for card in cards]
    return Start(f"a mixture of {names_of(sources)}", tuned.prompt.value, parents_of(sources, weights))
