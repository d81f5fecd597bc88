"""What the model sees of every task, in either form: rows in the official columns, rendered, against recorded ones.

`SPOTON_UPDATE_SNAPSHOT=1` records it anew; read the difference before it is committed.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spoton.errors import DataError
from spoton.tasks import TaskInfo, list_tasks
from spoton.tasks.catalog import task_info
from spoton.tasks.render import Rendered, render_rows
from spoton.tasks.sources import Rows
from spoton.tasks.t5_text import PROCESSORS, WINDOW, prefix_lm
from spoton.tasks.task_info import Form

HERE = Path(__file__).parent
SNAPSHOTS: dict[Form, Path] = {"t5": HERE / "forms.json", "natural": HERE / "natural_forms.json"}
# Tasks whose rows are an archive's alone are pinned with their data in test_catalog.
INFOS = [info for info in list_tasks() if info.dataset or info.url or info.process_docs]
TWO_FORMS = [info for info in INFOS if info.natural is not None]


def recorded_rows(name: str) -> list[dict[str, Any]]:
    text = (HERE / "rows" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def form(info: TaskInfo, split: str = "validation", prefix: Any = "task", kind: Form = "t5") -> Rendered:
    return render_rows(info, Rows({split: recorded_rows(info.name)}, "folder:rows"), prefix, kind)[split]


def plain(info: TaskInfo, kind: Form) -> list[dict[str, Any]]:
    """Examples of the validation split as JSON, without what is empty."""
    rows = [
        {
            "input": row.input,
            "target": row.target,
            "references": list(row.references),
            "question": row.question,
        }
        for row in form(info, kind=kind).examples
    ]
    return [{name: value for name, value in row.items() if value} for row in rows]


@pytest.fixture(scope="module")
def snapshots() -> dict[Form, dict[str, Any]]:
    if os.environ.get("SPOTON_UPDATE_SNAPSHOT") == "1":
        for kind, infos in (("t5", INFOS), ("natural", TWO_FORMS)):
            forms = {info.name: plain(info, kind) for info in sorted(infos, key=lambda info: info.name)}
            text = json.dumps(forms, indent=1, ensure_ascii=False) + "\n"
            SNAPSHOTS[kind].write_text(text, encoding="utf-8")
    return {kind: json.loads(path.read_text(encoding="utf-8")) for kind, path in SNAPSHOTS.items()}


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_a_task_reads_as_recorded(info: TaskInfo, snapshots: dict[Form, dict[str, Any]]) -> None:
    assert plain(info, "t5") == snapshots["t5"][info.name]
    # A task with one form has it for every model.
    assert plain(info, "natural") == snapshots["natural" if info.natural else "t5"][info.name]


@pytest.mark.parametrize("info", TWO_FORMS, ids=lambda info: info.name)
def test_rows_go_to_the_same_split_in_either_form(info: TaskInfo) -> None:
    own, natural = form(info), form(info, kind="natural")
    assert own.groups == natural.groups
    words = dict(zip(info.labels or (), info.in_form("natural").labels or (), strict=True))
    assert [words[row.target] for row in own.examples] == [row.target for row in natural.examples]
    assert all(row.input.splitlines()[-1][-1] in ":?" for row in natural.examples), "it ends with a cue"


def test_every_task_with_the_form_of_t5_has_a_natural_one() -> None:
    made_for_t5 = [info for info in list_tasks() if info.template_source in ("t5", "paper") and info.labels]
    assert [info.name for info in made_for_t5 if info.natural is None] == []


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_targets_are_label_words(info: TaskInfo) -> None:
    rendered = form(info, "train")
    assert len(rendered.examples) == len(rendered.groups)
    for row in rendered.examples:
        assert row.target and row.input
        assert info.labels is None or row.target in info.labels


def test_rows_and_snapshot_are_those_of_the_catalog(snapshots: dict[Form, dict[str, Any]]) -> None:
    names = {info.name for info in INFOS}
    assert {path.stem for path in (HERE / "rows").glob("*.jsonl")} == names
    assert set(snapshots["t5"]) == names
    assert set(snapshots["natural"]) == {info.name for info in TWO_FORMS}


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("cola", "cola sentence: The boat sank slowly."),
        ("mnli", "mnli hypothesis: The ferry has left. premise: The ferry left at nine."),
        ("copa", "copa choice1: It fell. choice2: It was full. premise: The glass broke. question: cause"),
        ("wsc", "wsc: Ann thanked Bea because *she* had helped."),
        ("anli_r1", "anli_r1 hypothesis: The ferry has left. context: The ferry left at nine."),
        ("xsum", "xsum summarize: The council met on Monday. It voted to build a school."),
    ],
)
def test_the_prefix_is_the_first_word(name: str, inputs: str) -> None:
    info = task_info(name)
    assert form(info).examples[0].input == inputs
    # Lester et al.'s tasks without a name are these less their first word.
    assert form(info, prefix="none").examples[0].input == inputs.split(" ", 1)[1]


def test_class_order_is_that_of_tfds() -> None:
    """T5's F1 takes the second class as positive."""
    orders = {
        "cola": "unacceptable acceptable",
        "sst2": "negative positive",
        "mrpc": "not_equivalent equivalent",
        "qqp": "not_duplicate duplicate",
        "mnli": "entailment neutral contradiction",
        "qnli": "entailment not_entailment",
        "rte": "entailment not_entailment",
        "superglue_rte": "entailment not_entailment",
        "superglue_boolq": "False True",
        "cb": "entailment contradiction neutral",
        "copa": "choice1 choice2",
        "multirc": "False True",
        "wic": "False True",
        "doc_nli": "not_entailment entailment",
    }
    assert {name: " ".join(task_info(name).labels or ()) for name in orders} == orders
    assert task_info("stsb").labels == task_info("cxc").labels == tuple(f"{i / 5:.1f}" for i in range(26))


@pytest.mark.parametrize(
    ("score", "label"),
    [(0, "0.0"), (5.0, "5.0"), ("3.8", "3.8"), (2.75, "2.8"), (3.333, "3.4"), (0.1, "0.0"), (0.3, "0.4")],
)
def test_similarity_is_rounded_to_fifths(score: object, label: str) -> None:
    row = {"sentence1": "a", "sentence2": "b", "score": score}
    for name in ("stsb", "cxc"):
        found = render_rows(task_info(name), Rows({"train": [row]}, "folder:rows"), "task")
        assert found["train"].examples[0].target == label


def test_wsc_is_tuned_on_true_referents_and_scored_on_all() -> None:
    info = task_info("wsc")
    assert [row.target for row in form(info, "train").examples] == ["Bea"]
    assert [(row.target, row.references) for row in form(info).examples] == [
        ("Bea", ("True",)),
        ("Ann", ("False",)),
    ]


@pytest.mark.parametrize(
    ("text", "place", "pronoun", "expected"),
    [
        (
            "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite "
            'loud. "Good for him," he said. ',
            22,
            "him",
            'loud. "Good for *him* ," he said.',
        ),
        (
            "Mr. Farley put the magic pebble in an iron safe . Some day they might want to use it , but really for "
            "now, what more could they wish for?",
            15,
            "it",
            "want to use *it* , but really for now, what more could they wish for?",
        ),
    ],
)
def test_wsc_finds_the_misplaced_pronouns(text: str, place: int, pronoun: str, expected: str) -> None:
    row = {"text": text, "span1_text": "x", "span2_text": pronoun, "span2_index": place, "label": "True"}
    assert PROCESSORS["wsc"]([row], "train")[0]["text"].endswith(expected)


def test_wsc_refuses_an_index_beside_the_pronoun() -> None:
    row = {
        "text": "Ann saw her.",
        "span1_text": "Ann",
        "span2_text": "she",
        "span2_index": 1,
        "label": "True",
    }
    with pytest.raises(DataError, match="no 'she' at word 1"):
        PROCESSORS["wsc"]([row], "train")


def test_record_has_an_example_for_each_answer_and_one_question() -> None:
    rendered = form(task_info("record"), "train")
    assert [row.target for row in rendered.examples] == ["Ann Lee", "Lee", "Bergen"]
    assert rendered.examples[0].question == rendered.examples[1].question == "0-0"
    # A highlight after a full stop goes on after it; after another mark it becomes a sentence.
    assert rendered.examples[0].input.endswith(
        "passage: Ann Lee won the race in Oslo. Lee beat Bo Berg. It was her first race."
    )


def test_record_counts_an_answer_as_often_as_it_is_listed() -> None:
    row = {**recorded_rows("record")[1], "answers": ["Bergen", "Bergen"]}
    assert len(PROCESSORS["record"]([row], "train")) == 2


def test_multirc_has_no_markup() -> None:
    rendered = form(task_info("multirc"))
    assert rendered.examples[0].input == (
        "multirc question: Which animal has Ann? answer: A cat paragraph: Sent 1: Ann has a cat. Sent 2: It is black."
    )
    assert len(set(rendered.groups)) == 1


def test_squad_pads_punctuation() -> None:
    rendered = form(task_info("squad"))
    assert rendered.examples[0].input == (
        "squad question: What is the capital of Norway ? "
        "context: Oslo ( formerly Christiania ) is the capital of Norway ."
    )
    assert rendered.examples[1].target == "1 , 230 km"


def test_rows_of_other_subsets_are_left_out() -> None:
    assert len(form(task_info("hotpot_qa")).examples) == 2
    assert len(form(task_info("anli_r1")).examples) == 2


def test_language_modelling_cuts_every_window_once() -> None:
    words = [f"w{i}" for i in range(2 * WINDOW + 1)]
    found = prefix_lm([{"text": " ".join(words)}, {"text": "alone"}, {"text": ""}], "train")
    assert [f"{row['prefix']} {row['continuation']}".split() for row in found] == [
        words[:WINDOW],
        words[WINDOW : 2 * WINDOW],
    ]
    assert all(row["prefix"] and row["continuation"] for row in found)
    assert prefix_lm([{"text": " ".join(words)}], "validation") == found[:2], "nothing but the text decides"
