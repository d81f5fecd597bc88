"""`spoton library` on real prompt files."""

from pathlib import Path

import pytest

from spoton.prompts import PromptLibrary
from tests.cli.conftest import Run, a_prompt
from tests.tiny import WIDTH


def test_list_shows_names_tasks_and_scores(run: Run, library: PromptLibrary) -> None:
    ran = run("library", "list", "--library", library.folder)
    assert ran.code == 0
    assert "news_task" in ran.stdout and "question answering" in ran.stdout and "81.00" in ran.stdout


def test_list_filters_and_prints_json(run: Run, library: PromptLibrary) -> None:
    ran = run("library", "list", "--library", library.folder, "--family", "sentiment", "--json")
    (entry,) = ran.document
    assert entry["name"] == "news"
    assert (entry["length"], entry["dim"], entry["has_key"]) == (4, 8, True)
    assert entry["card"]["task"] == "news_task"
    assert Path(entry["path"]).is_file()


def test_list_without_a_library_shows_the_starter_library(run: Run) -> None:
    ran = run("library", "list", "--json")
    assert ran.code == 0
    assert isinstance(ran.document, list)


def test_list_names_damaged_files_on_stderr(run: Run, library: PromptLibrary) -> None:
    (library.folder / "cut.safetensors").write_bytes(b"\x08\x00")
    ran = run("library", "list", "--library", library.folder, "--json")
    assert ran.code == 0
    assert [entry["name"] for entry in ran.document] == ["news", "quiz"]
    assert "cut" in ran.stderr


def test_badly_named_files_are_in_nobodys_way(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    bad = prompts.folder / "My Prompt.safetensors"
    bad.write_bytes((prompts.folder / "news.safetensors").read_bytes())
    asked = a_prompt("mine", width=WIDTH, model_fingerprint=prompts.get("news").card.model_fingerprint)
    file = asked.save(tmp_path / "mine.safetensors")
    ran = run("retrieve", file, "--library", prompts.folder, "--json")
    assert ran.code == 0
    assert {one["name"] for one in ran.document["retrieved"]} == {"news", "quiz"}
    assert "Skipped My Prompt" in ran.stderr and "Rename" in ran.stderr
    ran = run("library", "verify", "--library", prompts.folder, "--json")
    assert ran.code == 2 and "My Prompt" in ran.stdout


def test_a_missing_folder_is_a_mistake(run: Run, tmp_path: Path) -> None:
    ran = run("library", "list", "--library", tmp_path / "nowhere", "--json")
    assert ran.code == 2
    assert ran.document["kind"] == "LibraryError" and "nowhere" in ran.document["error"]


def test_show_takes_a_name_or_a_file(run: Run, library: PromptLibrary) -> None:
    by_name = run("library", "show", "news", "--library", library.folder, "--json")
    by_file = run("library", "show", library.folder / "news.safetensors", "--json")
    assert by_name.document == by_file.document
    assert by_name.document["card"]["family"] == "sentiment"
    assert "sentiment" in run("library", "show", "news", "--library", library.folder).stdout


def test_show_of_an_unknown_name_says_where_it_looked(run: Run, library: PromptLibrary) -> None:
    ran = run("library", "show", "nwes", "--library", library.folder)
    assert ran.code == 2
    assert "nwes" in ran.stderr and str(library.folder) in ran.stderr


def test_add_then_remove(run: Run, tmp_path: Path) -> None:
    file = a_prompt("reviews").save(tmp_path / "p.safetensors")
    added = run("library", "add", file, "--json")
    assert added.document["name"] == "reviews"
    assert Path(added.document["path"]).parent == tmp_path / "own-library"
    assert "reviews" in run("library", "list").stdout

    again = run("library", "add", file)
    assert again.code == 2 and "reviews" in again.stderr
    assert run("library", "add", file, "--replace").code == 0
    assert run("library", "add", file, "--name", "other").code == 0

    assert run("library", "remove", "reviews").code == 0
    assert [
        entry["name"] for entry in run("library", "list", "--json").document if entry["name"] == "reviews"
    ] == []
    assert run("library", "remove", "reviews").code == 2


def test_verify_reports_damage_and_exits_with_2(run: Run, library: PromptLibrary) -> None:
    assert run("library", "verify", "--library", library.folder).code == 0
    whole = (library.folder / "news.safetensors").read_bytes()
    (library.folder / "news.safetensors").write_bytes(whole[:-20])
    ran = run("library", "verify", "--library", library.folder, "--json")
    assert ran.code == 2
    (found,) = ran.document
    assert (found["library"], found["ok"]) == (str(library.folder), ["quiz"])
    assert set(found["damaged"]) == {"news"}


def test_verify_keeps_libraries_apart(run: Run, library: PromptLibrary, tmp_path: Path) -> None:
    """One name, whole in the first library and damaged in two others."""
    places = [library.folder, tmp_path / "second", tmp_path / "third"]
    for place in places[1:]:
        file = PromptLibrary(place).add(a_prompt("news"))
        file.write_bytes(file.read_bytes()[:-20])
    flags = [flag for place in places for flag in ("--library", place)]
    ran = run("library", "verify", *flags, "--json")
    assert ran.code == 2
    assert [(found["library"], found["ok"], list(found["damaged"])) for found in ran.document] == [
        (str(places[0]), ["news", "quiz"], []), (str(places[1]), [], ["news"]), (str(places[2]), [], ["news"]),
    ]  # fmt: skip
    shown = run("library", "verify", *flags).stdout
    assert all(str(place) in shown for place in places)


def test_an_own_library_that_is_a_file_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.csv").write_text("a,b\n")
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "prompts.csv"))
    ran = run("library", "list")
    assert ran.code == 2 and "prompts.csv is a file; expected the folder of a library" in ran.stderr


def test_the_starter_library_is_read_only(run: Run, library: PromptLibrary, tmp_path: Path) -> None:
    for line in (("add", library.folder / "news.safetensors"), ("remove", "sst2"), ("pull", library.folder)):
        ran = run("library", *line, "--library", "starter")
        assert ran.code == 2 and "read-only" in ran.stderr, line
