"""`spoton serve`: one model and the prompts of some libraries, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.libraries import open_libraries
from spoton.cli.options import Json, Library, ModelOptions
from spoton.cli.output import emit, note, quiet_stdout
from spoton.errors import ServingError
from spoton.reading import read_text, reason

if TYPE_CHECKING:
    from spoton.prompts import PromptLibrary
    from spoton.serving.server import Server
    from spoton.serving.service import Service

app = typer.Typer()


@command(
    app,
    "spoton serve",
    "spoton serve my-prompts starter --port 8080",
    "spoton serve /srv/prompts --model Qwen/Qwen2.5-0.5B --host 0.0.0.0 --token-file token.txt",
)
def serve(
    model: ModelOptions,
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LIBRARY",
            help="Folders of prompts, or `starter`; `--library` names them, too. "
            "Default: your own library and the starter library.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File whose first line every request must send as its bearer token."),
    ] = None,
    cache_mb: Annotated[
        int, typer.Option(min=0, help="Memory for keys and values of prompts, in MiB.")
    ] = 1024,
    queue: Annotated[
        int, typer.Option(min=1, help="Largest number of waiting inputs; more are answered with 429.")
    ] = 1024,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Longest time of a request in seconds; after that the answer is 504."),
    ] = 30.0,
    library: Library = None,
    json: Json = False,
) -> None:
    """Serve one frozen model and all its prompts: labels with probabilities, OpenAI's completions, and a web page."""
    token = None if token_file is None else _token(token_file)
    try:
        import fastapi  # noqa: F401  # imported here only to report what is missing
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ServingError(
            f"{error.name} is not installed, and `spoton serve` needs it. Install it: pip install 'spoton[serve]'"
        ) from error
    from spoton.serving.limits import Limits
    from spoton.serving.server import Server
    from spoton.serving.service import Service

    libraries = served_libraries([*(places or ()), *(library or ())])
    limits = Limits(cache_bytes=cache_mb * 2**20, queue=queue, seconds=seconds)
    frozen = _of_prompts(model, libraries).load()
    with quiet_stdout():
        service = Service(frozen, libraries, limits)
    server = Server(service, host=host, port=port, token=token)
    server.on_start = lambda: _announce(server, service, as_json=json)
    server.run()


def served_libraries(places: Sequence[str] | None) -> list[PromptLibrary]:
    """Returns the libraries at `places`; by default the user's own, even if it is still empty, and the starter library.

    Raises:
        LibraryError: A folder does not exist.
    """
    from spoton.prompts import PromptLibrary, default_library_path

    libraries = open_libraries(places)
    if places or default_library_path().exists():
        return libraries
    return [PromptLibrary(default_library_path(), readonly=True), *libraries]


def _of_prompts(model: ModelOptions, libraries: Sequence[PromptLibrary]) -> ModelOptions:
    """Returns options with the model that all prompts belong to, if there is one and no other was asked for."""
    if model.model is not None:
        return model  # without reading every card
    names = {entry.card.model for one in libraries for entry in one.list()}
    return replace(model, model=names.pop()) if len(names) == 1 else model


def _token(path: Path) -> str:
    """Returns the first line of a file.

    Raises:
        ServingError: The file cannot be read, or the line is too short for a token.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise ServingError(f"Cannot read {path}: {why}. Give a text file with the token.") from error
    token = lines[0].strip() if lines else ""
    if len(token) < 16 or not token.isascii():
        raise ServingError(
            f"The token in {path} has {len(token)} characters; expected at least 16 in ASCII. Make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def _announce(server: Server, service: Service, *, as_json: bool) -> None:
    """Prints the address of the server, and which prompts it serves and refuses."""
    roster = service.roster
    document: dict[str, Any] = {
        "url": server.address,
        "model": service.base,
        "prompts": list(roster.served),
        "refused": [
            {"name": one.name, "library": one.folder, "reason": one.reason} for one in roster.refused
        ],
    }
    for one in roster.refused:
        note(f"Not served: {one.name} in {one.folder}: {one.reason}")
    emit(
        document,
        f"{len(roster.served)} prompts of {service.base} at {server.address} (Ctrl-C stops)",
        as_json=as_json,
    )
