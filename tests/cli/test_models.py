"""`spoton models unpack`: what is told of a file that is unpacked, and of one that cannot be."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.models.test_gguf_files import file as file


def test_a_file_is_unpacked_for_later_commands(run: Run, file: Path, tmp_path: Path) -> None:
    ran = run("models", "unpack", file, "--out", tmp_path / "folder", "--json")
    assert ran.code == 0 and ran.document == {"file": str(file), "folder": str(tmp_path / "folder")}
    assert "Decoding tiny.gguf" in ran.stderr and (tmp_path / "folder" / "config.json").is_file()
    again = run("models", "unpack", file, "--out", tmp_path / "folder")
    assert again.code == 2 and "exists already" in again.stderr


def test_a_folder_is_no_gguf_file(run: Run, tmp_path: Path) -> None:
    ran = run("models", "unpack", tmp_path, "--out", tmp_path / "folder", "--json")
    assert ran.code == 2 and "load from their folder as they are" in ran.document["error"]
