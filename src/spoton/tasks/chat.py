"""A task as a chat: the user's turn is the input; the assistant's turn begins with the cue and ends with the answer.

Plain text. The words around a turn come from the model's chat template, through `spoton.evaluation.form`. A soft prompt
precedes everything, where a model expects its system message.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from spoton.tasks.task import Example, Task

CHAT = "chat"
"""Suffix of a task's form in a chat: `natural+chat`, or `chat` for a user's own rows."""

_TEXT = "{{ text }}"  # what an empty template reads
_CUE = re.compile(r"(?<=[\n}])[^\n{}]*\Z")
_IN_CHAT = re.compile(
    r"\A{% raw %}.*?{% endraw %}{% filter trim %}(.*){% endfilter %}{% raw %}.*{% endraw %}([^\n{}]*)\Z",
    re.DOTALL,
)


@dataclass(frozen=True)
class Chat:
    """The text around a user's message."""

    before: str
    after: str

    def around(self, text: str, cue: str) -> str:
        """Returns one input: the user's turn, and the beginning of the assistant's."""
        said = text.removesuffix(cue).strip()
        return f"{self.before}{said}{self.after}{cue.strip()}".strip()

    def around_template(self, template: str, cue: str) -> str:
        """Returns the template that produces what `around` makes of an input."""
        said = template.removesuffix(cue)
        before, after = (f"{{% raw %}}{text}{{% endraw %}}" for text in (self.before, self.after))
        return f"{before}{{% filter trim %}}{said}{{% endfilter %}}{after}{cue.strip()}"


def template_in_chat(template: str) -> str | None:
    """Returns the template that `Chat.around_template` put into a chat, up to space before its cue; else None.

    A file is read by this template again, and then put into the chat: a card has only the whole.
    """
    found = _IN_CHAT.match(template)
    return None if found is None else found[1] + found[2]


def in_chat(task: Task, chat: Chat) -> Task:
    """Returns the task with every input as a turn of a chat.

    The cue is the text after the template's last column (`Answer:`). Without one, the assistant's turn begins with the
    answer.
    """
    found = _CUE.search(task.template)
    cue = found[0] if found is not None else ""

    def wrapped(split: Iterable[Example]) -> tuple[Example, ...]:
        return tuple(replace(example, input=chat.around(example.input, cue)) for example in split)

    return replace(
        task,
        train=wrapped(task.train),
        validation=wrapped(task.validation),
        test=wrapped(task.test),
        template=chat.around_template(task.template or _TEXT, cue),
        form="+".join(filter(None, (task.form, CHAT))),
    )
