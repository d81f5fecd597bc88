"""Ensembles as files: what they hold, what they refuse, and where one prompt is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import LibraryError, PromptError
from spoton.exchange.formats import export_prompts
from spoton.prompts import Card, PromptLibrary, SoftPrompt, ensemble_of
from spoton.prompts.card import Calibration
from spoton.transfer import sources_for

CALIBRATION = Calibration(bias=[0.5, -0.5], temperature=2.0, rows=8)


def prompt(name: str, length: int, **card: object) -> SoftPrompt:
    facts = {
        "name": name,
        "task": "toy",
        "model": "tiny",
        "model_fingerprint": "f00d",
        "labels": ["yes", "no"],
    }
    return SoftPrompt(torch.full((length, 3), float(length)), Card.model_validate(facts | card))


def test_an_ensemble_holds_its_prompts_and_names_them(tmp_path: Path) -> None:
    one, two = prompt("one", 2, calibration=CALIBRATION), prompt("two", 3)
    joint = SoftPrompt.load(ensemble_of([one, two], "both").save(tmp_path / "both.safetensors"))
    assert [value.tolist() for value in joint.values] == [one.value.tolist(), two.value.tolist()]
    assert [(m.name, m.length, m.calibration) for m in joint.card.members] == [
        ("one", 2, CALIBRATION), ("two", 3, None),
    ]  # fmt: skip
    assert [(p.name, p.weight, p.hash) for p in joint.card.parents] == [
        ("one", 0.5, one.content_hash()), ("two", 0.5, two.content_hash()),
    ]  # fmt: skip
    assert joint.card.calibration is None and joint.card.name == "both"
    assert [value.tolist() for value in one.values] == [one.value.tolist()]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([prompt("one", 2)], "at least two prompts; found 1"),
        ([prompt("one", 2), prompt("two", 2, labels=["a", "b"])], "differ in labels"),
        ([prompt("one", 2), prompt("two", 2, model_fingerprint="beef")], "differ in model_fingerprint"),
        ([prompt("one", 2), prompt("two", 2, recipe={"label_score": "mean"})], "score labels in different ways"),
        ([ensemble_of([prompt("a", 1), prompt("b", 1)]), prompt("c", 1)], "is an ensemble of a, b; an ensemble needs"),
    ],
)  # fmt: skip
def test_what_cannot_answer_together_is_refused(prompts: list[SoftPrompt], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        ensemble_of(prompts)


def test_a_prompt_that_does_not_say_how_it_scores_labels_scores_by_the_sum() -> None:
    joint = ensemble_of([prompt("imported", 2), prompt("tuned", 2, recipe={"label_score": "sum"})])
    assert [member.name for member in joint.card.members] == ["imported", "tuned"]


def test_a_value_that_is_not_that_of_its_members_is_refused() -> None:
    joint = ensemble_of([prompt("one", 2), prompt("two", 3)])
    with pytest.raises(PromptError, match=r"5 rows in all, and the value has 4"):
        SoftPrompt(joint.value[:4], joint.card)


def test_where_one_prompt_is_needed_an_ensemble_says_so(tmp_path: Path) -> None:
    joint = ensemble_of([prompt("one", 2), prompt("two", 3)], "both")
    with pytest.raises(PromptError, match="both is an ensemble of one, two; an export needs one prompt"):
        export_prompts([joint], "t5x", tmp_path / "both.npy")
    library = PromptLibrary(tmp_path)
    library.add(joint)
    with pytest.raises(LibraryError, match="1 an ensemble"):
        sources_for([library], "f00d", need_key=False)


def test_prompts_that_read_inputs_of_different_length_are_refused() -> None:
    def tuned_with(**recipe: int) -> SoftPrompt:
        card = Card(name="p", task="t", model="m", model_fingerprint="f", labels=["a", "b"], recipe=recipe)
        return SoftPrompt(torch.ones(2, 4), card)

    with pytest.raises(PromptError, match=r"at most 16 and 512 tokens \(max_input_tokens\)"):
        ensemble_of([tuned_with(max_input_tokens=16), tuned_with(max_input_tokens=512)])
    assert ensemble_of([tuned_with(max_input_tokens=16), tuned_with()]).length == 4
