"""The report's files: the same numbers in both, whatever is missing, and nothing from the network."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from spoton.errors import StudyError
from spoton.study.analysis.analyse import analyse
from spoton.study.report import write_report
from spoton.study.results.study_results import Results
from tests.study.analysis.test_analyse import partial
from tests.study.made import made

pytest.importorskip("plotly", reason="the HTML report needs spoton[report]")


def written(results: Results, folder: Path, *, png: bool = False) -> tuple[str, str]:
    """HTML without plotly.js, and Markdown."""
    page, markdown, *_ = write_report(analyse(results), folder / "report.html", png=png)
    text = re.sub(r'<script type="application/gzip".*?</script>', "", page.read_text(), flags=re.DOTALL)
    return text, markdown.read_text()


@pytest.mark.parametrize("what", partial())
def test_there_is_a_report_of_whatever_there_is(tmp_path: Path, what: str) -> None:
    page, markdown = written(partial()[what], tmp_path)
    shown = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    for text in (shown, markdown):
        assert not re.search(r"\b(nan|inf|None)\b", text)
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    assert set(figures) == set(re.findall(r'id="figure-([\w-]+)"', page)) and "transfer" in figures


def test_html_and_markdown_have_the_same_tables(tmp_path: Path) -> None:
    page, markdown = written(made(), tmp_path)
    in_html = [
        tuple(html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL))
        for row in re.findall(r"<tr>(<td.*?)</tr>", page, re.DOTALL)
    ]
    in_markdown = [
        tuple(html.unescape(re.sub(r"\\(.)", r"\1", cell)).strip() for cell in line.strip("|").split("|"))
        for before, line in zip(["", *markdown.splitlines()], markdown.splitlines(), strict=False)
        if line.startswith("| ") and not line.startswith("| ---") and before.startswith("|")
    ]
    assert len(in_html) > 100 and in_html == in_markdown


def test_missing_cells_are_named(tmp_path: Path) -> None:
    _, markdown = written(partial()["a cell is missing"], tmp_path)
    assert "1 cells are missing" in markdown.split("## Targets")[0]
    assert "| qqp | rte | 1 |" in markdown.split("## Provenance")[1]


def test_pairs_left_out_are_named_with_the_reason(tmp_path: Path) -> None:
    results = replace(partial()["a pair is missing"], left_out=(("qqp", "rte", "holds its test rows"),))
    _, markdown = written(results, tmp_path)
    assert "cells are missing" not in markdown and "| qqp | rte | holds its test rows |" in markdown


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    odd = "</script><b>$x$ & |"
    page, markdown = written(made(sources=(odd, "b"), targets=("<i>t</i>",)), tmp_path, png=True)
    assert odd not in page and "<i>t</i>" not in page.replace("\\u003c", "<").split('id="figures"')[0]
    assert page.count("</script>") == 2  # the figures and what draws them; plotly.js was taken out
    assert "\\|" in markdown


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page, _ = written(made(), tmp_path)
    assert (
        not re.findall(r"(?:src|href)=\"(?!#|data:)", page) and "@import" not in page and "http" not in page
    )
    assert (tmp_path / "report.html").stat().st_size < 2.3e6


def test_the_same_study_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(made(), tmp_path / name)
    for file in ("report.html", "report.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_pictures_are_beside_it_and_in_the_markdown(tmp_path: Path) -> None:
    results = replace(made(seeds=(0, 1)), families={"mnli": "nli", "qqp": "paraphrase"})
    files = write_report(analyse(results), tmp_path / "report.html")
    pictures = [path for path in files if path.suffix == ".png"]
    assert {path.stem for path in pictures} == {
        "transfer", "scatter", "retrieval",
        *(f"similarity-{metric}" for metric in ("average_tokens", "per_token_average", "maximum_token")),
    }  # fmt: skip
    markdown = (tmp_path / "report.md").read_text()
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG") and f"](report_figures/{path.name})" in markdown


def test_a_name_that_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"ends in \.html"):
        write_report(analyse(made()), tmp_path / "report.pdf")
