"""The chat template of a baked checkpoint: a user message becomes the prompt's tokens and the filled template.

The name of the prompt is the system message; without one the first prompt is used. Chat templates run in other
programs (transformers, llama.cpp, vLLM), so only templates of one column that add text before or behind it are
translated: those need nothing but strings and `+`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from jinja2 import Environment, nodes

from spoton.prompts.soft_prompt import SoftPrompt


def chat_template(prompts: Sequence[SoftPrompt], prefixes: Mapping[str, str]) -> tuple[str, list[str]]:
    """The template in Jinja, and what to know of it.

    Args:
        prompts: The prompts of the checkpoint.
        prefixes: By name: the text that is the prompt.

    Returns:
        A chat template, and a note for each prompt whose card has a template that is not translated: its user
        message has to be the filled template.
    """
    notes, cases = [], []
    for prompt in prompts:
        around = text_around(prompt.card.template) if prompt.card.template else ("", "")
        if around is None:
            notes.append(
                f"The template of {prompt.card.name!r} is more than one column with text around it: "
                "fill it yourself; the chat template puts only the prompt before a message."
            )
            around = ("", "")
        before, behind = (json.dumps(text, ensure_ascii=False) for text in around)
        prefix = json.dumps(prefixes[prompt.card.name], ensure_ascii=False)
        name = json.dumps(prompt.card.name)
        cases.append(
            f"if wanted == {name} -%}}\n{{{{- {prefix} + (({before} + content + {behind}) | trim) -}}}}"
        )
    names = ", ".join(prefixes)
    choice = "\n{%- el".join(cases)
    first = json.dumps(prompts[0].card.name)
    template = (
        f"{{%- set wanted = {first} -%}}\n"
        "{%- if messages[0]['role'] == 'system' -%}{%- set wanted = messages[0]['content'] -%}{%- endif -%}\n"
        "{%- set content = messages[-1]['content'] -%}\n"
        f"{{%- {choice}\n"
        f"{{%- else -%}}{{{{- raise_exception('The system message names the prompt; there is: {names}') -}}}}"
        "{%- endif -%}"
    )
    return template, notes


def text_around(template: str) -> tuple[str, str] | None:
    """The constant text before and behind the only column of a template; None if it is anything else.

    Example:
        >>> text_around("{{ text }}\\nVerdict:")
        ('', '\\nVerdict:')
    """
    body = Environment(autoescape=False).parse(template).body
    parts = [part for node in body if isinstance(node, nodes.Output) for part in node.nodes]
    columns = [place for place, part in enumerate(parts) if not isinstance(part, nodes.TemplateData)]
    if len(columns) != 1 or any(not isinstance(node, nodes.Output) for node in body):
        return None
    column = parts[columns[0]]
    is_row = (
        isinstance(column, nodes.Getitem)
        and isinstance(column.node, nodes.Name)
        and column.node.name == "row"
    )
    if not is_row and not isinstance(column, nodes.Name):
        return None
    texts = [part.data if isinstance(part, nodes.TemplateData) else "" for part in parts]
    return "".join(texts[: columns[0]]), "".join(texts[columns[0] + 1 :])
