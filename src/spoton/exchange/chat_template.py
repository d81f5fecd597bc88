"""The chat template of a baked checkpoint: a user message becomes the prompt's tokens and the filled template.

The system message names the prompt; without one the first prompt is used. Chat templates run in other programs
(transformers, llama.cpp, vLLM), so only templates of one column with text around it are translated, and only with
filters that all of these programs have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from jinja2 import Environment, nodes

from spoton.prompts.soft_prompt import SoftPrompt

_BARE = ("", "content", "")


def chat_template(prompts: Sequence[SoftPrompt], prefixes: Mapping[str, str]) -> tuple[str, list[str]]:
    """Returns the chat template in Jinja, and notes on it.

    Args:
        prompts: The prompts of the checkpoint.
        prefixes: Text of each prompt by name.

    Returns:
        A chat template, and a note for each prompt whose card has a template that is not translated: its user
        message must be the filled template.
    """
    notes, cases = [], []
    for prompt in prompts:
        parts = translated(prompt.card.template) if prompt.card.template else _BARE
        if parts is None:
            notes.append(
                f"The template of {prompt.card.name!r} is more than one column with text around it: "
                "fill it yourself; the chat template puts only the prompt before a message."
            )
        before, column, behind = _BARE if parts is None else parts
        filled = f"{_quoted(before)} + ({column}) + {_quoted(behind)}"
        name = prompt.card.name
        cases.append(
            f"if wanted == {_quoted(name)} -%}}\n{{{{- {_quoted(prefixes[name])} + (({filled}) | trim) -}}}}"
        )
    names = ", ".join(prefixes)
    choice = "\n{%- el".join(cases)
    first = _quoted(prompts[0].card.name)
    template = (
        f"{{%- set wanted = {first} -%}}\n"
        "{%- if messages[0]['role'] == 'system' -%}{%- set wanted = messages[0]['content'] -%}{%- endif -%}\n"
        "{%- set content = messages[-1]['content'] -%}\n"
        f"{{%- {choice}\n"
        f"{{%- else -%}}{{{{- raise_exception('The system message names the prompt; there is: {names}') -}}}}"
        "{%- endif -%}"
    )
    return template, notes


def translated(template: str) -> tuple[str, str, str] | None:
    """Returns the only column of a template as an expression of `content`, with the text before and after it.

    The filter `plain` becomes `trim`: HTML entities and runs of spaces, which it also removes, do not occur in chats.

    Returns:
        Text before, expression, text after; None if the template is anything else.

    Examples:
        >>> translated("{{ text | replace('a', 'b') }}\\nVerdict:")
        ('', 'content | replace("a", "b")', '\\nVerdict:')
    """
    body = Environment(autoescape=False).parse(template).body
    parts = [part for node in body if isinstance(node, nodes.Output) for part in node.nodes]
    columns = [place for place, part in enumerate(parts) if not isinstance(part, nodes.TemplateData)]
    if len(columns) != 1 or any(not isinstance(node, nodes.Output) for node in body):
        return None
    expression = _expression(parts[columns[0]])
    if expression is None:
        return None
    texts = [part.data if isinstance(part, nodes.TemplateData) else "" for part in parts]
    return "".join(texts[: columns[0]]), expression, "".join(texts[columns[0] + 1 :])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _expression(node: nodes.Node | None) -> str | None:
    """Returns a column over `content`, perhaps with filters that every chat template engine has; None otherwise."""
    if isinstance(node, nodes.Filter):
        inner = _expression(node.node)
        arguments = [arg.value for arg in node.args if isinstance(arg, nodes.Const)]
        is_constant = len(arguments) == len(node.args) and not node.kwargs
        if inner is not None and node.name in ("plain", "trim") and not node.args:
            return f"{inner} | trim"
        if inner is not None and node.name == "replace" and is_constant:
            return f"{inner} | replace({', '.join(json.dumps(arg) for arg in arguments)})"
        return None
    if isinstance(node, nodes.Getitem):
        node = node.node if isinstance(node.arg, nodes.Const) else None
        return "content" if isinstance(node, nodes.Name) and node.name == "row" else None
    return "content" if isinstance(node, nodes.Name) else None
