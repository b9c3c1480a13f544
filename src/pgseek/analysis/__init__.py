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
from pgseek.analysis.duplicates import (
    DuplicateGroup,
    Duplicates,
    Member,
    Passage,
    delete_duplicates,
    exact_duplicates,
    find_duplicates,
    repeated_passages,
    write_representatives,
)
from pgseek.analysis.grouping import SilhouettePoint
from pgseek.analysis.labels import Word
from pgseek.analysis.maps import ClusterMap, MapCluster, MapPoint, map_clusters, plot_map, write_page
from pgseek.analysis.overlap import overlap
from pgseek.analysis.pairs import (
    LabelledPair,
    MeasuredPairs,
    answered_queries,
    document_pairs,
    labelled,
    question_pairs,
    read_pairs,
    sampled_pairs,
)
from pgseek.analysis.pictures import plot_silhouettes
from pgseek.analysis.thresholds import (
    Calibrated,
    Choice,
    Histogram,
    Purpose,
    calibrate_threshold,
    plot_thresholds,
    store_threshold,
    stored_thresholds,
)
from pgseek.similarity import distances, nearest, normalize, pairwise, scores

__all__ = [
    "Assignment",
    "Calibrated",
    "Choice",
    "Closeness",
    "Cluster",
    "ClusterMap",
    "ClusterPlan",
    "Clustering",
    "Distribution",
    "DuplicateGroup",
    "Duplicates",
    "Histogram",
    "Hub",
    "LabelledPair",
    "MapCluster",
    "MapPoint",
    "MeasuredPairs",
    "Member",
    "Outlier",
    "Outliers",
    "Passage",
    "Purpose",
    "Representative",
    "SilhouettePoint",
    "Spread",
    "Word",
    "Written",
    "answered_queries",
    "assignments",
    "between",
    "calibrate_threshold",
    "cluster",
    "delete_duplicates",
    "distances",
    "distribution",
    "document_pairs",
    "exact_duplicates",
    "find_duplicates",
    "labelled",
    "map_clusters",
    "nearest",
    "normalize",
    "outliers",
    "overlap",
    "pairwise",
    "plot_distribution",
    "plot_map",
    "plot_silhouettes",
    "plot_thresholds",
    "question_pairs",
    "read_pairs",
    "repeated_passages",
    "sampled_pairs",
    "scores",
    "store_threshold",
    "stored_thresholds",
    "write_clusters",
    "write_page",
    "write_representatives",
]
