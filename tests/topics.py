"""A corpus whose clusters are known: three topics with words and vectors of their own."""

from __future__ import annotations

import numpy as np
from support import CountingEmbedder

TOPICS = {
    "bread": "Baking bread: the oven, flour and yeast of loaves that rise before they are baked.",
    "engine": "Repairing engines: the motor, pistons and wheels of cars that race on a track.",
    "violin": "Playing violins: the melody, strings and bows of orchestras that give concerts.",
}


def corpus(each: int = 20, dimensions: int = 16, seed: int = 1, spread: float = 0.05):
    """Return documents of each topic, their embedder, and the topic of each by id.

    The vectors of topics are orthogonal, so that there is no doubt where one belongs.
    """
    random = np.random.default_rng(seed)
    documents, given, topics = [], {}, {}
    for number, (topic, text) in enumerate(TOPICS.items()):
        for n in range(each):
            name = f"{topic}-{n}"
            vector = spread * random.normal(size=dimensions)
            vector[number] += 1
            whole = f"{text} Number {n}."
            documents.append({"id": name, "text": whole, "metadata": {"even": n % 2 == 0}})
            given[whole] = vector / np.linalg.norm(vector)
            topics[name] = topic
    return documents, CountingEmbedder(dimensions, given=given), topics
