"""`spoton similarity` and `spoton retrieve`: which learned prompts are near a prompt or a task."""

from typing import Annotated

import typer

from spoton.cli.command import command
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Json, Library, Metric
from spoton.cli.output import emit

app = typer.Typer()


@command(
    app,
    "spoton similarity movie_sentiment news_sentiment",
    "spoton similarity mine.safetensors yours.safetensors --metric per_token_average",
)
def similarity(
    a: Annotated[str, typer.Argument(help="A prompt file, or a name in a library.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    metric: Metric = "average_tokens",
    library: Library = None,
    json: Json = False,
) -> None:
    """Compare two prompts by cosine: their keys if both have one, else their values."""
    from spoton.transfer import similarity as similarity_of

    first, second = find_prompt(a, library), find_prompt(b, library)
    keys = first.key is not None and second.key is not None
    found = similarity_of(*((p.key if keys else p.value) for p in (first, second)), metric=metric)
    document = {"a": a, "b": b, "metric": metric, "of": "key" if keys else "value", "similarity": found}
    emit(document, f"{found:.4f}", as_json=json)
