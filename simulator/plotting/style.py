"""How figures look: colours that colour-blind people tell apart, marks that need none, one font for both languages.

Colours are those of Okabe and Ito (Color Universal Design, 2008, https://jfly.uni-koeln.de/color/). Every platform also
has a marker and a line style of its own, and each kind of number a hatch, so that a figure survives a grey printer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simulator.datacenter.platforms import Kind
from simulator.datafiles import data_directory
from simulator.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONTS = ("Noto Sans KR", "DejaVu Sans")
"""Looked in from left to right for each character. The first has Hangul, the second comes with matplotlib."""

INK, QUIET, GRID = "#1b2026", "#59626d", "#d5dae0"
"""Text and axes; what is of second rank; the grid. A page may replace them, see `classroom.report.figures`."""


@dataclass(frozen=True)
class Look:
    """What a platform looks like in every figure."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


_LOOKS: Mapping[str, Look] = {
    "process": Look("#009E73", "D", (0, (1, 1.2))),
    "container": Look("#0072B2", "o", "-"),
    "vm-kvm": Look("#D55E00", "s", (0, (6, 2))),
    "vm-cloud": Look("#CC79A7", "^", (0, (6, 2, 1.2, 2))),
    "vm-tcg": Look("#E69F00", "v", (0, (3, 1.5))),
}
_MORE_LOOKS = (Look("#56B4E9", "P", (0, (4, 1, 1, 1, 1, 1))), Look("#8C6D00", "X", (0, (8, 3))), Look(QUIET, "h", "-."))

HATCHES: Mapping[Kind, str] = {"measured": "", "simulated": "....", "published": "////"}
"""A bar's filling says where its number comes from: solid, dotted, hatched."""

KIND_MARKS: Mapping[Kind, str] = {"measured": "●", "simulated": "◆", "published": "□"}
"""The same for text: a filled circle, a diamond, an empty square."""


_SECOND_VARIANT = "q35"


def look_of(platform: str, variant: str = "default") -> Look:
    """The look of a platform; one that onggi does not ship gets a look that depends on its name alone.

    The two machine types of a VM share their platform's colour and differ in marker and line style.
    """
    look = _LOOKS.get(platform) or _MORE_LOOKS[sum(platform.encode()) % len(_MORE_LOOKS)]
    return Look(look.colour, "<", "-.") if variant == _SECOND_VARIANT else look


@lru_cache
def figure_words(language: str) -> Words:
    """The words of all figures in one language.

    Raises:
        SimulatorError: a language that there is not.
    """
    return Words(Path(__file__).parent, language)


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in onggi's style inside of the `with`; matplotlib's settings are as before after it.

    The font is registered with matplotlib by its path and stays registered, since a figure is drawn after it was made
    (by a notebook, by `savefig`). That alone changes no figure that does not ask for it by name.
    """
    import matplotlib as mpl

    _register_font()
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]  # its keys are a list of literals
        yield


_SETTINGS: dict[str, Any] = {
    "font.family": list(FONTS),
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "hatch.linewidth": 1.0,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "onggi",
    "text.parse_math": False,  # a dollar sign in a platform's name is a dollar sign
}


@lru_cache
def _register_font() -> None:
    from matplotlib import font_manager

    font_manager.fontManager.addfont(str(data_directory() / "fonts" / "NotoSansKR-Regular.ttf"))


def axes_or_new(ax: "Axes | None", *, height: float = 4.0, width: float = 6.8) -> "Axes":
    """`ax`, or the only axes of a new pyplot figure of the given size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height))[1]


def settle(ax: "Axes") -> "Axes":
    """Finish `ax`: ticks that matplotlib makes later, when it draws, take onggi's font too."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_tick_params(which="both", labelfontfamily=list(FONTS))
    return ax


def seconds_axis(ax: "Axes", which: Literal["x", "y"], *, logarithmic: bool = True, between: bool = False) -> None:
    """Give an axis of seconds ticks that people read: 1 ms, 10 ms, 1 s; with `between` 2 and 5 of each decade too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = ax.xaxis if which == "x" else ax.yaxis
    if logarithmic:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if between else (1,), numticks=12))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: seconds_text(value)))


NO_BREAK = "\u00a0"
"""Between a number and its unit, which a line of text must not part (ISO 80000-1, 7.1.4)."""


def seconds_text(seconds: float) -> str:
    """`0.0061` as `6.1 ms`: three significant digits and a unit in which they are near one."""
    if seconds == 0:
        return "0"
    for scale, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if abs(seconds) < 999.5 * scale:
            return f"{digits(seconds / scale)}{NO_BREAK}{unit}"
    return f"{digits(seconds)}{NO_BREAK}s"


def bytes_text(count: float) -> str:
    """`1500000` as `1.43 MiB`: three significant digits and a binary unit (1 MiB = 2^20 bytes)."""
    for exponent, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(count) >= 0.9995 * 2**exponent:
            return f"{digits(count / 2**exponent)}{NO_BREAK}{unit}"
    return f"{digits(count)}{NO_BREAK}B"


def percent_text(fraction: float) -> str:
    """`0.1024` as `10.2 %`."""
    return f"{digits(100 * fraction)}{NO_BREAK}%"


def change_text(fraction: float) -> str:
    """`-0.123` as `−12 %`: a relative error, with its sign, in whole percent."""
    return f"{fraction:+.0%}".replace("-", "−").replace("%", f"{NO_BREAK}%")


def digits(number: float) -> str:
    """Three significant digits, never in powers of ten, with thousands set apart: `0.00412`, `29.3`, `1,023`."""
    if number == 0:
        return "0"
    if abs(number) >= 999.5:
        return f"{number:,.0f}"
    text = f"{float(f'{number:.3g}'):.10f}".rstrip("0").rstrip(".")
    return text if float(text) else f"{number:.3g}"


def legend_above(ax: "Axes", handles: "Sequence[Any]", columns: int | None = None) -> None:
    """Put the legend above the axes, where it hides no data and needs no width."""
    ax.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns or len(handles),
        borderaxespad=0.2,
        columnspacing=1.4,
        handletextpad=0.6,
    )
