"""How the pictures look: colours safe for the colour-blind, fonts, labels that fit and can be drawn."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from everlearn.report.text import short

# Okabe & Ito 2008, without the yellow, which vanishes on white; later runs repeat them with another line and marker
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
SOFT = "#59636e"  # notes, as on the pages
# Fonts with more scripts than matplotlib's own, used where they are installed
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Microsoft YaHei", "Segoe UI")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of that size in inches, laid out so that nothing overlaps."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, with room for whatever sticks out."""
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.12)


def tidy(axes: Axes, grid: str = "y") -> None:
    """Take away the frame's upper and right edge and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def run_style(position: int) -> dict[str, object]:
    """Return colour, line and marker of the run at a place in the list; 28 runs differ."""
    round_ = position // len(COLOURS)
    return {
        "color": COLOURS[position % len(COLOURS)],
        "linestyle": LINES[round_ % len(LINES)],
        "marker": MARKERS[(position + round_) % len(MARKERS)],
    }


def labels(names: Sequence[str], kind: str, limit: int) -> list[str]:
    """Return a distinct label for each name that pictures can show: short, in the fonts at hand, no formulas.

    A name with characters that no font has, or that looks like another once shortened, becomes `kind` and its number.
    """
    clipped = [short(name, limit) for name in names]
    found = []
    for position, text in enumerate(clipped, start=1):
        drawable = text and text.isprintable() and all(ord(letter) in _glyphs() for letter in text)
        unique = clipped.count(text) == 1
        numbered = f"{kind} {position}"
        found.append(text.replace("$", r"\$") if drawable and unique else numbered)
    return found


def fonts() -> list[str]:
    """Return the fonts of `FONTS` that are installed."""
    installed = set(font_manager.get_font_names())
    return [font for font in FONTS if font in installed] or [FONTS[0]]


@cache
def _glyphs() -> frozenset[int]:
    paths = [font_manager.findfont(font_manager.FontProperties(family=font)) for font in fonts()]
    return frozenset(code for path in paths for code in ft2font.FT2Font(path).get_charmap())
