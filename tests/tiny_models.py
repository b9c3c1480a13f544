"""A cross-encoder with random weights, saved to a folder: no trained one comes with a wheel."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = "cache a the function results of memoizing decorator saves sorted inputs merge exceptions suppress"


def save_cross_encoder(folder: Path, *, labels: int = 1, length: int = 64) -> Path:
    """Write a BERT of one small layer and its tokenizer, as its trainer would; always the same weights."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(97, 123)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words += sorted(set(re.findall(r"\w+", TEXT)) - set(words))
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary), model_max_length=length)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=length,
        num_labels=labels,
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CrossEncoder(str(folder)).save_pretrained(str(folder))
    return folder
