"""The whole corpus, in one list."""

from __future__ import annotations

from tests.corpus import (
    compression,
    data,
    ends,
    extended,
    headers,
    links,
    links_kept,
    names,
    numbers,
    parents,
    pax,
    sparse,
    types,
    whiteouts,
    whiteouts_odd,
    whole,
)

CASES = [
    *types.CASES,
    *whiteouts.CASES,
    *whiteouts_odd.CASES,
    *links.CASES,
    *links_kept.CASES,
    *parents.CASES,
    *names.CASES,
    *numbers.CASES,
    *headers.CASES,
    *pax.CASES,
    *extended.CASES,
    *sparse.CASES,
    *ends.CASES,
    *compression.CASES,
    *data.CASES,
    *whole.CASES,
]
