"""Pictures of clusters."""

from __future__ import annotations

from pathlib import Path

from pgseek import plots
from pgseek.analysis.clusters import Clustering
from pgseek.errors import InvalidInput


def plot_silhouettes(found: Clustering, path: str | Path) -> Path:
    """Draw the silhouette over the number of clusters, for a clustering that chose it.

    Raises:
        InvalidInput: no number was chosen, or the file cannot be written.
    """
    path = plots.check_picture(path)
    if not found.curve:
        raise InvalidInput("there is no curve to draw: k was given, or HDBSCAN found it")
    figure = plots.new_figure()
    (axes,) = figure.axes
    axes.plot([one.k for one in found.curve], [one.silhouette for one in found.curve], marker="o")
    best = max(found.curve, key=lambda one: (one.silhouette, -one.k))
    axes.axvline(best.k, color=plots.COLORS[1], linestyle="--", label=f"chosen: {best.k}")
    axes.set_xlabel("clusters")
    axes.set_ylabel(f"mean silhouette of {found.silhouette_sample:,} {found.by}s")
    axes.set_title(f"How well clusters of {found.collection} are apart")
    axes.legend()
    return plots.save_figure(figure, path)
