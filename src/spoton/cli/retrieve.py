"""`spoton similarity` and `spoton retrieve`: which learned prompts are similar to a prompt or a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spoton.cli.command import command
from spoton.cli.data_options import TargetOptions
from spoton.cli.libraries import find_library, find_prompt, note_damaged, open_libraries
from spoton.cli.options import Json, K, Library, ModelOptions, Rank, Similarity
from spoton.cli.output import emit, note, table
from spoton.cli.progress import live_progress
from spoton.cli.recipe_options import RecipeOptions
from spoton.errors import PromptError, RecipeError, SpotonError

if TYPE_CHECKING:
    from spoton.prompts import PromptLibrary, SoftPrompt
    from spoton.transfer.sources import Ranking

app = typer.Typer()


@command(
    app,
    "spoton retrieve reviews.csv --input text --target label -k 3",
    "spoton retrieve reviews.safetensors --rank displacement --json",
    "spoton retrieve reviews.csv --input text --target label --rank trial",
)
def retrieve(
    target: TargetOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    k: K = 5,
    rank: Rank = "similarity",
    metric: Similarity = "average_tokens",
    library: Library = None,
    json: Json = False,
) -> None:
    """Rank learned prompts for a target, by the similarity of their keys to its key, or by a trial on its rows.

    A prompt has its key in its file; its model is loaded only if prompts of that model have an older fingerprint. The
    key of a task comes from a probe: the first `--key-step` steps of tuning. A trial needs a task, and no probe. If a
    bundled task and a prompt have the same name, it means the task.
    """
    from spoton.transfer.arms import refuse_similarity

    refuse_similarity(rank, metric)
    if recipe.minutes is not None:
        raise RecipeError(
            "--minutes is a budget for tuning, and a ranking tunes only a probe of --key-step steps. Leave it out."
        )
    libraries = open_libraries(library)  # first: the probe takes minutes
    prompt = _prompt(target, library)
    if prompt is not None:
        _refuse_data_options(target)
    if rank == "trial":
        card, found = _tried(target, model, recipe, library, libraries, prompt, k)
    else:
        card, found = _near(target, model, recipe, library, libraries, prompt, k, rank, metric)
    ranked = [one.to_json() for one in found]
    for opened in libraries:
        note_damaged(opened)
    for name, reason in found.damaged.items():
        note(f"Skipped {name}: {reason}")
    for told in found.notes:
        note(told)
    document = {
        "target": card[0], "model": card[1], "rank": rank, "metric": metric, "cost": asdict(found.cost),
        "notes": list(found.notes), "retrieved": ranked,
    }  # fmt: skip
    what = "loss" if rank == "trial" else "similarity"
    rows = [(one["name"], f"{one[what]:.4f}", one["task"], one["family"]) for one in ranked]
    emit(document, table(("name", what, "task", "family"), rows), as_json=json)


def _refuse_data_options(target: TargetOptions) -> None:
    """Refuses options that say how to read rows, which a prompt does not have."""
    # A task file only decides whether the target is a task or a prompt.
    options = [field for field in fields(target) if field.name not in ("data", "task_file")]
    given = [one.name for one in options if getattr(target, one.name) not in (one.default, [])]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise PromptError(f"{target.data} is a prompt, which reads no rows. Leave out {flags}.")


def _near(
    target: TargetOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    library: Sequence[str] | None,
    libraries: Sequence[PromptLibrary],
    prompt: SoftPrompt | None,
    k: int,
    rank: str,
    metric: Similarity,
) -> tuple[tuple[str, str], Ranking]:
    """Returns task and model of the target, and sources ranked by the similarity of keys."""
    from spoton.transfer import retrieve as by_similarity
    from spoton.transfer import sources_for

    if prompt is None:
        probe, fingerprints = _probe(target, model, recipe, library)
    else:
        probe, fingerprints = prompt, _fingerprints(prompt, model, libraries)
    card = probe.card
    if probe.key is None:
        raise PromptError(f"{target.data} has no key to retrieve by. Give its task, which is then probed.")
    if rank == "displacement" and probe.start is None:
        raise PromptError(
            f"{target.data} does not hold the start that it was tuned from, so there is no displacement. Give its "
            "task, which is then probed, or rank by similarity."
        )
    sources = sources_for(
        libraries, fingerprints, task=card.task, data_hash=card.data_hash, source=card.source
    )
    start = probe.start if rank == "displacement" else None
    return (card.task, card.model), by_similarity(probe.key, sources, k, metric, start=start)


def _fingerprints(
    prompt: SoftPrompt, model: ModelOptions, libraries: Sequence[PromptLibrary]
) -> tuple[str, ...]:
    """Returns the fingerprints of a prompt's model: the one on its card, or all that the model accepts if prompts of a
    model of that name have another."""
    own = prompt.card.model_fingerprint
    others = sum(
        entry.identity.fingerprint != own and entry.card.model == prompt.card.model
        for library in libraries
        for entry in library.list()
    )
    if not others:
        return (own,)
    try:
        return model.load(prompt).fingerprints
    except SpotonError as error:
        note(
            f"{others} prompts of {prompt.card.model} have another fingerprint and are left out, since the model could "
            f"not be loaded to compare it: {error}"
        )
        return (own,)


def _tried(
    target: TargetOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    library: Sequence[str] | None,
    libraries: Sequence[PromptLibrary],
    prompt: SoftPrompt | None,
    k: int,
) -> tuple[tuple[str, str], Ranking]:
    """Returns task and model of the target, and sources ranked by a trial."""
    from spoton.transfer import trial
    from spoton.transfer.adapt import target_sources

    if prompt is not None:
        raise PromptError(f"{target.data} is a prompt, and a trial needs rows. Give a task or its data.")
    task, chosen, frozen = target.load(model), recipe.recipe(library), model.load()
    sources = target_sources(frozen, task, libraries, "trial")
    with live_progress() as on_event:
        return (task.name, frozen.name), trial(frozen, task, sources, k, chosen, on_event=on_event)


@command(
    app,
    "spoton similarity movie_sentiment news_sentiment",
    "spoton similarity mine.safetensors yours.safetensors --similarity per_token_average",
)
def similarity(
    a: Annotated[str, typer.Argument(help="A prompt file, or a name in a library.")],
    b: Annotated[str, typer.Argument(help="Another prompt file or name.")],
    metric: Similarity = "average_tokens",
    library: Library = None,
    json: Json = False,
) -> None:
    """Compare two prompts by cosine: their keys if both have one, else their values."""
    from spoton.transfer import similarity as compare

    first, second = find_prompt(a, library), find_prompt(b, library)
    if first.card.model_fingerprint != second.card.model_fingerprint:
        note(
            f"{a} belongs to {first.card.model} ({first.card.model_fingerprint}) and {b} to {second.card.model} "
            f"({second.card.model_fingerprint}). Prompts of different models have no common space, so their cosine "
            "says nothing; under another fingerprint of the same model it holds."
        )
    if first.key is not None and second.key is not None:
        of, found = "key", compare(first.key, second.key, metric)
    else:
        of, found = "value", compare(first.value, second.value, metric)
    document = {"a": a, "b": b, "metric": metric, "of": of, "similarity": found}
    emit(document, f"{found:.4f}", as_json=json)


def _prompt(target: TargetOptions, places: Sequence[str] | None) -> SoftPrompt | None:
    """Returns the target's prompt, or None if the target is not a prompt."""
    from spoton.prompts import SoftPrompt
    from spoton.tasks.catalog import is_task
    from spoton.tasks.own_tasks import read_definitions

    spec = target.data
    if spec.endswith(".safetensors"):
        return SoftPrompt.load(spec)
    if (
        Path(spec).is_file()
        or "/" in spec
        or is_task(spec, read_definitions(target.task_file or (), is_task))
    ):
        return None
    library = find_library(spec, places)
    return None if library is None else library.get(spec)


def _probe(
    target: TargetOptions, model: ModelOptions, recipe: RecipeOptions, library: Sequence[str] | None
) -> tuple[SoftPrompt, tuple[str, ...]]:
    """Returns the probe of a task, and the fingerprints of its model."""
    from spoton.tuning import tune
    from spoton.tuning.kept import require_end

    task, chosen, frozen = target.load(model), recipe.recipe(library), model.load()
    # The first steps of the run that `tune` and `adapt` would make: the schedule of a shorter run is another one.
    whole = recipe.budgeted(chosen, frozen, task).changed(evaluate_every=chosen.key_step)
    with live_progress() as on_event:
        probe = tune(frozen, task, whole, until=whole.key_step, on_event=on_event, phase="probe")
    require_end(probe, "probe")
    if probe.prompt.key is None:
        told = probe.message or f"{whole.steps} steps do not reach it. Raise --steps, or lower --key-step."
        raise RecipeError(f"The probe ended before step {whole.key_step}, whose prompt is the key: {told}")
    return probe.prompt, frozen.fingerprints
