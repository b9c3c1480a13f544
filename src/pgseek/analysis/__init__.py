"""What a collection holds, seen as a whole: duplicates, clusters, distributions, thresholds.

Functions take a `Collection` and return data; what draws is called ``plot_…`` and takes that data and a path.
"""

from pgseek.analysis.applying import Assignment, Written, assignments, write_clusters
from pgseek.analysis.closeness import (
    Closeness,
    Distribution,
    Hub,
    Outlier,
    Outliers,
    Spread,
    between,
    distribution,
    outliers,
    plot_distribution,
)
from pgseek.analysis.clusters import Cluster, Clustering, ClusterPlan, Representative, cluster
from pgseek.analysis.grouping import SilhouettePoint
from pgseek.analysis.labels import Word
from pgseek.analysis.maps import ClusterMap, MapCluster, MapPoint, map_clusters, plot_map, write_page
from pgseek.analysis.pictures import plot_silhouettes
from pgseek.similarity import distances, nearest, normalize, pairwise, scores

__all__ = [
    "Assignment",
    "Closeness",
    "Cluster",
    "ClusterMap",
    "ClusterPlan",
    "Clustering",
    "Distribution",
    "Hub",
    "MapCluster",
    "MapPoint",
    "Outlier",
    "Outliers",
    "Representative",
    "SilhouettePoint",
    "Spread",
    "Word",
    "Written",
    "assignments",
    "between",
    "cluster",
    "distances",
    "distribution",
    "map_clusters",
    "nearest",
    "normalize",
    "outliers",
    "pairwise",
    "plot_distribution",
    "plot_map",
    "plot_silhouettes",
    "scores",
    "write_clusters",
    "write_page",
]
