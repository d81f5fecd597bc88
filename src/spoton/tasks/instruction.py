"""Makes an instruction for a task, as for a person, from the columns and label words of a user's file."""

from collections.abc import Sequence

MOST_NAMED = 20
"""Most answers that an instruction lists; with more it would be longer than a prompt."""


def make_instruction(columns: Sequence[str], target: str, labels: Sequence[str] | None) -> str:
    """Returns one or two sentences that name the inputs and the answer.

    Args:
        columns: The columns of the input.
        target: The column of the answer.
        labels: The possible answers; None for open answers.

    Examples:
        >>> make_instruction(["title", "body"], "topic", ["sports", "politics", "arts"])
        'Read the title and the body and give the topic. Answer sports, politics or arts.'
        >>> make_instruction(["question"], "answer", None)
        'Read the question and give the answer.'
    """
    read = _listed([f"the {_words(column)}" for column in columns], "and") or "the text"
    asked = f"Read {read} and give the {_words(target)}."
    if labels is None or len(labels) > MOST_NAMED:
        return asked
    return f"{asked} Answer {_listed(labels, 'or')}."


def _listed(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _words(column: str) -> str:
    """Returns the name of a column in words: `star_rating` becomes "star rating"."""
    return " ".join(column.replace("_", " ").replace("-", " ").split())
