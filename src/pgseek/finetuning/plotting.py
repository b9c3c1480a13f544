"""The losses of a training as a picture."""

from __future__ import annotations

from pathlib import Path

from pgseek.finetuning.running import FineTuning
from pgseek.plots import new_figure, save_figure


def plot_losses(tuned: FineTuning, path: str | Path) -> Path:
    """Draw the losses over the steps, of the batches and of the queries left out; return the path.

    Raises:
        InvalidInput: see `pgseek.plots.save_figure`.
        MissingExtra: matplotlib is not installed.
    """
    figure = new_figure()
    (axes,) = figure.axes
    for name, values in (
        ("of the batches", [(one.step, one.train) for one in tuned.losses if one.train is not None]),
        ("of the queries left out", [(one.step, one.dev) for one in tuned.losses if one.dev is not None]),
    ):
        if values:
            axes.plot(*zip(*values, strict=True), marker="o", label=name)
    axes.axvline(tuned.kept_step, color="black", linewidth=1, linestyle=":", label="weights kept")
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss ({tuned.loss})")
    axes.set_title(f"{tuned.folder.name}, made of {tuned.base.rpartition(':')[2].rpartition('/')[2]}")
    axes.legend()
    return save_figure(figure, path)
