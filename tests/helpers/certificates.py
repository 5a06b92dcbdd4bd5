"""Certificates for servers on the loopback, made by openssl: good ones, and every kind of bad."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs; ``path`` is the certificate by which it is known."""

    directory: Path
    path: Path

    def serve(self, name: str, *, days: int = 30, self_signed: bool = False) -> ssl.SSLContext:
        """Return what a server called NAME greets with; of DAYS below 0, it is out of date."""
        base = self.directory / f"{name}{days}{self_signed}"
        alternative = f"IP:{name}" if name[0].isdigit() else f"DNS:{name}"
        request = ["req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{base}.key"]
        signing = ["-CA", str(self.path), "-CAkey", str(self.path.with_suffix(".key"))]
        if self_signed:
            signing = []
            request.append("-x509")
        _openssl(*request, "-out", f"{base}.csr", "-addext", f"subjectAltName={alternative}")
        if not self_signed:
            extensions = base.with_suffix(".ext")
            extensions.write_text(f"subjectAltName={alternative}\n")
            _openssl(
                *("x509", "-req", "-in", f"{base}.csr", *signing, "-CAcreateserial"),
                *("-days", str(days), "-extfile", str(extensions), "-out", f"{base}.pem"),
            )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{base}.{'csr' if self_signed else 'pem'}", f"{base}.key")
        return context


def authority(directory: Path, name: str = "authority") -> Authority:
    """Return an authority made in DIRECTORY."""
    path = directory / f"{name}.pem"
    _openssl(
        *("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-days", "30"),
        *("-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return Authority(directory, path)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
