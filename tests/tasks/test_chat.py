"""A task as a chat: what stands around an input, and that a prompt's template says the same."""

from dataclasses import replace

import pytest

from spoton.tasks import Example, Task
from spoton.tasks.chat import Chat, in_chat, template_in_chat
from spoton.tasks.fill import fill
from spoton.tasks.template import compile_template, render
from tests.tiny import toy_task

CHAT = Chat("<system>{{ be kind }}</system><user>", "</user>\n<assistant>\n")
ROWS = [{"text": " A film {%"}, {"text": "B\nAnswer: C"}]


def task(template: str) -> Task:
    inputs = [render(compile_template(template), row) for row in ROWS]
    rows = tuple(Example(text, label) for text, label in zip(inputs, ("yes", "no"), strict=True))
    return toy_task(train=rows, validation=rows, test=rows, template=template)


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("{{ text }}\nAnswer:", "A film {%</user>\n<assistant>\nAnswer:"),
        ("{{ text }} Verdict:", "A film {%</user>\n<assistant>\nVerdict:"),
        (
            "{% for i in [1] %}{{ i }}. {{ text }}\n{% endfor %}Answer:",
            "1.  A film {%</user>\n<assistant>\nAnswer:",
        ),
        ("{{ text }}", "A film {%</user>\n<assistant>"),
        ("Say: {{ text }}\n{{ text }}?\nIs it?", "Say:  A film {%\n A film {%?</user>\n<assistant>\nIs it?"),
    ],
)
def test_the_cue_begins_the_turn_of_the_assistant(template: str, first: str) -> None:
    chat = in_chat(task(template), CHAT)
    assert chat.train[0].input == f"<system>{{{{ be kind }}}}</system><user>{first}"
    # What `predict` makes of a row is what the prompt was tuned on.
    assert fill(chat.template, ROWS) == [row.input for row in chat.train]
    # What `evaluate` makes of a file: it is read by the template inside the chat, and put into the chat again.
    inside = template_in_chat(chat.template)
    assert inside is not None and in_chat(task(inside), CHAT).train == chat.train
    assert template_in_chat(template) is None


def test_the_form_says_that_it_is_a_chat() -> None:
    own = task("{{ text }}\nAnswer:")
    assert in_chat(own, CHAT).form == "chat"
    assert in_chat(replace(own, form="natural"), CHAT).form == "natural+chat"
