"""Matplotlib figures as inline SVG that takes its colours and fonts from the page.

With it go two things that every plot needs: names that are short enough, and places for them beside
their points.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib is imported late: tables are printed without it.

SERIES = 6
_ROLES = ("ink", "muted", "rule", "accent", *(f"series-{n}" for n in range(1, SERIES + 1)))
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


def colour(role: str) -> str:
    """A stand-in that `inline` replaces by the page's own colour, such as `var(--accent)`.

    Args:
        role: ink, muted, rule, accent, or series-1 to series-6.
    """
    return f"#fe{_ROLES.index(role):02x}ed"


def short_name(text: str, longest: int = 24) -> str:
    """A name as it can stand in a figure: on one line, printable, its middle left out if long."""
    # A category that begins with C holds what SVG cannot: controls and lone surrogates.
    kept = (" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    line = " ".join("".join(kept).split())
    if len(line) <= longest:
        return line
    tail = (longest - 1) // 2
    return f"{line[: longest - 1 - tail]}…{line[-tail:]}"


@contextmanager
def style(salt: str) -> Iterator[None]:
    """The look of all plots, whatever a user's own matplotlibrc sets.

    Args:
        salt: names the plot. The same salt and content give the same bytes; another salt gives
            other ids.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser's fonts draw the text, so it does not matter what matplotlib's font lacks.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"(?s)Matplotlib currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": salt,
                # A name with dollar signs is not a formula.
                "text.parse_math": False,
                "font.size": 11,
                "text.color": colour("ink"),
                "axes.facecolor": "none",
                "axes.edgecolor": colour("rule"),
                "axes.linewidth": 0.8,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.axisbelow": True,
                "axes.unicode_minus": True,
                "grid.color": colour("rule"),
                "grid.linewidth": 0.6,
                "xtick.color": colour("rule"),
                "ytick.color": colour("rule"),
                "xtick.labelcolor": colour("muted"),
                "ytick.labelcolor": colour("muted"),
                "xtick.major.size": 3,
                "ytick.major.size": 0,
                "xtick.minor.size": 0,
                "ytick.minor.size": 0,
            }
        )
        yield


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within limits; powers of ten only where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) < 5 else (1,)
    found = [step * 10.0**power for power in powers for step in steps]
    return [number for number in found if low <= number <= high]


def canvas(width: float, height: float) -> Figure:
    """An empty figure; one unit of the SVG is one point."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def panel(
    figure: Figure, left: float, bottom: float, right: float, top: float, share: Axes | None = None
) -> Axes:
    """Axes at a place given in points from the figure's edges."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        ),
        sharex=share,
    )


def inline(
    figure: Figure, *, salt: str, title: str, notes: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A figure as an SVG element to stand in an HTML page.

    Args:
        figure: drawn within `style` of the same salt.
        salt: ids begin with it.
        title: what the figure shows, for those who cannot see it.
        notes: by the gid of a collection of points, what to show where the mouse rests on each.

    Returns:
        Markup, escaped; the same for the same figure.
    """
    file = io.StringIO()
    figure.savefig(
        file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    root = ET.fromstring(file.getvalue())
    notes = notes or {}
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', file.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            # Its one style sheet would set the line ends of every element of the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in list(root.iter()):
        _adapt(element, salt, used)
        name = element.attrib.pop("id", "")
        if name in notes:
            _annotate(element, notes[name])
        if name in used:
            element.set("id", f"{salt}-{name}")
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    width, height = (
        float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height")
    )
    root.attrib.pop("version", None)
    root.attrib |= {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": title,
        "style": f"max-width: {width * 1.2 / 16:.4g}rem",
    }
    return ET.tostring(root, encoding="unicode")


def _annotate(points: ET.Element, notes: Sequence[str]) -> None:
    """Gives each point a title. They are drawn in their order, behind the definition of a shape."""
    shapes = {id(shape) for part in points.iter() if part.tag.endswith("defs") for shape in part}
    drawn = [
        part
        for part in points.iter()
        if part.tag.endswith(("use", "path")) and id(part) not in shapes
    ]
    for point, note in zip(drawn, notes, strict=True):
        ET.SubElement(point, "title").text = note


def _adapt(element: ET.Element, salt: str, used: set[str]) -> None:
    """Rewrites references, colours, fonts, and numbers with more digits than can be seen."""
    # Within HTML an SVG needs no namespaces.
    element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    if _HREF in element.attrib:
        element.set("href", f"#{salt}-{element.attrib.pop(_HREF)[1:]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("(#", f"(#{salt}-"))
    if "style" in element.attrib:
        rules = element.attrib["style"]
        for role in _ROLES:
            rules = rules.replace(colour(role), f"var(--{role})")
        rules = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", rules)
        rules = re.sub(r"font-family:[^;]*;?\s*", "", rules)
        element.set("style", rules)
    for key in ("d", "x", "y", "width", "height", "transform"):
        if key in element.attrib:
            element.set(key, re.sub(r"-?\d+\.\d+", _short, element.attrib[key]))
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


# Near places come first, and at each distance the right of the point, where readers look first.
_DISTANCES = (6.0, 11.0, 18.0, 27.0, 38.0, 52.0)
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Box:
    """A rectangle, its sides parallel to the axes."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether both share an area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies wholly inside."""
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and other.right <= self.right
            and other.top <= self.top
        )


def _around(at: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    (x, y), (width, height) = at, size
    for distance in _DISTANCES:
        for right, up in _SIDES:
            # Diagonal places are as far away as the straight ones.
            reach = distance if 0 in (right, up) else distance * 0.7
            left = x + right * reach + (right - 1) / 2 * width
            bottom = y + up * reach + (up - 1) / 2 * height
            yield Box(left, bottom, left + width, bottom + height)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    *,
    taken: Sequence[Box] = (),
    disliked: Sequence[Box] = (),
) -> list[Box | None]:
    """Places the labels of points so that none covers another, the first ones first.

    Args:
        points: what is labelled.
        sizes: width and height of each label.
        bounds: labels stay inside.
        taken: what no label may cover.
        disliked: what a label covers only where there is no other place.

    Returns:
        A box for each label, or None where there is no place for it.
    """
    placed: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        full = [*taken, *(box for box in placed if box is not None)]
        free = [
            box
            for box in _around(point, size)
            if bounds.holds(box) and not any(box.meets(other) for other in full)
        ]
        liked = [box for box in free if not any(box.meets(other) for other in disliked)]
        placed.append(next(iter(liked or free), None))
    return placed
