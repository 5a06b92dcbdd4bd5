"""One blob, over as many connections, and from as many endpoints, as it takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack

import requests

from shifter_lite.build.manifest import Descriptor, hint_if_missing
from shifter_lite.build.wire import words
from shifter_lite.build.wire.body import Body
from shifter_lite.build.wire.endpoint import Endpoint
from shifter_lite.build.wire.patience import Fault
from shifter_lite.errors import BadImage, ShifterError

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(\*|[0-9]{1,18})")
# A connection that brought so much was worth it, however it ended.
_WORTH = 1 << 16
_SKIPPED = 1 << 18


class Download:
    """Reads the blob of DESCRIPTOR from the byte START on, to its end or before the byte STOP.

    A connection that is cut is opened again where it was.  The bytes are as they came:
    whoever reads them checks them.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], blob: Descriptor, start: int, stop: int | None = None
    ) -> None:
        self._endpoints, self._blob, self._at = list(endpoints), blob, start
        self._begin()
        self._open = ExitStack()
        self._body: Body | None = None
        self._part = False
        self._stop = blob.size if stop is None else stop
        self._ended = start >= self._stop

    def _begin(self) -> None:
        """Begin with the first of the endpoints that are left."""
        self._effort = self._endpoints[0].effort()
        self._ranges = True
        self._mark = self._at

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes, none at the end.

        Raises RegistryBusy, Denied, or BadImage where there is no such blob.
        """
        while not self._ended:
            try:
                if self._body is None:
                    self._body = self._connect()
                if data := self._body.read(size):
                    self._at += len(data)
                    return data
                self._end()
            except Fault as fault:
                self.close()
                self._recover(fault)
        return b""

    def close(self) -> None:
        """Let go of the connection."""
        self._open.close()
        self._body = None

    def _connect(self) -> Body:
        """Return a body that goes on where we are; raises Fault."""
        endpoint = self._endpoints[0]
        self._open.enter_context(endpoint.kept())
        self._mark = self._at
        ask_part = self._at > 0 and self._ranges
        last = self._stop - 1 if self._stop < self._blob.size else ""
        headers = {"Range": f"bytes={self._at}-{last}"} if ask_part else {}
        missing = BadImage(
            f"the registry has no blob {self._blob.digest}, which the image needs",
            hint=hint_if_missing(self._blob),
        )
        response = endpoint.attempt(
            f"blobs/{self._blob.digest}", headers, missing, (200, 206, *[416] * ask_part)
        )
        self._open.enter_context(response)
        self._part = response.status_code != 200
        first = self._first_byte(response)
        body = Body(endpoint.session, response, self._blob.media_type)
        if body.packed:
            # Ranges would be of what is packed.
            if self._part:
                raise self._without_ranges("answered a part of something packed")
            self._ranges = False
        left = self._at - first
        while left and (data := body.read(min(left, _SKIPPED))):
            left -= len(data)
        return body

    def _first_byte(self, response: requests.Response) -> int:
        """Return where in the blob the body of RESPONSE begins; raises Fault."""
        if response.status_code == 200:
            return 0
        match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if response.status_code == 416 or match is None or int(match[1]) > self._at:
            raise self._without_ranges("answered another part of a blob than it was asked for")
        if match[3] not in ("*", str(self._blob.size)):
            fact = f"its blob {self._blob.digest} has the wrong size: not {self._blob.size} bytes"
            raise Fault(BadImage(fact), again=False)
        return int(match[1])

    def _without_ranges(self, what: str) -> Fault:
        """Do without parts from now on; return why."""
        self._ranges = False
        fault = words.nonsense(self._endpoints[0].who, what)
        fault.again, fault.wait = True, 0.0
        return fault

    def _end(self) -> None:
        """Believe the end of a body, or raise Fault."""
        body = self._body
        nothing_came = self._at == self._mark
        whole = body is not None and body.framed and not self._part
        if self._at < self._stop and not nothing_came and not whole:
            fault = words.stopped(self._endpoints[0].who, "the connection was cut")
            fault.wait = 0.0
            raise fault
        # What is too short, or too long, is found out by whoever reads it.
        self._ended = True
        self.close()

    def _recover(self, fault: Fault) -> None:
        """Make ready to go on after FAULT, here or elsewhere; raises its error."""
        if self._at >= self._stop:
            # All is here: what came after it does not matter.
            self._ended = True
            return
        if self._at - self._mark >= _WORTH:
            self._effort.renew()
        try:
            self._effort.wait_after(fault)
        except ShifterError as error:
            if len(self._endpoints) == 1:
                raise
            self._endpoints.pop(0).give_up(error)
            self._begin()
