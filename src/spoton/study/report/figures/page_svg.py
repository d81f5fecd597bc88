"""Figures as elements of a page: matplotlib's SVG without what a page does not need, at most a quarter of the size.

Words are text in a font that the page embeds, reduced to the letters it shows: a reader can search and copy them, and
no label moves. The rest is the same drawing in fewer bytes: coordinates to a hundredth of a point, each style written
once per page, each marker once per figure. Knows SVG, not the content.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from html import escape
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

FONT_NAME = "figures"

_DROPPED = {"metadata", "style"}
_ROUNDED = {"d", "x", "y", "width", "height", "transform", "points", "viewBox"}
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_STEP = re.compile(r"([A-Za-z])([^A-Za-z]*)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


class PageFigures:
    """The figures of one page, which share their styles and their font."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._letters: set[str] = set()
        self._numbers = count()

    def element(self, svg: bytes, words: Mapping[str, str], caption: str) -> str:
        """Returns a figure as an SVG element.

        Args:
            svg: matplotlib's SVG, with letters as text.
            words: Tooltips by the id of their element.
            caption: Description for readers who cannot see the figure.
        """
        root = ElementTree.fromstring(svg)
        size = " ".join(f'{name}="{_short(root.attrib[name])}"' for name in ("width", "height", "viewBox"))
        names = self._short_names(root)
        inside = "".join(part for child in root for part in self._parts(child, names, words))
        return f'<svg role="img" aria-label="{escape(caption, quote=True)}" {size}>{inside}</svg>'

    def css(self) -> str:
        """Returns the rules for all elements made so far."""
        if not self._classes:
            return ""
        font = base64.b64encode(_font(self._letters)).decode()
        return "\n".join(
            [
                f'@font-face {{ font-family: {FONT_NAME}; src: url("data:font/woff;base64,{font}"); }}',
                "figure svg * { stroke-linejoin: round; stroke-linecap: butt; }",
                f'figure text {{ font-family: {FONT_NAME}, "DejaVu Sans", Verdana, sans-serif; }}',
                *(f".{name} {{ {style} }}" for style, name in self._classes.items()),
            ]
        )

    def _short_names(self, root: ElementTree.Element) -> dict[str, str]:
        """Returns short ids, unique in the page, for everything a figure refers to; identical markers share one."""
        there: dict[str, str] = {}
        names: dict[str, str] = {}
        for definitions in root.iter(_full("defs")):
            for node in list(definitions):
                if "id" not in node.attrib:
                    continue
                shape = ElementTree.tostring(node, "unicode").replace(node.attrib["id"], "")
                if shape in there:
                    definitions.remove(node)
                names[node.attrib["id"]] = there.setdefault(shape, f"f{next(self._numbers)}")
        return names

    def _parts(
        self, node: ElementTree.Element, names: Mapping[str, str], words: Mapping[str, str]
    ) -> Iterator[str]:
        tag = node.tag.rpartition("}")[2]
        if tag in _DROPPED:
            return
        title = words.get(node.attrib.get("id", ""))
        attributes = "".join(self._attributes(tag, node, names))
        inside = "" if title is None else f"<title>{escape(title)}</title>"
        if tag == "text" and node.text:
            self._letters.update(node.text)
            inside += escape(node.text)
        inside += "".join(part for child in node for part in self._parts(child, names, words))
        if tag in ("g", "defs") and not inside:
            return
        bare = tag == "g" and not attributes and title is None
        yield (
            inside if bare else f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"
        )

    def _attributes(self, tag: str, node: ElementTree.Element, names: Mapping[str, str]) -> Iterator[str]:
        for full, value in node.attrib.items():
            name = full.rpartition("}")[2]
            if name == "id":
                if value in names:
                    yield f' id="{names[value]}"'
            elif name == "style":
                yield f' class="{self._class(_without_font(value) if tag == "text" else value)}"'
            elif name == "href":
                known = names.get(value.removeprefix("#"))
                yield f' href="{f"#{known}" if known else "".join(value.split())}"'
            elif name == "transform" and value.startswith("rotate(-0 "):
                continue
            else:
                value = _REFERENCE.sub(lambda match: f"url(#{names.get(match[1], match[1])})", value)
                yield f' {name}="{escape(_short(value, path=name == "d") if name in _ROUNDED else value, quote=True)}"'

    def _class(self, style: str) -> str:
        return self._classes.setdefault(style, f"s{len(self._classes)}")


def _full(tag: str) -> str:
    return f"{{http://www.w3.org/2000/svg}}{tag}"


def _without_font(style: str) -> str:
    return re.sub(r"font-family: [^;]*;? ?", "", style).strip()


def _short(value: str, *, path: bool = False) -> str:
    """Returns a value with coordinates to a hundredth of a point; a path's level and upright lines become H and V."""
    value = _NUMBER.sub(lambda match: f"{float(match[0]):z.2f}".rstrip("0").rstrip("."), value)
    return _short_path(value) if path else value


def _short_path(value: str) -> str:
    parts, here = [], ("", "")
    for match in _STEP.finditer(value):
        command, numbers = match[1], match[2].split()
        if command == "L" and numbers[0] == here[0]:
            parts.append(f"V{numbers[1]}")
        elif command == "L" and numbers[1] == here[1]:
            parts.append(f"H{numbers[0]}")
        else:
            parts.append(command + " ".join(numbers))
        here = (numbers[-2], numbers[-1]) if len(numbers) > 1 else ("", "")
    return "".join(parts)


def _font(letters: set[str]) -> bytes:
    """Returns the font that matplotlib measures labels with, as WOFF, with only these letters."""
    import matplotlib
    from fontTools import subset

    options = subset.Options(flavor="woff", hinting=False, layout_features=["kern"], notdef_outline=True)
    options.drop_tables += ["FFTM"]  # the font editor's table, unknown to the subsetter
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    data = io.BytesIO()
    with subset.load_font(str(path), options) as font:
        cut = subset.Subsetter(options)
        cut.populate(unicodes=map(ord, letters))
        cut.subset(font)
        subset.save_font(font, data, options)
    return data.getvalue()
