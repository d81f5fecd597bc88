"""A single start: a prompt tuned on the mixed rows of the sources and the target (SPoT, section 3.3).

It needs the rows of the sources, not only their prompts. Tuning on them counts: half of the remaining budget goes to
the mixture, half to the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spoton.errors import DataError
from spoton.evaluation.form import form_of
from spoton.prompts.card import Card
from spoton.tasks.catalog import is_task, load_task
from spoton.tasks.mixture import mix
from spoton.tasks.task import Task
from spoton.transfer.combining.start import Start
from spoton.transfer.combining.weighted_average import names_of
from spoton.transfer.kept_runs import KeptRuns
from spoton.transfer.sources import Retrieved
from spoton.tuning.recipe import Recipe

RowsOf = Callable[[Card], Task]
"""Returns the task that a prompt was tuned on."""


def catalog_rows(card: Card) -> Task:
    """Returns the rows of a catalog task, in the form that the prompt was tuned in.

    Raises:
        DataError: The prompt was not tuned on a task of the catalog.
    """
    if not is_task(card.task):
        raise DataError(
            f"The rows of {card.task} are not at hand, on which {card.name} was tuned; the method mixture reads them. "
            "From Python, give them with rows_of=; else use another --method."
        )
    return load_task(card.task, form=form_of(card))


def mixture(
    runs: KeptRuns, retrieved: Sequence[Retrieved], recipe: Recipe, rows_of: RowsOf | None = None
) -> Start:
    """Tunes a prompt on the mixture and returns it as a start.

    Args:
        runs: The kept runs of the target.
        retrieved: The sources; two of one task count once.
        recipe: How to tune on the mixture.
        rows_of: Returns the rows of a source; None: `catalog_rows`.

    Raises:
        DataError: The rows of a source are not available.
        Interrupted: Ctrl-C.
    """
    sources = [one for one in retrieved if one.is_source]
    members = {one.prompt.card.task: (rows_of or catalog_rows)(one.prompt.card) for one in sources}
    target = runs.task
    # Each source counts as much as the target: sources are far larger and would outweigh it.
    size = len(target.train)
    mixed = mix(
        "+".join([*members, target.name]),
        [*(task.limited(train=size) for task in members.values()), target],
        seed=recipe.seed,
    )
    apart = KeptRuns(runs.model, mixed, "rank" if mixed.labels else "generate", runs.folder, runs.on_event)
    tuned = apart.tuned(f"seed {recipe.seed}: mixture of {mixed.name}", recipe)
    weight = 1 / (len(sources) + 1)
    parents = tuple(parent for one in sources for parent in one.parents(weight))
    return Start(f"a mixture of {names_of(sources)}", tuned.prompt.value, parents)
