"""What a collection holds, seen as a whole: duplicates, clusters, distributions, thresholds.

Functions take a `Collection` and return data; what draws is called ``plot_…`` and takes that data and a path.
"""
