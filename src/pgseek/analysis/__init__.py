"""What a collection holds, seen as a whole: duplicates, clusters, distributions, thresholds.

Functions take a `Collection` and return data; what draws is called ``plot_…`` and takes that data and a path.
"""

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

__all__ = [
    "Calibrated",
    "Choice",
    "DuplicateGroup",
    "Duplicates",
    "Histogram",
    "LabelledPair",
    "MeasuredPairs",
    "Member",
    "Passage",
    "Purpose",
    "answered_queries",
    "calibrate_threshold",
    "delete_duplicates",
    "document_pairs",
    "exact_duplicates",
    "find_duplicates",
    "labelled",
    "overlap",
    "plot_thresholds",
    "question_pairs",
    "read_pairs",
    "repeated_passages",
    "sampled_pairs",
    "store_threshold",
    "stored_thresholds",
    "write_representatives",
]
