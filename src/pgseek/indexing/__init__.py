"""Indexes of vectors: built while searches go on, measured against exact search, tuned, advised on."""
