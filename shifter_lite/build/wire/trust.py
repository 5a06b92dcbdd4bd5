"""Whose certificates are good: the system's authorities, and those that the site adds."""

from __future__ import annotations

import os
import ssl

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from shifter_lite.errors import BadConfig

# As requests and curl read them; OpenSSL itself reads SSL_CERT_FILE and SSL_CERT_DIR.
_INSTEAD = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def context(ca_files: tuple[str, ...]) -> ssl.SSLContext:
    """Return what trusts the system's authorities, or the environment's, and CA_FILES.

    Whatever the environment says, CA_FILES are trusted.  Raises BadConfig.
    """
    named = next((name for name in _INSTEAD if os.environ.get(name)), "")
    made = _of_environment(named) if named else _of_system()
    for path in ca_files:
        try:
            made.load_verify_locations(path)
        except OSError as error:
            raise BadConfig(f"ca_file = {path!r} holds no certificates we can read") from error
    return made


def _of_environment(name: str) -> ssl.SSLContext:
    path = os.environ[name]
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise BadConfig(f"{name} names no certificates: {path!r}", hint=f"unset {name}") from error


def _of_system() -> ssl.SSLContext:
    made = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and os.listdir(paths.capath)):
        # A bare system without any: the list that requests brings along.
        made.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return made
