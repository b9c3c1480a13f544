"""Small models with random weights, saved to folders: no trained cross-encoder comes with a wheel."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = "cache a the function results of memoizing decorator saves sorted inputs merge exceptions suppress"


def _tokenizer(folder, length):
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(97, 123)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words += sorted(set(re.findall(r"\w+", TEXT)) - set(words))
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary), model_max_length=length)
    return tokenizer, words


def save_cross_encoder(folder: Path, *, labels: int = 1, length: int = 64) -> Path:
    """Write a BERT of one small layer and its tokenizer, as its trainer would; always the same weights."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer, words = _tokenizer(folder, length)
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


def save_sentence_transformer(folder: Path, *, length: int = 64, licence: str = "mit") -> Path:
    """Write an embedding model of one small layer, with mean pooling; always the same weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    bare = folder / "bare"
    tokenizer, words = _tokenizer(bare, length)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=length,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    made = folder / "model"
    SentenceTransformer(str(bare)).save_pretrained(str(made), create_model_card=False)
    (made / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return made
