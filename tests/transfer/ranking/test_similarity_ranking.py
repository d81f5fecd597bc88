"""Retrieval: which prompts of a library can be sources, and in which order they come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spoton.errors import LibraryError
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.transfer import retrieve, sources_for

# Cosines with the target (1, 0), which is one token long: 1, 0.8, 0.6, 0 and -1.
TARGET = torch.tensor([[1.0, 0.0]])
KEYS = {
    "same": [[2.0, 0.0]],
    "near": [[4.0, 3.0]],
    "middle": [[3.0, 4.0]],
    "across": [[0.0, 1.0]],
    "opposite": [[-1.0, 0.0]],
}


def a_prompt(name: str, key: Tensor | None, **card: str) -> SoftPrompt:
    facts = {"name": name, "task": f"{name}-task", "model": "tiny", "model_fingerprint": "f00d"} | card
    return SoftPrompt(torch.ones(3, 2), Card.model_validate(facts), key)


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    """Five prompts of one model with keys."""
    filled = PromptLibrary(tmp_path / "library")
    for name, key in KEYS.items():
        filled.add(a_prompt(name, torch.tensor(key)))
    return filled


def source_names(*libraries: PromptLibrary, fingerprint: str = "f00d", **target: str) -> list[str]:
    return [entry.name for _, entry in sources_for(libraries, fingerprint, **target)]


def test_the_most_similar_comes_first(library: PromptLibrary) -> None:
    found = retrieve(TARGET, sources_for([library], "f00d"), k=5)
    assert [one.name for one in found] == ["same", "near", "middle", "across", "opposite"]
    assert [one.similarity for one in found] == pytest.approx([1, 0.8, 0.6, 0, -1])


def test_k_is_how_many_come_back(library: PromptLibrary) -> None:
    assert [one.name for one in retrieve(TARGET, sources_for([library], "f00d"), k=2)] == ["same", "near"]


def test_a_k_larger_than_the_library_gives_all_of_it(library: PromptLibrary) -> None:
    assert {one.name for one in retrieve(TARGET, sources_for([library], "f00d"), k=99)} == KEYS.keys()


def test_equally_similar_prompts_come_by_name(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    for name in ("c", "a", "b"):
        library.add(a_prompt(name, TARGET))
    sources = sources_for([library], "f00d")
    assert [one.name for one in retrieve(TARGET, sources[::-1], k=3)] == ["a", "b", "c"]


def test_the_metric_decides_the_order(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    library.add(a_prompt("part", torch.tensor([[1.0, 0.0], [0.0, 10.0]])))  # on average 0.1, by maximum 2/3
    library.add(a_prompt("whole", torch.tensor([[3.0, 4.0]])))  # 0.6 either way
    sources = sources_for([library], "f00d")
    assert retrieve(TARGET, sources, k=1, metric="average_tokens")[0].name == "whole"
    assert retrieve(TARGET, sources, k=1, metric="maximum_token")[0].name == "part"


def test_keys_are_compared_and_values_come_back(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    prompt = SoftPrompt(torch.tensor([[-5.0, 1.0]]), a_prompt("a", None).card, TARGET)
    library.add(prompt)
    (found,) = retrieve(TARGET, sources_for([library], "f00d"), k=1)
    assert found.similarity == pytest.approx(1)
    assert torch.equal(found.prompt.value, prompt.value)


def test_what_is_told_of_a_source(library: PromptLibrary) -> None:
    library.add(a_prompt("quiz", TARGET, family="question answering"))
    sources = sources_for([library], "f00d")
    (found,) = [one for one in retrieve(TARGET, sources, k=9) if one.name == "quiz"]
    assert found.to_json() == {
        "name": "quiz", "similarity": pytest.approx(1), "task": "quiz-task", "family": "question answering",
    }  # fmt: skip


def test_only_prompts_of_the_same_model(library: PromptLibrary) -> None:
    library.add(a_prompt("foreign", TARGET, model_fingerprint="beef"))
    assert "foreign" not in source_names(library)
    assert source_names(library, fingerprint="beef") == ["foreign"]


def test_only_prompts_with_a_key(library: PromptLibrary) -> None:
    library.add(a_prompt("imported", None))
    assert set(source_names(library)) == KEYS.keys()


def test_the_targets_own_task_is_left_out(library: PromptLibrary) -> None:
    library.add(a_prompt("same-again", TARGET, task="same-task"))
    assert set(source_names(library, task="same-task")) == KEYS.keys() - {"same"}


def test_prompts_of_the_same_rows_are_left_out_whatever_their_task_is_called(library: PromptLibrary) -> None:
    library.add(a_prompt("renamed", TARGET, data_hash="0123"))
    assert "renamed" not in source_names(library, task="mine", data_hash="0123")
    assert "renamed" in source_names(library, task="mine", data_hash="4567")


def test_two_files_of_one_name_are_two_tasks_and_one_file_under_two_names_is_one(
    library: PromptLibrary,
) -> None:
    """Half of the data sets that people have are called train.csv."""
    library.add(a_prompt("support", TARGET, task="train", source="file:train.csv@0123456789ab"))
    assert "support" in source_names(library, task="train", source="file:train.csv@ba9876543210")
    assert "support" not in source_names(library, task="other", source="file:other.csv@0123456789ab")
    assert "support" not in source_names(library, task="train", source="hub:owner/train")


def test_prompts_of_tasks_with_the_same_texts_are_no_sources(library: PromptLibrary) -> None:
    """Sentences of SUBJ are snippets of Rotten Tomatoes; a user's file of that name has other rows."""
    for name, card in (
        ("snippets", {"task": "rotten_tomatoes"}), ("mine", {"task": "sst2", "source": "file:sst2.csv@0123456789ab"}),
        ("entailment", {"task": "mnli"}),
    ):  # fmt: skip
        library.add(a_prompt(name, torch.tensor(KEYS["near"]), **card))
    assert set(source_names(library, task="subj")) == {*KEYS, "mine", "entailment"}
    assert "snippets" in source_names(library, task="subj", source="file:subj.csv@0123456789ab")
    alone = PromptLibrary(library.folder.parent / "alone")
    alone.add(a_prompt("snippets", torch.tensor(KEYS["near"]), task="rotten_tomatoes"))
    with pytest.raises(LibraryError, match="1 of a task with the same texts"):
        sources_for([alone], "f00d", task="sst2")


def test_a_mixture_counts_as_all_its_members(library: PromptLibrary) -> None:
    """`adapt mixture:mnli,trec` tunes on rows of both; a prompt of a mixture knows the rows of its members."""
    for name, task in (
        ("inference", "mnli"),
        ("movies", "rotten_tomatoes"),
        ("joint", "mixture-rte+trec"),
        ("glue", "mixture-glue"),
    ):
        library.add(a_prompt(name, torch.tensor(KEYS["near"]), task=task))
    assert set(source_names(library, task="mixture-mnli+cola")) == {*KEYS, "movies", "joint"}
    assert set(source_names(library, task="trec")) == {*KEYS, "inference", "movies", "glue"}
    assert set(source_names(library, task="mixture-sst2+trec", source="mixture, cap 9")) == {
        *KEYS,
        "inference",
    }
    assert "joint" in source_names(library, task="trec", source="file:trec.csv@0123456789ab")


def test_without_hashes_nothing_is_taken_for_the_same_rows(library: PromptLibrary) -> None:
    assert set(source_names(library, task="mine", data_hash="")) == KEYS.keys()


def test_a_name_in_two_libraries_is_taken_from_the_first(library: PromptLibrary, tmp_path: Path) -> None:
    other = PromptLibrary(tmp_path / "other")
    other.add(a_prompt("same", -TARGET))
    other.add(a_prompt("further", TARGET))
    sources = sources_for([library, other], "f00d")
    found = {one.name: one.similarity for one in retrieve(TARGET, sources, k=9)}
    assert found.keys() == {*KEYS, "further"}
    assert found["same"] == pytest.approx(1)


def test_no_source_at_all_says_how_to_get_one() -> None:
    with pytest.raises(LibraryError, match=r"No library holds.*spoton tune.*spoton library add"):
        retrieve(TARGET, [], k=1)


def test_no_source_says_what_there_is_and_why_it_was_left_out(tmp_path: Path) -> None:
    library, other = PromptLibrary(tmp_path / "library"), PromptLibrary(tmp_path / "other")
    library.add(a_prompt("own", TARGET, task="mine"))
    library.add(a_prompt("own-rows", TARGET, data_hash="0123"))
    library.add(a_prompt("imported", None))
    other.add(a_prompt("foreign", None, model_fingerprint="beef", task="mine"))
    (other.folder / "cut.safetensors").write_bytes(b"no prompt")
    left_out = "2 of the same task or the same rows, 1 without a key, 1 damaged, 1 of another model"
    with pytest.raises(LibraryError, match=rf"No library holds.* Left out: {left_out}\. Tune one"):
        sources_for([library, other], "f00d", task="mine", data_hash="0123")
    with pytest.raises(LibraryError, match=r"No library holds [^.]*\. Tune one"):
        sources_for([PromptLibrary(tmp_path / "empty")], "f00d")


def spoil(library: PromptLibrary, name: str) -> None:
    """Flips a bit of the last number, which leaves the head of the file as it was."""
    file = library.folder / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_prompt_is_skipped_and_told(library: PromptLibrary) -> None:
    spoil(library, "same")
    found = retrieve(TARGET, sources_for([library], "f00d"), k=2)
    assert [one.name for one in found] == ["near", "middle"]
    assert found.damaged.keys() == {"same"} and "checksum" in found.damaged["same"]
    assert not library.damaged


def test_nothing_but_damaged_prompts_is_no_source_at_all(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    library.add(a_prompt("only", TARGET))
    spoil(library, "only")
    with pytest.raises(LibraryError, match=r"No library holds.* Left out: 1 damaged\."):
        retrieve(TARGET, sources_for([library], "f00d"), k=1)
