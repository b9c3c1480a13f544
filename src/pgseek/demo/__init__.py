"""The demo: the documentation strings of the running interpreter's standard library, searched."""
