"""Embedders: what turns texts into vectors. One file per provider, each imported on demand."""
