"""matplotlib figures → SVG for the inside of a page: colours from the page's style sheet, text as text, no links, an accessible name."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from noiseproof.report.reading import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sentinels: matplotlib wants colours, the page wants names that follow its scheme; svg() exchanges them
INK, GRID, PAPER = "#010203", "#010204", "#010205"
_NAMES = {INK: "currentColor", GRID: "var(--grid)", PAPER: "var(--paper)"}
LEVELS = 6  # --level-0 … --level-5 in report.html, from mild to strong

_DASHES: tuple[tuple[float, tuple[float, ...]], ...] = ((0, ()), (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), (0, (9, 2, 3, 2)))
_MARKERS = "os^DvPX*"
# the same shapes in a box of 20 × 10 with its centre at (15, 6), for legends in HTML
_SHAPES = {
    "o": "M18.5 6a3.5 3.5 0 1 1-7 0a3.5 3.5 0 1 1 7 0z",
    "s": "M12 3h6v6h-6z",
    "^": "M15 2l4 7h-8z",
    "D": "M15 2l4 4l-4 4l-4 -4z",
    "v": "M15 10l4 -7h-8z",
    "P": "M14 2h2v3h3v2h-3v3h-2v-3h-3v-2h3z",
    "X": "M12 3l1.5 -1l1.5 2l1.5 -2l1.5 1l-2 3l2 3l-1.5 1l-1.5 -2l-1.5 2l-1.5 -1l2 -3z",
    "*": "M15 1.5l1.2 3h3.2l-2.6 2l1 3.2l-2.8 -2l-2.8 2l1 -3.2l-2.6 -2h3.2z",
}


@dataclass(frozen=True)
class Style:
    """How one method, or one level, is drawn everywhere: colour, dash and marker, so that black and white suffice."""

    colour: str
    dash: tuple[float, tuple[float, ...]]
    marker: str

    @property
    def swatch(self) -> Markup:
        """A sample of line and marker for a legend; the text stands beside it."""
        line = f'<path d="M0 6H30" fill="none" stroke-width="1.8" stroke-dasharray="{" ".join(f"{x:g}" for x in self.dash[1]) or "none"}"/>'
        name = _variable(self.colour)
        return Markup(  # made of constants
            f'<svg class="swatch" aria-hidden="true" viewBox="0 0 30 12" style="stroke: {name}; fill: {name}">{line}'
            f'<path d="{_SHAPES[self.marker]}"/></svg>'
        )


def style(index: int) -> Style:
    """Return the style of the method at `index`; colour, dash and marker repeat with different periods."""
    return Style(f"#f000{index % COLOURS:02x}", _DASHES[index % len(_DASHES)], _MARKERS[(index + index // COLOURS) % len(_MARKERS)])


def level_style(place: int, levels: int) -> Style:
    """Return the style of a line that stands for one of several `levels`, at `place` from the mildest (0) to the strongest."""
    colour = round(place * (LEVELS - 1) / max(1, levels - 1))
    return Style(f"#f100{colour:02x}", _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)])


def canvas(width: float = 4.7, height: float = 3.3) -> tuple[Figure, Axes]:
    """Return an empty figure of `width` × `height` inches with one pair of axes in the report's manner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=9.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=10)
    return figure, axes


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """Return `figure` as an inline `<svg role="img">`; `title` and `description` are read aloud, `name` keeps the ids of figures apart."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # the browser draws the text, with fonts that matplotlib need not have
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg ")) + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)  # it would style the whole page
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None
    head = Markup(
        '<svg class="figure" role="img" aria-labelledby="{0}-title {0}-desc" viewBox="{1}">'
        '<title id="{0}-title">{2}</title><desc id="{0}-desc">{3}</desc>'
    )
    return head.format(name, view[1], title, description) + Markup(_in_tags(body, name))


def _in_tags(body: str, name: str) -> str:
    """Rewrite what stands in tags and leave the text between them, which may be a user's, as it is."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r"<[^>]*>", lambda tag: _slim(_named(_numbered(tag[0], name, used))), body)
    return re.sub(r">\s+<", "><", body)


def _numbered(tag: str, name: str, used: set[str]) -> str:
    """Drop ids that nothing refers to; those that are used get the figure's name, since one page holds many figures."""
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", tag)
    return re.sub(r'(?:xlink:)?(href="#|url\(#)', rf"\g<1>{name}-", tag)


def _named(tag: str) -> str:
    """Exchange sentinel colours for the page's, and matplotlib's list of fonts for the page's font."""
    for sentinel, name in _NAMES.items():
        tag = tag.replace(sentinel, name)
    tag = re.sub(r"#f[01]00[0-9a-f]{2}", lambda m: _variable(m[0]), tag)
    return re.sub(r"font-family: [^;\"]+;? ?", "", tag)


def _slim(tag: str) -> str:
    """Two decimals of a point are more than a screen shows; without this the file is twice as long."""
    return re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", tag))


def _variable(colour: str) -> str:
    return f"var(--{'level' if colour.startswith('#f1') else 'series'}-{int(colour[-2:], 16)})"
