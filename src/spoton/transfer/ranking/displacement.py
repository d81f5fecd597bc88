"""The displacement of a prompt by its task: its key minus the start that it was tuned from.

The start dominates a raw prompt: two tasks tuned from one start are more similar than one task tuned from two starts.
Displacements are comparable across starts (task prompt vectors, Belanec et al. 2024,
https://arxiv.org/abs/2408.01119, section 3).
"""

from __future__ import annotations

from torch import Tensor

from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float


def displacement(prompt: SoftPrompt) -> Float[Tensor, "Q {prompt.dim}"] | None:
    """Returns key minus start `[Q, D]`; None for a prompt without both, such as an imported one."""
    if prompt.key is None or prompt.start is None or prompt.key.shape != prompt.start.shape:
        return None
    return prompt.key - prompt.start
