"""Pictures of what was measured: one look, three formats, no window and no global state.

The functions that measure return data; those that draw take it and a path. Drawing needs the extra ``plots``:
pip install 'pgseek[plots]'.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgseek.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito (2008): apart for every kind of colour vision, and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "font.size": 10,
    # Letters stay letters in an SVG, and its ids are the same for the same picture.
    "svg.fonttype": "none",
    "svg.hashsalt": "pgseek",
}


def check_picture(path: str | Path) -> Path:
    """Return the path if a picture can be written there; call it before the work whose result is drawn.

    Raises:
        InvalidInput: the name ends in none of .png, .svg, .pdf, or the folder does not exist.
        MissingExtra: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput(
            f"the picture {str(path)!r} ends in none of {', '.join(FORMATS)}: choose one of them"
        )
    if not path.parent.is_dir():
        raise InvalidInput(
            f"the folder {str(path.parent)!r} for the picture {path.name!r} does not exist: make it"
        )
    load_matplotlib()
    return path


def load_matplotlib() -> Any:
    """Return matplotlib, or raise `MissingExtra`."""
    try:
        import matplotlib  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtra("matplotlib, which draws,", "plots") from error
    return matplotlib


def new_figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """Return an empty figure in pgseek's look; ``width`` and ``height`` are in inches.

    It is in no list of open windows: it goes when nobody holds it any more.
    """
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415 (as above)

    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": matplotlib.cycler(color=COLORS)}):
        figure = Figure(figsize=(width, height), layout="constrained")
        # Axes take the style when they are made, so the first are made here.
        figure.subplots()
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure in the format that the path ends in; the same figure gives the same file.

    Raises:
        InvalidInput: see `check_picture`; or the file cannot be written.
    """
    path = check_picture(path)
    dated = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix.lower())
    try:
        with load_matplotlib().rc_context(_STYLE):
            figure.savefig(path, dpi=150, metadata={dated: None} if dated else None)
    except OSError as error:
        raise InvalidInput(f"cannot write the picture to {str(path)!r}: {error.strerror}") from error
    return path
