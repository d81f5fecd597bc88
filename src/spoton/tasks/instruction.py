"""A task in words, as one would ask a person, made from what a user's file says of itself: columns and label words."""

from collections.abc import Sequence

MOST_NAMED = 20
"""An instruction that lists more answers is longer than a prompt."""


def make_instruction(columns: Sequence[str], target: str, labels: Sequence[str] | None) -> str:
    """Returns one or two sentences that say what is read and what is to be answered.

    Args:
        columns: The columns of the input.
        target: The column of the answer.
        labels: The possible answers; None where they are open.

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
    """The name of a column as it would be said: `star_rating` is a star rating."""
    return " ".join(column.replace("_", " ").replace("-", " ").split())
