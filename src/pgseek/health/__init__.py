"""What slows a search down, makes it miss, or puts data at risk, as the catalogue and the statistics tell it.

Nothing here reads the stored documents: `integrity` does. `checking` asks, the other modules judge.
"""
