"""`spoton models`: the frozen models that spoton provides, and GGUF files as folders."""

from pathlib import Path
from typing import Annotated

import typer

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, note, quiet_stdout, table

app = typer.Typer(
    help="List embedded models, download one for use offline, or unpack a GGUF file.", no_args_is_help=True
)


@command(app, "spoton models list", name="list")
def list_embedded(json: Json = False) -> None:
    """List the embedded models. Any Hugging Face id, folder or GGUF file works as well."""
    from spoton.models import list_models

    models = list_models()
    document = [
        {
            "name": info.name,
            "description": info.description,
            "license": info.license,
            "pulled": info.is_pulled,
            "folder": info.folder,
            "download_mb": info.package.size_mb,
        }
        for info in models
    ]
    rows = [
        (
            info.name,
            info.description,
            info.license,
            "yes" if info.is_pulled else f"no ({info.package.size_mb} MB)",
        )
        for info in models
    ]
    emit(document, table(("name", "description", "license", "pulled"), rows), as_json=json)


@command(app, "spoton models pull smollm2-135m")
def pull(
    name: Annotated[str, typer.Argument(help="Name of an embedded model.")],
    json: Json = False,
) -> None:
    """Download and unpack an embedded model, so that later runs need no network."""
    from spoton.models import pull_model

    with quiet_stdout():
        folder = pull_model(name, on_message=note)
    emit({"name": name, "folder": folder}, f"{name} is ready in {folder}", as_json=json)


@command(app, "spoton models unpack gemma.gguf --out gemma")
def unpack(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    out: Annotated[Path, typer.Option(help="The new folder of the model.")],
    json: Json = False,
) -> None:
    """Decode a GGUF file into a model folder, once, so that it loads in seconds. Prompts of the file fit the folder."""
    from spoton.models import unpack_gguf

    with quiet_stdout():
        folder = unpack_gguf(file, out, on_message=note)
    emit({"file": file, "folder": folder}, f"{folder} is ready: --model {folder}", as_json=json)
