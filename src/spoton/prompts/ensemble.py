"""Ensembles: several prompts of one task that answer together, as one file.

The rows of the prompts follow each other in the value, and the card names the prompts. `spoton.evaluation` combines
their answers. An ensemble does not collapse into one prompt.
"""

from collections.abc import Sequence

import torch

from spoton.errors import PromptError
from spoton.prompts.card import Member, Parent
from spoton.prompts.soft_prompt import SoftPrompt


def ensemble_of(prompts: Sequence[SoftPrompt], name: str = "") -> SoftPrompt:
    """Makes one prompt file from several prompts; its card is that of the first, without scores.

    Args:
        prompts: At least two, of one model, with the same labels and template.
        name: Name of the ensemble; that of the first prompt if empty.

    Raises:
        PromptError: There are fewer, one of them is an ensemble, or they differ in their inputs or answers.

    Example:
        >>> ensemble_of([first, second], "reviews").card.members[1].name  # doctest: +SKIP
        'reviews-seed-1'
    """
    if len(prompts) < 2:
        raise PromptError(f"An ensemble needs at least two prompts; found {len(prompts)}.")
    first = prompts[0].card
    for prompt in prompts:
        prompt.require_single("an ensemble")
        for field in ("model_fingerprint", "labels", "template", "form"):
            ours, theirs = getattr(first, field), getattr(prompt.card, field)
            if ours != theirs:
                raise PromptError(
                    f"{first.name} and {prompt.card.name} differ in {field} ({ours!r} and {theirs!r}), so they cannot "
                    "answer together. Give prompts of one task and model."
                )
        # A card without it, such as that of an imported prompt, scores by the sum.
        scored = [card.recipe.get("label_score", "sum") for card in (first, prompt.card)]
        if scored[0] != scored[1]:
            raise PromptError(
                f"{first.name} and {prompt.card.name} score labels in different ways (label_score)."
            )
        limits = [card.recipe.get("max_input_tokens") for card in (first, prompt.card)]
        if None not in limits and limits[0] != limits[1]:
            raise PromptError(
                f"{first.name} and {prompt.card.name} were tuned on inputs of at most {limits[0]} and {limits[1]} "
                "tokens (max_input_tokens), and an ensemble reads one input. Give prompts of one limit."
            )
    members = [
        Member(
            name=prompt.card.name,
            length=prompt.length,
            hash=prompt.content_hash(),
            calibration=prompt.card.calibration,
        )
        for prompt in prompts
    ]
    parents = [Parent(name=member.name, weight=1 / len(members), hash=member.hash) for member in members]
    card = first.model_copy(
        update={
            "name": name or first.name, "members": members, "parents": parents, "calibration": None, "scores": {},
            "key_step": None, "best_step": None, "seed": None,
        }
    )  # fmt: skip
    return SoftPrompt(torch.cat([prompt.value for prompt in prompts]), card)
