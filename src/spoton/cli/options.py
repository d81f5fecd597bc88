"""Every option and argument that more than one command takes, declared once.

A flag has the name of the field or parameter it sets. A group is a dataclass; `spoton.cli.command` spreads it
into single options. Nothing here has a default of its own where its room has one: None means "not given".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoton.cli.libraries import find_library, is_file
from spoton.cli.output import note, quiet_stdout

if TYPE_CHECKING:
    from spoton.models import FrozenModel
    from spoton.prompts import SoftPrompt
    from spoton.tasks.task_info import Form
    from spoton.tuning import Recipe
    from spoton.tuning.full_model.recipe import ModelRecipe

DEFAULT_MODEL = "smollm2-135m"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Library = Annotated[
    list[str] | None,
    typer.Option(
        "--library",
        help="Folder of prompts, or `starter`; may be given several times. "
        "Not given: your own library and the starter library.",
        rich_help_panel="Library",
    ),
]
OwnLibrary = Annotated[
    Path | None,
    typer.Option(
        "--library", help="Folder of prompts. Not given: your own library.", rich_help_panel="Library"
    ),
]
Metric = Annotated[
    Literal["average_tokens", "per_token_average", "maximum_token"],
    typer.Option(help="How two prompts are compared.", rich_help_panel="Retrieval"),
]
K = Annotated[
    int, typer.Option("--k", "-k", min=1, help="How many prompts to retrieve.", rich_help_panel="Retrieval")
]
Evaluation = Annotated[
    Literal["rank", "generate"] | None,
    typer.Option(
        "--evaluation",
        help="How answers are found; not given: rank for a closed set of labels, else generate.",
        rich_help_panel="Evaluation",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is at --out, once the new run has finished."),
]
PromptSpec = Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt file, or a name in a library.")]

_MODEL = "Model"
_RECIPE = "Recipe"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which frozen model, and how it is held."""

    model: Annotated[
        str | None,
        typer.Option(
            help="Embedded model, Hugging Face id, folder, or GGUF file. "
            f"Not given: that of the prompt, else {DEFAULT_MODEL}.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights; auto: bfloat16 where it is fast.", rich_help_panel=_MODEL),
    ] = "auto"
    device: Annotated[
        str, typer.Option(help="A torch device; auto: a GPU if there is one.", rich_help_panel=_MODEL)
    ] = "auto"
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the layers: for long runs of models that are not like Llama.",
            rich_help_panel=_MODEL,
        ),
    ] = False

    def in_float32(self) -> ModelOptions:
        """The same for model tuning, which holds all weights in float32: small steps would be lost in bfloat16.

        Raises:
            ModelError: another type was asked for, or compiled layers, which a copy of the model has not.
        """
        from spoton.errors import ModelError

        wrong = ["--compile"] if self.compile else []
        wrong += [] if self.dtype in ("auto", "float32") else [f"--dtype {self.dtype}"]
        if wrong:
            raise ModelError(
                f"{' and '.join(wrong)} cannot be had with --method model: all weights of a copy are tuned in float32. "
                "Leave it out."
            )
        return replace(self, dtype="float32")

    @property
    def form(self) -> Form:
        """The form of tasks that suits the model, by its configuration alone.

        Raises:
            ModelError: it cannot be found or read.
        """
        from spoton.models.loading import is_encoder_decoder

        with quiet_stdout():
            return "t5" if is_encoder_decoder(self.model or DEFAULT_MODEL) else "natural"

    def load(self, prompt: SoftPrompt | None = None) -> FrozenModel:
        """The model these options describe; says on stderr what was chosen.

        Args:
            prompt: What will be used with it.

        Raises:
            ModelError: it cannot be found, read, or held in that type, or there is no such device.
            DownloadError: an embedded model could not be fetched.
            PromptError: the prompt belongs to another model.
        """
        from spoton.models import load_model

        name = self.model or (prompt.card.model if prompt else DEFAULT_MODEL)
        with quiet_stdout():
            model = load_model(
                name, dtype=self.dtype, device=self.device, compile=self.compile, on_message=note
            )
            if prompt is not None:
                prompt.require_model(model.fingerprint, model.name)
        return model


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
            help="vocabulary, labels, uniform, text:..., or a prompt: a file, or a name in a library.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "adafactor"] | None, typer.Option(help="The optimizer.", rich_help_panel=_RECIPE)
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Constant over the run.", rich_help_panel=_RECIPE)
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Per step, not multiplied by the learning rate.", rich_help_panel=_RECIPE),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Tuning steps.", rich_help_panel=_RECIPE)] = None
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.", rich_help_panel=_RECIPE)] = None
    seed: Annotated[
        int | None, typer.Option(help="Seed of the start and of the order.", rich_help_panel=_RECIPE)
    ] = None
    key_step: Annotated[
        int | None, typer.Option(help="Step whose checkpoint is the key.", rich_help_panel=_RECIPE)
    ] = None
    evaluate_every: Annotated[
        int | None, typer.Option(help="Steps between two validations.", rich_help_panel=_RECIPE)
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Validations without anything better after which tuning ends. Not given: it takes all steps.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    max_input_tokens: Annotated[
        int | None, typer.Option(help="Longer inputs lose their middle.", rich_help_panel=_RECIPE)
    ] = None

    def recipe(self, library: Sequence[str] | None) -> Recipe:
        """The preset with these changes.

        Args:
            library: Where a prompt to start from is looked up by name.

        Raises:
            RecipeError: there is no such preset, or a value does not fit.
            LibraryError: a start is looked up in a folder that does not exist.
        """
        from spoton.tuning import Recipe

        changes = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "preset"}
        if self.init is not None:
            changes["init"] = _start(self.init, library)
        return Recipe.preset(self.preset or "decoder", **changes)

    def model_recipe(self, library: Sequence[str] | None) -> ModelRecipe:
        """The preset of model tuning with these changes.

        Args:
            library: Has to be None; there is no prompt to start from.

        Raises:
            RecipeError: an option speaks of a prompt, there is no such preset, or a value does not fit.
        """
        from spoton.errors import RecipeError
        from spoton.tuning.full_model.recipe import ModelRecipe

        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "preset"}
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
    """The name of a prompt in a library as the path of its file; all else as it is, for the recipe to judge."""
    from spoton.tuning.initial_prompt import STRATEGIES

    if init in STRATEGIES or init.startswith("text:") or is_file(init):
        return init
    library = find_library(init, places)
    return init if library is None else str(library.path(init))
