"""How an image is to be run: the ``config`` of its config, of which every type is hostile.  Pure.

Fields are those of the OCI image-spec, "Image Configuration".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shifter_lite.errors import BadImage
from shifter_lite.records import Config

# Every launch reads it, and execve(2) takes little more.
_LARGEST_ENVIRONMENT = 128 << 10


def read(run: object) -> Config:
    """Return how an image is to be run, which RUN says; raises BadImage."""
    run = {} if run is None else run
    if not isinstance(run, dict):
        raise BadImage("the image config's 'config' is not an object")
    config = _config(run)
    size = sum(map(len, (*config.env, *config.entrypoint, *config.cmd)))
    if size > _LARGEST_ENVIRONMENT:
        raise BadImage(
            f"the image's environment and commands have {size} characters, "
            f"more than {_LARGEST_ENVIRONMENT}"
        )
    return config


def _config(run: dict[str, Any]) -> Config:
    env = _words(run, "Env")
    for word in env:
        if "=" not in word or word.startswith("="):
            raise BadImage(f"the image config has a bad Env: {word!r}")
    return Config(
        env=env,
        entrypoint=_words(run, "Entrypoint"),
        cmd=_words(run, "Cmd"),
        workdir=text(run.get("WorkingDir"), "WorkingDir"),
        user=text(run.get("User"), "User"),
        labels=_labels(run.get("Labels")),
    )


def _words(run: dict[str, Any], key: str) -> tuple[str, ...]:
    value: Sequence[object] = run.get(key) or []
    # A string where a list belongs: docker wrote Entrypoint so, long ago.
    if isinstance(value, str) or not isinstance(value, list):
        raise BadImage(f"the image config's {key} is not a list")
    return tuple(text(word, key) for word in value)


def _labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadImage("the image config's Labels are not an object")
    return {text(key, "Labels"): text(word, "Labels") for key, word in value.items()}


def text(value: object, key: str) -> str:
    """Return the text VALUE of KEY, which may be missing; raises BadImage."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadImage(f"the image config's {key} holds something that is no text")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise BadImage(f"the image config's {key} is not Unicode") from error
    if b"\0" in encoded:
        raise BadImage(f"the image config's {key} holds a NUL")
    return value
