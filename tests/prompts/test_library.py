"""The library: names, damage, read-only folders, and eight real processes at once."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spoton.errors import LibraryError, PromptError, SpotonError
from spoton.prompts import Card, PromptLibrary, SoftPrompt, default_library_path, starter_library


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    return PromptLibrary(tmp_path / "library")


def named(prompt: SoftPrompt, **fields: object) -> SoftPrompt:
    return SoftPrompt(prompt.value, prompt.card.model_copy(update=fields), prompt.key)


def test_add_get_list_remove(library: PromptLibrary, prompt: SoftPrompt) -> None:
    assert library.list() == []
    path = library.add(prompt)
    assert path == library.folder / "movies.safetensors"
    library.add(prompt, name="a.second-one_2")
    first, second = library.list()
    assert (first.name, second.name) == ("a.second-one_2", "movies")
    assert (second.path, second.card, second.length, second.dim) == (path, prompt.card, 4, 3)
    assert second.has_key and second.size_bytes == path.stat().st_size
    assert torch.equal(library.get("movies").value, prompt.value)
    library.remove("movies")
    assert [entry.name for entry in library.list()] == ["a.second-one_2"]


@pytest.mark.parametrize(
    ("own", "suggested"), [("Réviews (2024)/v1.2", "reviews-2024-v1.2"), ("_.x", "x"), ("评论", "prompt")]
)
def test_a_prompt_whose_own_name_is_not_allowed_gets_a_suggestion(
    library: PromptLibrary, prompt: SoftPrompt, own: str, suggested: str
) -> None:
    given = named(prompt, name=own)
    with pytest.raises(LibraryError, match=rf"--name {re.escape(suggested)}$"):
        library.add(given)
    assert library.add(given, name=suggested).exists()


def test_the_card_takes_the_name_in_the_library(library: PromptLibrary, prompt: SoftPrompt) -> None:
    library.add(prompt, name="other")
    assert library.get("other").card == prompt.card.model_copy(update={"name": "other"})
    assert library.get("other").content_hash() == prompt.content_hash()


def test_a_taken_name_is_kept_unless_asked_to_replace(library: PromptLibrary, prompt: SoftPrompt) -> None:
    library.add(prompt)
    other = SoftPrompt(torch.zeros(2, 5), prompt.card)
    with pytest.raises(LibraryError, match="already has a prompt 'movies'"):
        library.add(other)
    assert library.get("movies").dim == 3
    library.add(other, replace=True)
    assert library.get("movies").dim == 5


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "a/b", ".a", "-a", "ä", "a\n", "a" * 201])
def test_names_that_are_none(library: PromptLibrary, prompt: SoftPrompt, name: str) -> None:
    for use in (library.get, library.remove, lambda name: library.add(prompt, name=name)):
        with pytest.raises(LibraryError, match="cannot be a prompt's name"):
            use(name)
    assert not library.folder.exists()


def test_an_unknown_name_suggests_the_nearest(library: PromptLibrary, prompt: SoftPrompt) -> None:
    with pytest.raises(LibraryError, match="It is empty"):
        library.get("movie")
    library.add(prompt)
    for use in (library.get, library.remove):
        with pytest.raises(LibraryError, match=r"no prompt 'movie'\. Did you mean movies\?"):
            use("movie")


def test_damaged_files_are_named_and_skipped(library: PromptLibrary, prompt: SoftPrompt) -> None:
    good = library.add(prompt, name="good")
    content = good.read_bytes()
    (library.folder / "cut.safetensors").write_bytes(content[:100])
    (library.folder / "rotten.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (library.folder / "README.md").write_text("not a prompt, and no matter")
    (library.folder / "._good.safetensors").write_bytes(b"left by another system")
    (library.folder / ".spoton-0.tmp").write_bytes(content[:50])

    assert [entry.name for entry in library.list()] == ["good", "rotten"]  # listing reads no tensors
    assert set(library.damaged) == {"cut"} and "header" in library.damaged["cut"]
    found = library.verify()
    assert found.ok == ["good"]
    assert set(found.damaged) == {"cut", "rotten"} and "checksum" in found.damaged["rotten"]
    with pytest.raises(PromptError, match="checksum"):
        library.get("rotten")

    library.remove("cut")
    library.remove("rotten")
    assert library.list() and library.damaged == {}


def test_badly_named_files_are_told_and_skipped(library: PromptLibrary, prompt: SoftPrompt) -> None:
    good = library.add(prompt)
    (library.folder / "My Prompt.safetensors").write_bytes(good.read_bytes())

    assert [entry.name for entry in library.list()] == ["movies"]
    assert library.damaged.keys() == {"My Prompt"}
    assert "cannot be a prompt's name" in library.damaged["My Prompt"]
    assert "Rename the file" in library.damaged["My Prompt"]
    found = library.verify()
    assert (found.ok, found.damaged) == (["movies"], library.damaged)
    with pytest.raises(LibraryError, match=r"Did you mean movies\?"):
        library.get("my-prompt")


def test_search(library: PromptLibrary, prompt: SoftPrompt) -> None:
    library.add(named(prompt, name="movies"))
    library.add(named(prompt, name="boolq", task="boolq", family="qa", labels=["yes", "no"], notes="Wiki"))
    library.add(named(prompt, name="siqa", task="siqa", family="qa", model_fingerprint="beef"))

    def names(*text: str, **conditions: str) -> list[str]:
        return [entry.name for entry in library.search(*text, **conditions)]

    assert names() == ["boolq", "movies", "siqa"]
    assert names("WIKI yes") == ["boolq"]
    assert names("yes sentiment") == []
    assert names(family="qa") == ["boolq", "siqa"]
    assert names(task="boolq") == ["boolq"]
    assert names(family="qa", model_fingerprint="f00d") == ["boolq"]
    assert names(family="") == []


def test_readonly_refuses_to_change(library: PromptLibrary, prompt: SoftPrompt) -> None:
    library.add(prompt)
    readonly = PromptLibrary(library.folder, readonly=True)
    for change in (lambda: readonly.add(prompt, name="new"), lambda: readonly.remove("movies")):
        with pytest.raises(LibraryError, match="read-only"):
            change()
    assert [entry.name for entry in readonly.list()] == ["movies"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, prompt: SoftPrompt) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError, match="is a file; expected the folder"):
        PromptLibrary(tmp_path / "file")
    library = PromptLibrary(tmp_path / "file" / "library")
    assert library.list() == []
    with pytest.raises(SpotonError, match=r"Cannot write .*Choose a path in a folder you can write to"):
        library.add(prompt)


def test_eight_processes_at_once_lose_nothing(tmp_path: Path, prompt: SoftPrompt) -> None:
    """Each adds ten prompts of its own and ten of names that all the others want too, while one lists."""
    prompt.save(tmp_path / "template.safetensors")
    code = """
import json, os, sys, time
from pathlib import Path
import torch
from spoton.errors import LibraryError
from spoton.prompts import PromptLibrary, SoftPrompt

root = Path(sys.argv[1])
card = SoftPrompt.load(root / "template.safetensors").card
for me in range(8):
    if os.fork() == 0:  # torch is imported once, so that all begin at the same moment
        break
else:
    (root / "go").touch()
    sys.exit(max(os.wait()[1] for _ in range(8)))

mine = SoftPrompt(torch.full((20, 50), float(me)), card)
library = PromptLibrary(root / "library")
while not (root / "go").exists():
    time.sleep(0.001)
won = []
for number in range(10):
    library.add(mine, name=f"own-{me}-{number}")
    try:
        library.add(mine, name=f"wanted-{number}")
        won.append(number)
    except LibraryError:
        pass
(root / f"won-{me}").write_text(json.dumps(won))
"""
    writers = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    library = PromptLibrary(tmp_path / "library")
    while writers.poll() is None:
        library.list()
        assert library.damaged == {}  # no reader ever sees half a file
        time.sleep(0.01)
    assert writers.returncode == 0

    won = [json.loads((tmp_path / f"won-{me}").read_text()) for me in range(8)]
    assert sorted(number for numbers in won for number in numbers) == list(range(10))
    found = library.verify()
    assert found.damaged == {}
    assert sorted(found.ok) == sorted(
        [f"own-{me}-{number}" for me in range(8) for number in range(10)]
        + [f"wanted-{number}" for number in range(10)]
    )
    for me, numbers in enumerate(won):
        assert all(library.get(f"wanted-{number}").value[0, 0] == me for number in numbers)
    assert len(list(library.folder.iterdir())) == 90


def test_starter_library_is_packaged_readonly_and_whole(card: Card) -> None:
    library = starter_library()
    assert library.readonly
    assert library.verify().damaged == {}
    with pytest.raises(LibraryError, match="read-only"):
        library.add(SoftPrompt(torch.zeros(1, 1), card))


def test_default_library_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "SPOTON_LIBRARY", "s3://team/prompts"
    )  # as a path, it would be a folder `s3:` right here
    with pytest.raises(LibraryError, match=r"SPOTON_LIBRARY is s3://team/prompts; expected a folder"):
        default_library_path()
    monkeypatch.setenv("SPOTON_LIBRARY", f"file://{tmp_path}/mine")
    assert default_library_path() == tmp_path / "mine"


def test_default_library_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "mine"))
    assert default_library_path() == tmp_path / "mine"
    monkeypatch.delenv("SPOTON_LIBRARY")
    assert default_library_path().name == "library" and "spoton" in default_library_path().parts
