"""One start per source: all are tuned, and the best by validation is kept (SPoT, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from spoton.prompts.initial import from_prompt
from spoton.transfer.combining.start import Start
from spoton.transfer.sources import Retrieved


def best_of_top_k(retrieved: Sequence[Retrieved], length: int) -> list[Start]:
    """Returns the sources themselves, resized to one length."""
    return [Start(one.name, from_prompt(one.prompt.value, length), one.parents(1.0)) for one in retrieved]
