"""T5's processing of rows before its templates: pronouns, ReCoRD, MultiRC, SQuAD, language modelling.

Reproduces the preprocessors of the T5 library (Raffel et al. 2020, arXiv 1910.10683). A processor takes rows and the
name of their split, and returns rows with more columns, or more or fewer rows.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from spoton.errors import DataError
from spoton.files import sha256_of_text

RawRow = dict[str, Any]
Processor = Callable[[Sequence[RawRow], str], list[RawRow]]

# Two texts of WSC whose index points at the wrong word: where the pronoun is.
_WSC_MISPLACED = {
    'Good for him," he said.': 'Good for X ," he said.',
    "Some day they might want to use it ,": "Some day they might want to use X ,",
}

WINDOW = 256
"""Words of one example of language modelling. T5 cuts at its input length of 512 tokens."""


def wsc(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Turns Winograd schemas into generation of the referent: column `text` with `*pronoun*`, and `references`.

    The target is always `span1_text`. Training keeps only schemas where that is the referent. `references` says whether
    it is, `True` or `False`; where it is not, a correct answer differs from it.
    """
    prepared = []
    for row in rows:
        right = str(row["label"]) in ("True", "1")
        if split == "train" and not right:
            continue
        text = _blanked(row).replace(" X ", f" *{row['span2_text']}* ")
        prepared.append({**row, "text": text, "references": [str(right)]})
    return prepared


def _blanked(row: RawRow) -> str:
    """Returns the text with X in place of the pronoun."""
    text = str(row["text"])
    words, place = text.split(" "), int(row["span2_index"])
    if 0 < place < len(words) and words[place] == row["span2_text"]:
        return " ".join([*words[:place], "X", *words[place + 1 :]])
    for wrong, blanked in _WSC_MISPLACED.items():
        if wrong in text:
            return text.replace(wrong, blanked).strip()
    raise DataError(
        f"A row of WSC has no {row['span2_text']!r} at word {place} of {text!r}. Correct span2_index."
    )


def record(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Processes ReCoRD: highlights become sentences, and each listed answer becomes one example.

    A row may list one answer several times, and each counts, so the training split has more examples than questions.
    The metrics count each question once.
    """
    prepared = []
    for row in rows:
        passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", str(row["passage"]))
        passage = passage.replace("\n@highlight\n", ". ")
        answers = [str(answer) for answer in row["answers"]]
        fields = {**row, "passage": passage, "references": answers}
        prepared += [{**fields, "answer": answer} for answer in answers]
    return prepared


def dpr(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Processes definite pronoun resolution: the pronoun's first occurrence becomes `*pronoun*`."""
    return [
        {
            **row,
            "sentence": re.sub(
                rf" ({re.escape(str(row['pronoun']))})( |\.|,)", r" *\1*\2", str(row["sentence"]), count=1
            ),
        }
        for row in rows
    ]


def multirc(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Processes MultiRC: removes the markup in its texts."""
    return [
        {**row, **{name: _unmarked(str(row[name])) for name in ("question", "answer", "paragraph")}}
        for row in rows
    ]


def _unmarked(text: str) -> str:
    return re.sub(r"</?b>", "", text.replace("<br>", " "))


def squad(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Processes extractive questions: spaces around punctuation, the first answer as target, all as `references`.

    Answers are a list of texts, as in MRQA, or a list under `text`, as in SQuAD.
    """
    prepared = []
    for row in rows:
        listed = row["answers"]["text"] if isinstance(row["answers"], dict) else row["answers"]
        answers = [_padded(str(answer)) for answer in listed]
        padded = {name: _padded(str(row[name])) for name in ("question", "context")}
        prepared.append({**row, **padded, "answer": answers[0] if answers else "", "references": answers})
    return prepared


def _padded(text: str) -> str:
    """Returns text with spaces around each ASCII punctuation mark, and runs of white space as one space."""
    return " ".join(re.sub(r"([!-/:-@\[-`{-~])", r" \1 ", text).split())


def prefix_lm(rows: Sequence[RawRow], split: str) -> list[RawRow]:
    """Processes language modelling on column `text`: windows of words, cut at a uniformly random position.

    The part before the cut is column `prefix`, the rest is column `continuation`. The cut depends only on the text, so
    rows are the same on every machine.
    """
    prepared = []
    for row in rows:
        words = str(row["text"]).split()
        for start in range(0, len(words), WINDOW):
            window = words[start : start + WINDOW]
            if len(window) < 2:
                continue
            drawn = random.Random(sha256_of_text(["prefix_lm", *window]))
            cut = drawn.randrange(1, len(window))
            prepared.append({**row, "prefix": " ".join(window[:cut]), "continuation": " ".join(window[cut:])})
    return prepared


PROCESSORS: dict[str, Processor] = {
    "wsc": wsc,
    "record": record,
    "dpr": dpr,
    "multirc": multirc,
    "squad": squad,
    "prefix_lm": prefix_lm,
}
