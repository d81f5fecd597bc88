"""Learned prompts: the soft prompt and its card, how a prompt begins, and the library that keeps prompts.

This package holds plain values and their files. It knows nothing of models, tasks or tuning.
"""

from spoton.prompts.card import Card, Parent
from spoton.prompts.ensemble import ensemble_of
from spoton.prompts.initial import (
    common_token_ids,
    from_combination,
    from_label_words,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)
from spoton.prompts.library import PromptLibrary, default_library_path, starter_library
from spoton.prompts.listing import Entry, Verification
from spoton.prompts.soft_prompt import SoftPrompt, resize_prompt

__all__ = [
    "Card",
    "Entry",
    "Parent",
    "PromptLibrary",
    "SoftPrompt",
    "Verification",
    "common_token_ids",
    "default_library_path",
    "ensemble_of",
    "from_combination",
    "from_label_words",
    "from_prompt",
    "from_text",
    "from_uniform",
    "from_vocabulary",
    "resize_prompt",
    "starter_library",
]
