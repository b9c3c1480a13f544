"""What is written beside a trained model: a card for readers, and a record for pgseek."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgseek.embedders.catalog import find_model
from pgseek.embedders.folders import RECORD


def licence_of(base: str) -> str:
    """Return the licence of a base model: as the catalogue or the card in its folder says it, else ''."""
    known = find_model("sentence-transformers", base)
    if known is not None:
        return known.licence
    try:
        card = (Path(base) / "README.md").read_text(encoding="utf-8")
    except OSError:
        return ""
    head = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    found = re.search(r"^license:\s*(\S+)\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what pgseek reads of the model: what it was made of, and which shorter vectors it was
    trained for."""
    text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the model card, README.md, out of the record."""
    licence = record["licence"]
    recipe = record["recipe"]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        f"base_model: {json.dumps(record['base'])}",
        *([f"license: {licence}"] if licence else []),
        "tags: [pgseek]",
        "---",
        "",
        f"# {folder.name}",
        "",
        f"An embedding model made of `{record['base']}` by `pgseek finetune`.",
        "",
        "## Data",
        "",
        f"{record['examples']:,} {record['kind']} of {record['queries']:,} queries, with the texts of the "
        f"collection `{record['collection']}`; {record['dev_examples']:,} of {record['dev_queries']:,} other "
        "queries were looked at meanwhile, and not trained on.",
    ]
    mined = record.get("mined")
    if mined:
        lines += [
            "",
            f"Negatives: {recipe['negatives']} of each pair, {mined['by_rank']:,} of them hits at the "
            f"ranks {recipe['window'][0]} to {recipe['window'][1]}, {mined['at_random']:,} drawn from all "
            f"documents; {mined['too_near']:,} hits were passed over, being nearer than "
            f"{1 - recipe['margin']:g} times what answers the query.",
        ]
    lines += [
        "",
        "## Training",
        "",
        f"Loss: {record['loss']}"
        + (f", at the lengths {', '.join(map(str, record['matryoshka']))}" if record["matryoshka"] else "")
        + f". {record['steps']:,} steps of {recipe['batch_size']} examples at a learning rate of "
        f"{recipe['learning_rate']:g}, seed {recipe['seed']}; the weights are those of step "
        f"{record['kept_step']:,}. On {record['device']}, {record['seconds']:,.0f} s.",
        "",
        "| step | loss | dev loss |",
        "|---|---|---|",
        *(
            f"| {one['step']} | {_number(one['train'])} | {_number(one['dev'])} |"
            for one in record["losses"]
            if one["dev"] is not None or one is record["losses"][-1]
        ),
    ]
    for found in record.get("measured", ()):
        lines += [
            "",
            f"## Before and after, {found['queries']:,} queries that were not trained on: {found['way']}",
            "",
            "| measure | before | after | difference | p |",
            "|---|---|---|---|---|",
            *(
                f"| {one['measure']} | {one['before']:.4f} | {one['after']:.4f} | {one['difference']:+.4f} "
                f"| {one['p']:.4f} |"
                for one in found["measures"]
            ),
        ]
    lines += [
        "",
        "## Licence",
        "",
        f"The base model's is {licence}."
        if licence
        else "The base model's licence was not found: look it up.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
