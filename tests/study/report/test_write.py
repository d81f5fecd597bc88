"""The report's files: the same numbers in both, whatever is missing, and nothing from the network."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from spoton.errors import StudyError
from spoton.events import Progress
from spoton.study.analysis.analyse import analyse
from spoton.study.report import write_report
from spoton.study.report.figures.drawing import FIGURE_COLORS, SOFT, family_colors, marker_of
from spoton.study.report.figures.panels import gain_color
from spoton.study.results.study_results import StudyResults
from tests.study.analysis.test_analyse import partial
from tests.study.analysis.test_start_groups import results as with_families
from tests.study.made import made


def written(results: StudyResults, folder: Path) -> tuple[str, str]:
    """HTML without its figures, and Markdown."""
    page, markdown, *_ = write_report(analyse(results), folder / "report.html", files=False)
    return re.sub(r"<svg.*?</svg>", "<svg>", page.read_text(), flags=re.DOTALL), markdown.read_text()


@pytest.mark.parametrize("what", partial())
def test_there_is_a_report_of_whatever_there_is(tmp_path: Path, what: str) -> None:
    page, markdown = written(partial()[what], tmp_path)
    shown = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    for text in (shown, markdown):
        assert not re.search(r"\b(nan|inf|None)\b", text)
    assert 'id="figure-transfer"' in page and page.count("<svg>") == page.count("<figure ")


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
    assert "1 cell is missing" in markdown.split("## Targets")[0]
    assert "| qqp | rte | 1 |" in markdown.split("## Provenance")[1]


def test_pairs_left_out_are_named_with_the_reason(tmp_path: Path) -> None:
    results = replace(partial()["a pair is missing"], left_out=(("qqp", "rte", "holds its test rows"),))
    _, markdown = written(results, tmp_path)
    assert "missing;" not in markdown and "| qqp | rte | holds its test rows |" in markdown


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    odd = "</script><script>alert(1)</script><b>$x$ & |"
    results = made(sources=(odd, "b"), targets=("<i>t</i>",))
    files = write_report(analyse(results), tmp_path / "report.html")
    page, markdown = files[0].read_text(), files[1].read_text()
    assert "<script" not in page and "<b>" not in page and "<i>" not in page
    assert "<script" not in markdown and "<i>" not in markdown and "\\|" in markdown


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page, *_ = write_report(analyse(made()), tmp_path / "report.html", files=False)
    text = page.read_text()
    links = re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]*)", text)
    assert links == [] and "@import" not in text and "<script" not in text


def test_the_same_study_gives_the_same_files(tmp_path: Path) -> None:
    one, two = (write_report(analyse(made()), tmp_path / name / "report.html") for name in ("one", "two"))
    assert len(one) == len(two) > 20
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes(), a


def test_figures_are_there_for_page_and_paper(tmp_path: Path) -> None:
    results = replace(made(seeds=(0, 1)), families={"mnli": "nli", "qqp": "paraphrase"})
    files = write_report(analyse(results), tmp_path / "report.html")
    names = {
        "transfer", "gains", "scatter", "retrieval",
        *(f"similarity-{metric}" for metric in ("average_tokens", "per_token_average", "maximum_token")),
    }  # fmt: skip
    markdown = (tmp_path / "report.md").read_text()
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        drawn = [path for path in files if path.suffix == suffix]
        assert {path.stem for path in drawn} == names
        assert all(path.read_bytes().startswith(start) for path in drawn)
        assert all((f"](report_figures/{path.name})" in markdown) == (suffix == ".png") for path in drawn)


def test_every_figure_is_announced_and_drawn_once_for_each_format(tmp_path: Path) -> None:
    """Measuring the canvas takes a drawing of its own, which all formats share."""
    drawn: list[str] = []

    class Counted(Figure):
        def draw(self, renderer: Any) -> None:
            drawn.append(type(renderer).__name__)
            super().draw(renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure", Counted)
        events: list[Progress] = []
        write_report(analyse(made(keys=False)), tmp_path / "report.html", on_event=events.append)
    assert [(one.phase, one.done, one.total) for one in events] == [("drawing", n, 2) for n in range(3)]
    assert len(drawn) == 2 * (1 + 4)  # transfer and gains: measured, then page, SVG, PDF and PNG


def test_every_table_is_a_csv_file_with_whole_numbers(tmp_path: Path) -> None:
    analysis = analyse(made())
    files = write_report(analysis, tmp_path / "report.html")
    tables = {
        path.stem: list(csv.DictReader(path.read_text().splitlines()))
        for path in files
        if path.suffix == ".csv"
    }
    assert {"findings", "sources", "pairs", "scores", "methods", "correlation", "provenance"} <= set(tables)
    row = next(one for one in tables["pairs"] if (one["source"], one["target"]) == ("qqp", "rte"))
    change = analysis.change("qqp", "rte")
    assert change is not None
    assert float(row["gain"]) == pytest.approx(change.gain)
    assert float(row["mean_std"]) == pytest.approx(change.score.std) and row["mean_n"] == "3"
    assert float(row["95 % of the gain_low"]) == pytest.approx(change.interval.low)


def test_targets_with_similar_names_have_tables_and_places_of_their_own(tmp_path: Path) -> None:
    targets = ("a-b", "a_b", "a.b", "A_B", "transfer", "figure transfer", "..")
    page, _, *files = write_report(analyse(made(targets=targets)), tmp_path / "report.html")
    tables = [path for path in files if path.name.startswith("sources_for_")]
    assert len({path.name.lower() for path in tables}) == len(targets)  # some file systems ignore case
    assert (tmp_path / "report_tables" / "sources_for_a_b.csv").is_file()
    text = page.read_text()
    ids = re.findall(r' id="([^"]*)"', text)
    assert all(ids) and len(ids) == len(set(ids))
    links = dict(re.findall(r'<a href="#([^"]*)"[^>]*>([^<]*)</a>', text))
    assert len(links) == text.count("<a href=") and set(targets) <= set(links.values())
    for anchor, words in links.items():
        assert re.search(rf'<h[23] id="{re.escape(anchor)}">{re.escape(words)}</h[23]>', text)


def test_columns_in_which_nothing_is_known_are_left_out(tmp_path: Path) -> None:
    _, markdown = written(replace(made(keys=False), zero_shot={}, majority={}), tmp_path)
    alone = markdown.split("## Targets without transfer")[1].split("\n## ")[0]
    assert "| task | from scratch |" in alone
    advised = markdown.split("## Which sources should I try?")[1].split("\n## ")[0]
    assert "| source | validation | test | gain | error reduction % | outcome |" in advised


def test_single_runs_are_not_called_means(tmp_path: Path) -> None:
    _, markdown = written(made(seeds=(4,)), tmp_path)
    assert "every score is that of a single run" in markdown and "± standard deviation" not in markdown
    assert "| source | target | score | gain |" in markdown


@pytest.mark.parametrize(
    ("n", "told"), [(1, "every score is that of a single run"), (None, "single runs, or means")]
)
def test_scores_without_a_seed_are_not_called_means(tmp_path: Path, n: int | None, told: str) -> None:
    results = made(seeds=(4,))
    scores = {
        split: tuple(replace(one, seed=None, n=n) for one in getattr(results, split))
        for split in ("validation", "test")
    }
    _, markdown = written(replace(results, **scores), tmp_path)
    assert told in markdown.split("## Targets")[0]
    assert (
        "± standard deviation" not in markdown and "means over seeds" not in markdown.split("## Targets")[0]
    )


def test_final_prompts_are_named_where_they_stand_for_keys(tmp_path: Path) -> None:
    results = replace(made(), metadata={"name": "theirs", "final_prompts_as_keys": True})
    _, markdown = written(results, tmp_path)
    for section in ("## Similarity of tasks", "## Similarity and transfer", "## Retrieval"):
        assert "final prompts, not of keys" in markdown.split(section)[1].split("\n## ")[0]
    assert "final prompts, not keys" in markdown.split("## Targets")[0]


def test_points_of_a_correlation_are_not_called_prompts(tmp_path: Path) -> None:
    """Prompts of a library serve every seed: four prompts and three seeds are twelve points."""
    results = made()
    once = {place: key for place, key in results.source_keys.items() if place[1] == 0}
    _, markdown = written(replace(results, source_keys=once), tmp_path)
    told = markdown.split("## Similarity and transfer")[1].split("\n## ")[0]
    assert "| similarity | target | points | sources |" in told
    assert (
        "Each point is a transfer from one source with one seed. p-values take points as independent" in told
    )
    assert "| average_tokens | rte | 12 | 4 |" in told
    means = analyse(replace(results, **{
        split: tuple(replace(one, seed=None, n=3) for one in getattr(results, split) if one.seed == 0)
        for split in ("validation", "test")
    }))  # fmt: skip
    page, *_ = write_report(means, tmp_path / "means.html", files=False)
    assert "Each point is a transfer from one source, the mean over its seeds." in page.read_text()


def test_labels_are_text_in_a_font_that_the_page_carries(tmp_path: Path) -> None:
    page, *_ = write_report(
        analyse(made(targets=("cb", "rte & co", "kürzung"))), tmp_path / "report.html", files=False
    )
    text = page.read_text()
    figure = re.search(r'<figure id="figure-transfer">(.*?)</figure>', text, re.DOTALL)
    assert figure is not None
    labels = {html.unescape(label) for label in re.findall(r"<text[^>]*>([^<]+)</text>", figure[1])}
    assert {"cb", "rte & co", "kürzung", "mnli", "target", "source"} <= labels
    font = re.search(r"data:font/woff;base64,([^\"]+)", text)
    assert font is not None
    letters = TTFont(io.BytesIO(base64.b64decode(font[1]))).getBestCmap()
    assert set(map(ord, "".join(labels))) <= set(letters) and len(letters) < 100


def test_all_that_a_figure_refers_to_is_in_it(tmp_path: Path) -> None:
    page, *_ = write_report(analyse(made()), tmp_path / "report.html", files=False)
    text = page.read_text()
    for figure in re.findall(r"<figure .*?</figure>", text, re.DOTALL):
        ids = re.findall(r' id="(f\d+)"', figure)
        wanted = re.findall(r'href="#([^"]+)"', figure) + re.findall(r"url\(#([^)]+)\)", figure)
        assert wanted and set(wanted) == set(ids) and len(ids) == len(set(ids))
    styles = set(re.findall(r"\.(s\d+) \{", text))
    assert styles == set(re.findall(r'class="(s\d+)"', text))


def test_a_study_of_forty_targets_is_a_page_of_less_than_three_megabytes(tmp_path: Path) -> None:
    names = [f"task_number_{i}" for i in range(40)]
    results = replace(
        made(names[:20], names), families={name: f"family {i % 6}" for i, name in enumerate(names)}
    )
    page, *_ = write_report(analyse(results), tmp_path / "report.html", files=False)
    assert page.stat().st_size < 3e6


def test_a_name_that_is_not_a_page(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"ends in \.html"):
        write_report(analyse(made()), tmp_path / "report.pdf")


@pytest.mark.parametrize("name", ["notes.md", "notes.html"])
@pytest.mark.parametrize(
    "notes",
    [
        b"# Notes\n", b"# Transfer study\n\nMy own thoughts.\n", b"\xff\xfe", b"",
        b"<!doctype html>\n<h1>Transfer study</h1>\n<p>My own page.</p>\n",
    ],
)  # fmt: skip
def test_a_file_that_is_not_of_a_report_is_not_replaced(tmp_path: Path, notes: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(notes)
    with pytest.raises(StudyError, match=rf"{name} exists and is not .* Choose another --out"):
        write_report(analyse(made()), tmp_path / "notes.html", files=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == notes


@pytest.mark.parametrize("name", ["made up", None])
def test_a_report_replaces_an_earlier_one(tmp_path: Path, name: str | None) -> None:
    first, second = (replace(made(seeds=seeds), metadata={"name": name}) for seeds in ((0,), (0, 1)))
    _, before = written(first, tmp_path)
    assert written(second, tmp_path)[1] != before


def test_a_family_has_one_colour_in_all_figures() -> None:
    """The map of similarities has its tasks in another order than that of gains, and the scatter sources alone."""
    families = {
        "mnli": "nli",
        "cb": "nli",
        "qqp": "paraphrase",
        "sst2": "sentiment",
        "cr": "sentiment",
        "rte": "nli",
    }
    found = analyse(replace(made(), families=families))
    every = family_colors(found, ["cr", "sst2", "qqp", "cb", "mnli", "rte"])
    assert len(set(every.values())) == 3
    for tasks in (["sst2", "mnli"], ["cr"], list(found.results.sources)):
        assert family_colors(found, tasks).items() <= every.items()
        assert set(family_colors(found, tasks)) == {families[task] for task in tasks if task in families}


def test_no_two_colours_of_figures_look_alike_to_readers_who_miss_red_or_green() -> None:
    """Simulated as by Viénot, Brettel and Mollon (1999); distances of CIE Lab, where 2 is just visible."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def seen(color: str, share_of_red: float) -> np.ndarray:
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
        )
        both = share_of_red * red + (1 - share_of_red) * green
        x, y, z = np.cbrt(matrix @ [both, both, blue] / [0.9505, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for share_of_red in (0.1124, 0.2928):  # without cones for red, without those for green
        colors = [seen(color, share_of_red) for color in FIGURE_COLORS]
        assert min(np.linalg.norm(a - b) for a, b in combinations(colors, 2)) > 15
    assert len({marker_of(color) for color in FIGURE_COLORS}) == len(FIGURE_COLORS)


def test_starts_are_told_apart_where_families_are_known(tmp_path: Path) -> None:
    _, markdown = written(with_families(), tmp_path)
    told = markdown.split("## Is it the relation?")[1].split("\n## ")[0]
    assert "| related sources | +10.0 | +10.0 to +10.0 | 3 | 6 |" in told
    assert "| noise | \N{MINUS SIGN}5.0 |" in told and "100 % | 25 %" in told
    _, without = written(made(), tmp_path / "other")
    assert "Is it the relation?" not in without


def test_two_seeds_colour_no_interval_and_count_no_p(tmp_path: Path) -> None:
    """Their gains are often equal by chance, and an interval of no width would leave out zero."""
    two, three = (analyse(made(seeds=tuple(range(n)))) for n in (2, 3))
    assert any(one.interval.low > 0 for one in two.changes)
    assert {gain_color(one) for one in two.changes} == {SOFT}
    assert len({gain_color(one) for one in three.changes}) > 1
    page, _ = written(two.results, tmp_path)
    assert "No pair has the 3 seeds that a test of it takes." in page and "help with p &lt; 0.05" not in page
    assert "fewer than 3 seeds stay grey" in page and "green or red" not in page
