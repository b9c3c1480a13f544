"""Texts that are hard to divide."""

from __future__ import annotations

from hypothesis import strategies as st

# Unicode's White_Space property: what the splitter trims.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
PIECES = [
    "word",
    "Ein Satz.",
    " ",
    "\n\n",
    "\r\n",
    "\t",
    "é",
    "e\u0301\u0323",
    "😀",
    "👨‍👩‍👧‍👦",
    "🇩🇪",
    "שלום",
    "\u202eمرحبا\u202c",
    "日本語。",
    "สวัสดี",
    "\u200b",
    "\ufeff",
    "\u2028",
]
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
