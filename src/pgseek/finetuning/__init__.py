"""Fine-tuning an embedding model on a collection's own pairs, and the proof of it in the database.

>>> from pgseek.finetuning import Recipe, finetune, measure, read_examples
>>> examples = read_examples("clicks.jsonl")                          # doctest: +SKIP
>>> tuned = finetune(docs, examples, "models/tuned", Recipe(negatives=3))
>>> found = measure(docs, tuned, queries, qrels)
>>> docs.reembed(tuned.embedder)

Needs the extra ``finetune``: pip install 'pgseek[finetune]'.
"""

from __future__ import annotations

from pgseek.finetuning.examples import Example, from_qrels, judgements, read_examples, split, title_pairs
from pgseek.finetuning.measuring import Measured, measure
from pgseek.finetuning.mining import Mined, mine
from pgseek.finetuning.plotting import plot_losses
from pgseek.finetuning.recipe import Recipe
from pgseek.finetuning.running import FineTuning, finetune
from pgseek.finetuning.training import LossAt

__all__ = [
    "Example",
    "FineTuning",
    "LossAt",
    "Measured",
    "Mined",
    "Recipe",
    "finetune",
    "from_qrels",
    "judgements",
    "measure",
    "mine",
    "plot_losses",
    "read_examples",
    "split",
    "title_pairs",
]
