"""The task form that suits a model: the paper's for encoder-decoder models, the natural one for decoder-only ones."""

from __future__ import annotations

from typing import get_args

from transformers import PreTrainedTokenizerBase

from spoton.errors import ModelError
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.tasks.chat import CHAT, Chat
from spoton.tasks.task_info import Form

_SAID = "what the user says"


def form_for(model: FrozenModel) -> Form:
    """Returns the form in which a model reads catalog tasks by default.

    On SmolLM2-135M with MNLI and 3,200 training examples a prompt reached 35.5 in T5 form and 50.0 in the natural one;
    T5 was trained on its own form.

    Examples:
        >>> task = resolve_task("mnli", form=form_for(model))  # doctest: +SKIP
    """
    return "t5" if model.is_encoder_decoder else "natural"


def form_of(card: Card) -> Form:
    """Returns the form that a prompt was tuned in; for cards older than the field, the entry's own form."""
    return next((form for form in get_args(Form) if form == card.form.split("+")[0]), "t5")


def is_chat(card: Card) -> bool:
    """Returns whether the inputs of a prompt were chat turns."""
    return card.form.split("+")[-1] == CHAT


def chat_of(tokenizer: PreTrainedTokenizerBase, name: str) -> Chat:
    """Returns the text that a model's own chat template puts around a user's message.

    Args:
        tokenizer: Tokenizer of the model.
        name: Name of the model, for the error.

    Raises:
        ModelError: The model has no chat template.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template; expected a model that was tuned for chats. Leave --chat out."
        )
    turn = [{"role": "user", "content": _SAID}]
    text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    before, _, after = text.partition(_SAID)
    first = str(tokenizer.bos_token or "")
    if first and before.startswith(first) and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]:
        before = before.removeprefix(first)  # the tokenizer adds it too
    return Chat(before, after)
