"""From a matplotlib figure to SVG that stands inside a page: no ids that collide, colours that follow the page.

Text stays text, so it is crisp on a wall, can be selected, and is set in the page's own font.
"""

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from simulator.plotting.style import GRID, INK, QUIET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Mapping[str, str] = {
    INK.lower(): "ink",
    QUIET.lower(): "quiet",
    GRID.lower(): "grid",
    "#ffffff": "paper",
    "#009e73": "green",
    "#0072b2": "blue",
    "#d55e00": "vermilion",
    "#cc79a7": "purple",
    "#e69f00": "orange",
}
"""Colours of figures, and the custom property of the page (`--ink`, …) that replaces each, as the dark page needs."""

_XLINK = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: "Figure", key: str, description: str) -> str:
    """The figure as an `<svg>` element to put into a page.

    Args:
        figure: drawn and saved within `simulator.plotting.style.figure_style`, which keeps text as text.
        key: prefix of all ids in it; unique on the page.
        description: what a person who cannot see it is told.
    """
    file = io.StringIO()
    # Without these, the file would hold the time at which it was made, and never be the same twice.
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # The text is matplotlib's own, made a line above, not something from outside.
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("style", "metadata"):
                parent.remove(child)
    wanted = set(_references(root))
    for element in root.iter():
        element.tag = _local(element.tag)
        _rewrite(element, key, wanted)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib.update({"role": "img", "aria-label": description})
    return ElementTree.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    """The name of an element without its namespace, which HTML knows."""
    return tag.rpartition("}")[2]


def _references(root: ElementTree.Element) -> list[str]:
    """Every id that something in the figure points to."""
    found: list[str] = []
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == _XLINK:
                found.append(value.removeprefix("#"))
            found += _REFERENCE.findall(value)
    return found


def _rewrite(element: ElementTree.Element, key: str, wanted: set[str]) -> None:
    """Prefix the ids that are pointed to, drop the others, and let colours follow the page."""
    for name, value in list(element.attrib.items()):
        if name == "id":
            del element.attrib[name]
            if value in wanted:
                element.set("id", f"{key}-{value}")
        elif name == _XLINK:
            del element.attrib[name]
            element.set("href", f"#{key}-{value.removeprefix('#')}")
        elif name == "style":
            element.set(name, _COLOUR.sub(_custom_property, _REFERENCE.sub(rf"url(#{key}-\1)", value)))
        else:
            element.set(name, _REFERENCE.sub(rf"url(#{key}-\1)", value))


def _custom_property(match: re.Match[str]) -> str:
    colour = match[0].lower()
    return f"var(--{COLOURS[colour]}, {colour})" if colour in COLOURS else colour
