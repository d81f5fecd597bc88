"""Every option and argument that more than one command takes, declared once.

A flag has the name of the field or parameter it sets. A group is a dataclass; `spoton.cli.command` turns it
into separate options. If the package that takes a value has a default, the default here is None: "not given".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoton.cli.output import note, quiet_stdout
from spoton.cli.threads import keep_within_quota
from spoton.errors import ModelError

if TYPE_CHECKING:
    from spoton.models import FrozenModel
    from spoton.prompts import SoftPrompt
    from spoton.tasks.task_info import Form

DEFAULT_MODEL = "smollm2-135m"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Library = Annotated[
    list[str] | None,
    typer.Option(
        "--library",
        help="Folder or URL of prompts, or `starter`; repeatable. "
        "Default: your own library and the starter library.",
        rich_help_panel="Library",
    ),
]
OwnLibrary = Annotated[
    str | None,
    typer.Option(
        "--library", help="Folder or URL of prompts. Default: your own library.", rich_help_panel="Library"
    ),
]
Similarity = Annotated[
    Literal["average_tokens", "per_token_average", "maximum_token"],
    typer.Option("--similarity", help="How two prompts are compared.", rich_help_panel="Retrieval"),
]
Rank = Annotated[
    Literal["similarity", "displacement", "trial"],
    typer.Option(
        help="What sources are ranked by: similarity of keys, of keys minus their starts, or a trial of the untuned "
        "prompts on the target's rows.",
        rich_help_panel="Retrieval",
    ),
]
K = Annotated[
    int, typer.Option("--k", "-k", min=1, help="How many prompts to retrieve.", rich_help_panel="Retrieval")
]
Evaluation = Annotated[
    Literal["rank", "generate"] | None,
    typer.Option(
        "--evaluation",
        help="How answers are obtained. Default: rank for a closed set of labels, else generate.",
        rich_help_panel="Evaluation",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is at --out, once the new run has finished."),
]
PromptSpec = Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt file, or a name in a library.")]

_MODEL = "Model"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which frozen model, and how it is held."""

    model: Annotated[
        str | None,
        typer.Option(
            help="Embedded model, Hugging Face id, folder, or GGUF file. "
            f"Default: the model of the prompt, or of all prompts to serve; else {DEFAULT_MODEL}.",
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
            help="Compile the layers. For long runs of models other than the Llama and T5 families.",
            rich_help_panel=_MODEL,
        ),
    ] = False

    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Say which engine runs the model, and why.", rich_help_panel=_MODEL),
    ] = False

    def in_float32(self) -> ModelOptions:
        """Returns the options for model tuning, in float32: bfloat16 would lose small steps of the weights.

        Raises:
            ModelError: Another type was asked for, or compiled layers, which a copy of the model does not have.
        """
        wrong = ["--compile"] if self.compile else []
        wrong += [] if self.dtype in ("auto", "float32") else [f"--dtype {self.dtype}"]
        if wrong:
            raise ModelError(
                f"{' and '.join(wrong)}: not available with --method model, which tunes all weights in float32. "
                "Leave it out."
            )
        return replace(self, dtype="float32")

    @property
    def form(self) -> Form:
        """The form of tasks that suits the model, from its configuration alone.

        Raises:
            ModelError: The model cannot be found or read.
        """
        from spoton.models.loading import is_encoder_decoder

        with quiet_stdout():
            return "t5" if is_encoder_decoder(self.model or DEFAULT_MODEL) else "natural"

    def load(self, prompt: SoftPrompt | None = None) -> FrozenModel:
        """Loads the model these options describe; prints the choices on stderr.

        Args:
            prompt: The prompt that will be used with it.

        Raises:
            ModelError: The model cannot be found, read, or held in that type, or there is no such device.
            DownloadError: An embedded model could not be downloaded.
            PromptError: The prompt belongs to another model.
        """
        from spoton.models import engine_for, load_model

        keep_within_quota()
        name = self.model or (prompt.card.model if prompt else DEFAULT_MODEL)
        with quiet_stdout():
            try:
                model = load_model(
                    name, dtype=self.dtype, device=self.device, compile=self.compile, on_message=note
                )
            except ModelError as error:
                if prompt is None or self.model is not None:
                    raise
                raise ModelError(
                    f"Prompt {prompt.card.name!r} was tuned with {name!r}, which is not loaded: {error} If it is "
                    "elsewhere now, give its place with --model."
                ) from error
            if prompt is not None:
                prompt.require_model(model.fingerprints, model.name)
            choice = engine_for(model).choice if self.verbose else None
        if choice is not None:
            note(f"Engine: {choice.engine}; {choice.reason}")
        return model
