"""Compress and decompress blocks; what layers are compressed with is ``inflate``'s."""

from __future__ import annotations

import threading

import zstandard

Block = bytes | bytearray | memoryview


class Compressor:
    """zstd at one level, for any thread."""

    def __init__(self, level: int) -> None:
        """Compress at LEVEL, 1 to 22; see zstd(1)."""
        self._level = level
        self._local = threading.local()

    def compress(self, data: Block) -> bytes:
        """Return DATA as one zstd frame."""
        try:
            compress = self._local.compress
        except AttributeError:
            compress = zstandard.ZstdCompressor(level=self._level).compress
            self._local.compress = compress
        packed: bytes = compress(data)
        return packed

    @property
    def version(self) -> str:
        """What the same data compresses to follows from this, and from the level."""
        return f"zstd-{'.'.join(map(str, zstandard.ZSTD_VERSION))}/{self._level}"


def decompress(data: bytes, size: int) -> bytes:
    """Return what the zstd frame DATA holds, at most SIZE bytes."""
    unpacked: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    return unpacked
