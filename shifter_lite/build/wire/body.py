"""The body of an answer: as it came, but unpacked where something packed it on the way."""

from __future__ import annotations

import time
import zlib
from contextlib import suppress

import requests
import urllib3

from shifter_lite.build.wire import words
from shifter_lite.build.wire.patience import Fault
from shifter_lite.build.wire.session import Session

_PIECE = 1 << 18
# Seconds that small pieces are gathered for.
_GATHER = 0.05
_GZIP = b"\x1f\x8b"
# A gzip header with all that it may have, and something behind it.
_LARGEST_BEGINNING = 1 << 18


class Body:
    """What follows the head of RESPONSE, read in pieces, none of which takes for ever.

    ``framed`` is whether its end can be told from a connection that was cut; ``packed``
    whether we unpack it.
    """

    def __init__(self, session: Session, response: requests.Response, media_type: str = "") -> None:
        """Read the body of RESPONSE, which should be a MEDIA_TYPE."""
        self._session, self._response = session, response
        raw: urllib3.HTTPResponse = response.raw
        self.framed = bool(raw.chunked) or raw.length_remaining is not None
        self._got, self._spent = 0, 0.0
        self._first = b""
        self._fault: Fault | None = None
        self._inflate: zlib._Decompress | None = None
        if response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip"):
            self._first = self._beginning()
            if _is_packed(self._first, media_type):
                self._inflate = zlib.decompressobj(31)
        self.packed = self._inflate is not None

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes, none at the end; raises Fault."""
        if self._inflate is None:
            return self._raw(size)
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._raw(size)
            if not packed:
                raise words.stopped(self._session.who, "the connection was cut")
            try:
                if data := self._inflate.decompress(packed, size):
                    return data
            except zlib.error as error:
                raise words.stopped(self._session.who, error) from error
        return b""

    def all(self, limit: int) -> bytes:
        """Return the whole of it, or more than LIMIT bytes of it; raises Fault."""
        pieces, size = [], 0
        while size <= limit and (piece := self.read(_PIECE)):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _beginning(self) -> bytes:
        """Return so much of the body that it can be seen whether it is packed, and what."""
        first, opened, probe = bytearray(), b"", zlib.decompressobj(31)
        with suppress(zlib.error):
            while len(opened) < len(_GZIP) and not probe.eof and len(first) < _LARGEST_BEGINNING:
                if not (data := self._read(_PIECE)):
                    break
                first += data
                opened += probe.decompress(data, len(_GZIP) - len(opened))
        return bytes(first)

    def _raw(self, size: int) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        data = self._read(size)
        if not 0 < len(data) < size // 2:
            return data
        # TLS and slow networks give little at a time, and each piece has its price.
        pieces, size, until = [data], size - len(data), time.monotonic() + _GATHER
        while size and data and time.monotonic() < until:
            try:
                data = self._read(size)
            except Fault as fault:
                # What is here is not lost by what does not come.
                self._fault = fault
                break
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        if self._fault:
            raise self._fault
        started = time.monotonic()
        data = self._session.read(self._response, size)
        self._spent += time.monotonic() - started
        self._got += len(data)
        patience = self._session.patience
        if self._spent >= patience.silence:
            if self._got < patience.least * self._spent:
                raise words.stopped(self._session.who, f"fewer than {patience.least} bytes/s came")
            self._got, self._spent = 0, 0.0
        return data


def _is_packed(first: bytes, media_type: str) -> bool:
    """Return whether what begins with FIRST is a packed MEDIA_TYPE, and not just called so.

    Stores of objects call a layer that is gzip by itself "encoded", and send it as it is.
    """
    if not first.startswith(_GZIP):
        return False
    if not media_type.endswith("gzip"):
        return True
    try:
        return zlib.decompressobj(31).decompress(first, 2) == _GZIP
    except zlib.error:
        return False
