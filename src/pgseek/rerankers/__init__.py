"""Rerankers: what reads a query and texts together and says how well they match. One file per provider."""
