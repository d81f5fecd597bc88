"""Answers of an unfinished `predict`, kept part by part in a file, so that a kill loses a part at most."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spoton.errors import SpotonError
from spoton.files import atomic_write, writing
from spoton.parsing import MalformedError, parse_json
from spoton.reading import read_text, reason

KeptAnswer = tuple[str, dict[str, float] | None]
"""An answer, and the probability of every label; None if the answer was generated."""

_HEAD = "answers of"


class KeptAnswers:
    """Answers in the order of their texts, as JSON lines: what they are of, then one line for each part.

    A line that a kill has cut short is dropped. Answers to other texts, or of another prompt, are replaced.
    """

    def __init__(self, path: Path, of: str) -> None:
        """Names the file.

        Args:
            path: The file.
            of: Hash of what decides the answers.
        """
        self.path = path
        self._head = json.dumps({_HEAD: of})

    def begin(self) -> list[KeptAnswer]:
        """Returns the answers that are there, and leaves a file to which others can be added.

        Raises:
            SpotonError: The file is none of kept answers, or cannot be read or written.
        """
        lines = self._lines()
        kept: list[KeptAnswer] = []
        whole = 1
        for line in lines[1:]:
            part = _part(line)
            if part is None:
                break
            kept += part
            whole += 1
        atomic_write(self.path, "".join(f"{line}\n" for line in lines[:whole]).encode())
        return kept

    def _lines(self) -> list[str]:
        try:
            lines = read_text(self.path, encoding="latin-1").split(
                "\n"
            )  # of any bytes; those of this class are ASCII
        except FileNotFoundError:
            return [self._head]
        except OSError as error:
            raise SpotonError(f"{self.path} cannot be read: {reason(error)}. Remove it first.") from error
        if not lines[0].startswith(f'{{"{_HEAD}": '):
            raise SpotonError(
                f"{self.path} would hold unfinished answers, but is another file. Move it away first."
            )
        return lines if lines[0] == self._head else [self._head]

    def add(self, answers: Sequence[KeptAnswer]) -> None:
        """Adds a part.

        Raises:
            SpotonError: The file cannot be written.
        """
        with writing(self.path), self.path.open("ab") as file:
            file.write(f"{json.dumps(answers)}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def _part(line: str) -> list[KeptAnswer] | None:
    """Returns the answers of a line; None if it is damaged."""
    try:
        found: Any = parse_json(line)
    except MalformedError:
        return None
    if not isinstance(found, list) or not found:
        return None
    part = []
    for one in found:
        if not (isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)):
            return None
        answer, chances = one
        if not (
            chances is None
            or (isinstance(chances, dict) and all(isinstance(p, float) for p in chances.values()))
        ):
            return None
        part.append((answer, chances))
    return part
