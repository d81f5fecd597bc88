"""Shared parts of all figures: a canvas measured in inches, colours, tooltips, and files.

Sizes are fixed and the canvas is cropped to its content, so that no label is cut off. A figure wider than the page
scrolls in its box.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from spoton.study.analysis.analyse import Analysis

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Format = Literal["svg", "pdf", "png", "page"]
"""`page`: SVG with letters as text, for a page that embeds the font."""
FORMATS: tuple[Format, ...] = ("svg", "pdf", "png")
"""The formats of a figure's files."""
FONT_FAMILY = "DejaVu Sans"

INK, SOFT, LINE = "#1d2733", "#5c6b7a", "#9aa5b1"
FIGURE_COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#5b3a29", "#2f4b5c", "#b7e4c7", "#f0e442",
)  # fmt: skip
"""Okabe and Ito's, which readers of any colour vision tell apart, without black and with three more."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""One for each colour, for figures whose points or lines overlap."""
UNCOLORED = "#8c8c8c"
FONT = 8.5  # points; a page shows them as 11 pixels

_DPI = 200
_MARGIN = 0.06  # inches
_LEGEND_ACROSS = 5


@dataclass
class Drawing:
    """A figure and its tooltips on a page.

    Attributes:
        name: Name of its files.
        figure: The matplotlib figure.
        words: Tooltips by the id of their element.
    """

    name: str
    figure: Figure
    words: dict[str, str] = field(default_factory=dict)
    _written: dict[Format, bytes] = field(default_factory=dict)
    _content: Bbox | None = None

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Adds axes at a position in inches, which may be anywhere: the canvas is cropped to its content."""
        wide, high = self.figure.get_size_inches()
        made: Axes = self.figure.add_axes((left / wide, bottom / high, width / wide, height / high))
        made.tick_params(labelsize=FONT, color=LINE)
        return made

    def tell(self, artist: Artist, words: str) -> None:
        """Adds a tooltip to an artist."""
        name = f"{self.name}-{len(self.words)}"
        artist.set_gid(name)
        self.words[name] = words

    def write(self, file_format: Format) -> bytes:
        """Returns the figure as a file's content; the bytes are deterministic."""
        if file_format not in self._written:
            self._written[file_format] = self._write(file_format)
        return self._written[file_format]

    def _write(self, file_format: Format) -> bytes:
        kind = "svg" if file_format == "page" else file_format
        undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
        data = io.BytesIO()
        with style(self.name, "none" if file_format == "page" else "path"):
            self.figure.savefig(
                data, format=kind, dpi=_DPI, bbox_inches=self._box(), metadata=undated[kind]
            )  # fmt: skip
        return data.getvalue()

    def _box(self) -> Bbox:
        """Returns the box of the content in inches, with a margin.

        Measured once: `bbox_inches="tight"` would draw the figure twice for every format.
        """
        if self._content is None:
            self.figure.draw_without_rendering()
            self._content = self.figure.get_tightbbox().padded(_MARGIN)
        return self._content


@contextmanager
def style(salt: str, letters: Literal["path", "none"] = "path") -> Iterator[None]:
    """Applies the style of all figures inside the block; the salt determines SVG ids, so files are deterministic.

    Args:
        salt: The figure's name.
        letters: "path": SVG letters as shapes, so that a file needs no font and nothing moves. "none": as text.
    """
    import matplotlib

    with matplotlib.rc_context(
        {
            "svg.fonttype": letters, "svg.hashsalt": salt, "pdf.fonttype": 42, "font.family": [FONT_FAMILY],
            "font.size": FONT, "text.parse_math": False,
            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": LINE, "xtick.labelcolor": INK,
            "ytick.labelcolor": INK, "axes.titlesize": FONT + 0.5, "axes.labelsize": FONT,
        }
    ):  # fmt: skip
        yield


def canvas(name: str) -> Drawing:
    """Returns a new figure. Needs and uses no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 10), dpi=_DPI)
    FigureCanvasAgg(drawing)
    return Drawing(name, drawing)


def plain(axes: Axes) -> None:
    """Styles axes without a box and with faint lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def family_colors(analysis: Analysis, tasks: Sequence[str]) -> dict[str, str]:
    """Returns a colour per family of some tasks, the same in all figures of a report; empty if no family is known."""
    results = analysis.results
    every = dict.fromkeys(results.families.get(task, "") for task in (*results.sources, *results.targets))
    every.pop("", None)
    there = {results.families.get(task, "") for task in tasks}
    return {
        family: FIGURE_COLORS[i % len(FIGURE_COLORS)] for i, family in enumerate(every) if family in there
    }


def color_of(analysis: Analysis, task: str, colors: dict[str, str]) -> str:
    """Returns the colour of a task's family."""
    if not colors:
        return FIGURE_COLORS[0]
    return colors.get(analysis.results.families.get(task, ""), UNCOLORED)


def marker_of(color: str) -> str:
    """Returns the marker that goes with a colour."""
    return MARKERS[FIGURE_COLORS.index(color)] if color in FIGURE_COLORS else "o"


def source_label(analysis: Analysis, source: str) -> str:
    """Returns a source's name, marked where its prompt had not learned its own task."""
    return source + (" (not learned)" if analysis.results.learned_sources.get(source) is False else "")


def family_legend(
    drawing: Drawing, axes: Axes, colors: dict[str, str], drop: float, *, markers: bool = False
) -> None:
    """Draws families and their colours, or markers, in one or more rows, `drop` inches below some axes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not colors:
        return
    height = axes.get_position().height * drawing.figure.get_size_inches()[1]
    across = min(_LEGEND_ACROSS, len(colors))
    # Matplotlib fills column by column; this order makes families read in order row by row.
    shown = [item for column in range(across) for item in list(colors.items())[column::across]]
    axes.legend(
        [
            Line2D([], [], color=color, marker=marker_of(color), linestyle="", markersize=5) if markers
            else Patch(color=color) for _, color in shown
        ], [name.replace("_", " ") for name, _ in shown],
        loc="upper left", bbox_to_anchor=(0, -drop / height), ncols=across, frameon=False,
        fontsize=FONT, handlelength=1.0, borderaxespad=0,
    )  # fmt: skip
