"""Digests as manifests write them; OCI image-spec, "Digests".  Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


def digest_of(data: bytes) -> str:
    """Return the digest of DATA."""
    return digest_in(hashlib.sha256(data))


def digest_in(hashed: Hash) -> str:
    """Return the digest of all that HASHED, a SHA-256, has seen."""
    return f"sha256:{hashed.hexdigest()}"
