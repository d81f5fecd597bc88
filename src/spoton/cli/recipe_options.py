"""Options of a recipe: a preset and what to change in it, and the budget of a run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoton.cli.libraries import find_library, is_file

if TYPE_CHECKING:
    from spoton.models import FrozenModel
    from spoton.tasks import Task
    from spoton.tuning import Recipe
    from spoton.tuning.full_model.recipe import ModelRecipe

_RECIPE = "Recipe"


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """How the prompt is tuned: a preset and what to change in it."""

    preset: Annotated[
        str | None,
        typer.Option(help="Recipe to start from: decoder, paper-t5, ...", rich_help_panel=_RECIPE),
    ] = None
    length: Annotated[
        int | None, typer.Option(help="Virtual tokens of the prompt (P).", rich_help_panel=_RECIPE)
    ] = None
    init: Annotated[
        str | None,
        typer.Option(
            help="vocabulary, labels, task, uniform, text:..., or a prompt: a file, or a name in a library.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "adafactor"] | None, typer.Option(help="The optimizer.", rich_help_panel=_RECIPE)
    ] = None
    learning_rate: Annotated[
        str | None,
        typer.Option(
            help="The highest rate of the schedule, or auto: three rates start and the best continues.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    rate_unit: Annotated[
        Literal["absolute", "embedding_rms"] | None,
        typer.Option(help="Unit of the learning rate.", rich_help_panel=_RECIPE),
    ] = None
    schedule: Annotated[
        Literal["constant", "linear", "cosine"] | None,
        typer.Option(help="How the learning rate falls.", rich_help_panel=_RECIPE),
    ] = None
    warmup: Annotated[
        int | None, typer.Option(help="Steps in which the learning rate rises.", rich_help_panel=_RECIPE)
    ] = None
    clip: Annotated[
        float | None,
        typer.Option(help="Largest norm of the gradient; 0: no limit.", rich_help_panel=_RECIPE),
    ] = None
    average: Annotated[
        float | None,
        typer.Option(help="Decay of the prompt's moving average; 0: none.", rich_help_panel=_RECIPE),
    ] = None
    loss: Annotated[
        Literal["tokens", "examples", "labels"] | None,
        typer.Option(
            help="Mean over target tokens, mean over examples, or cross-entropy over the labels.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    calibrate: Annotated[
        Literal["none", "end", "every"] | None,
        typer.Option(help="When label scores are calibrated on training rows.", rich_help_panel=_RECIPE),
    ] = None
    label_score: Annotated[
        Literal["sum", "mean"] | None,
        typer.Option(help="How the scores of a label's tokens are combined.", rich_help_panel=_RECIPE),
    ] = None
    select: Annotated[
        Literal["loss", "score"] | None,
        typer.Option(help="What chooses the best checkpoint.", rich_help_panel=_RECIPE),
    ] = None
    reparameterization: Annotated[
        Literal["none", "residual", "superposition", "low_rank"] | None,
        typer.Option(help="What is tuned in place of the prompt.", rich_help_panel=_RECIPE),
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Per step, not multiplied by the learning rate.", rich_help_panel=_RECIPE),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            help="Tuning steps. Default: at most eight passes over the training rows, ended by patience.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Wall time of the whole command, instead of --steps.", rich_help_panel=_RECIPE
        ),
    ] = None
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.", rich_help_panel=_RECIPE)] = None
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the start and of the order of examples.", rich_help_panel=_RECIPE),
    ] = None
    key_step: Annotated[
        int | None, typer.Option(help="Step whose checkpoint is the key.", rich_help_panel=_RECIPE)
    ] = None
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between two evaluations. Default: evaluations take at most a third of the time.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Evaluations without an improvement after which tuning ends. Default: 5 if the command chooses the "
            "steps, else none.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    max_input_tokens: Annotated[
        int | None, typer.Option(help="Longer inputs lose their middle.", rich_help_panel=_RECIPE)
    ] = None

    def recipe(self, library: Sequence[str] | None) -> Recipe:
        """Returns the preset with these changes.

        Args:
            library: Where a prompt to start from is looked up by name.

        Raises:
            RecipeError: There is no such preset, or a value is not valid.
            LibraryError: A start is looked up in a folder that does not exist.
        """
        from spoton.tuning import Recipe

        changes = {name: value for name, value in self._given().items() if name != "minutes"}
        if self.init is not None:
            changes["init"] = _start(self.init, library)
        return Recipe.preset(self.preset or "decoder", **changes)

    @property
    def leaves_budget_open(self) -> bool:
        """Whether neither steps nor minutes are given."""
        return self.steps is None and self.minutes is None

    def budgeted(
        self,
        recipe: Recipe,
        model: FrozenModel,
        task: Task,
        *,
        runs: int = 1,
        mode: Literal["rank", "generate"] | None = None,
        kept: Path | None = None,
    ) -> Recipe:
        """Returns the recipe with the steps and evaluations of its budget: as given, by minutes, or by the data's size.

        Args:
            recipe: The result of `recipe`.
            model: The frozen model.
            task: The task that will be tuned.
            runs: Number of runs of equal length that share the minutes.
            mode: How to validate; None: chosen by the task.
            kept: File that keeps the steps planned from minutes; see `spoton.tuning.budget.with_budget`.

        Raises:
            RecipeError: Both steps and minutes were given, or the minutes are not finite.
        """
        from spoton.errors import RecipeError
        from spoton.tuning.budget import with_budget, with_interval

        if self.steps is not None and self.minutes is not None:
            raise RecipeError("--steps and --minutes both set the budget. Give one of them.")
        if self.minutes is not None and not math.isfinite(self.minutes):
            raise RecipeError(f"--minutes is {self.minutes}; expected a finite number of minutes.")
        is_default = self.preset in (None, "decoder")
        interval = is_default and self.evaluate_every is None
        if self.minutes is not None or (is_default and self.steps is None):
            minutes = None if self.minutes is None else self.minutes / runs
            return with_budget(model, task, recipe, minutes=minutes, interval=interval, mode=mode, kept=kept)
        return with_interval(recipe, task) if interval else recipe

    @contextlib.contextmanager
    def minutes_named(self, planned: Recipe) -> Iterator[None]:
        """Says in an error of `adapt` about too few steps that they were planned from minutes.

        Args:
            planned: The result of `budgeted`.

        Raises:
            RecipeError: The same error, with the minutes and the steps planned from them.
        """
        from spoton.errors import RecipeError

        try:
            yield
        except RecipeError as error:
            if self.minutes is None or "--minutes" not in str(error):  # not about the budget
                raise
            raise RecipeError(
                f"--minutes {self.minutes:g} leaves time for {planned.steps} step(s) a run on this machine. {error} "
                "In place of --minutes, --steps 0 tries all sources and tunes none."
            ) from error

    def _given(self) -> dict[str, object]:
        """Returns the options that change the preset, by name; the learning rate is a number unless it is a word."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "preset"}
        rate = given["learning_rate"]
        if rate is not None:
            with contextlib.suppress(ValueError):
                given["learning_rate"] = float(rate)
        return given

    def model_recipe(self, library: Sequence[str] | None) -> ModelRecipe:
        """Returns the preset of model tuning with these changes.

        Args:
            library: Has to be None; there is no prompt to start from.

        Raises:
            RecipeError: An option concerns a prompt, there is no such preset, or a value is not valid.
        """
        from spoton.errors import RecipeError
        from spoton.tuning.full_model.recipe import ModelRecipe

        given = self._given()
        strange = [
            name
            for name, value in given.items()
            if value is not None and name not in ModelRecipe.model_fields
        ]
        strange += ["library"] if library else []
        if strange:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
            raise RecipeError(
                f"{flags}: these are about a prompt, and --method model tunes the weights without one. Leave them out. "
                "To start from another model, give its folder as --model."
            )
        changes = {name: value for name, value in given.items() if name in ModelRecipe.model_fields}
        return ModelRecipe.preset(self.preset or "decoder", **changes)


def _start(init: str, places: Sequence[str] | None) -> str:
    """Returns the path of the file if `init` is the name of a prompt in a library; else `init` unchanged."""
    from spoton.tuning.initial_prompt import STRATEGIES

    if init in STRATEGIES or init.startswith("text:") or is_file(init):
        return init
    library = find_library(init, places)
    return init if library is None else str(library.path(init))
