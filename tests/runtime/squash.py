"""Small images, made of descriptions."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

# A value is a file's text; with a mode before it; a symbolic link; a directory's mode; or the type
# that tar has for a special file.
Entry = str | bytes | tuple[int, str | bytes] | Path | int | tarfile.TarInfo
Tree = Mapping[str, Entry]

_APPLETS = """
    sh cat ls id pwd env true false sleep echo grep test stat readlink touch kill head wc cut sort
    mkdir mount umount find tr expr chmod
"""


def _busybox() -> bytes:
    program = shutil.which("busybox")
    assert program, "the tests' image needs busybox (apt install busybox-static)"
    return Path(program).read_bytes()


BUSYBOX: Tree = {
    "bin": 0o755,
    "bin/busybox": (0o755, _busybox()),
    **{f"bin/{name}": Path("busybox") for name in _APPLETS.split()},
    "bin/not-executable": (0o644, "nothing\n"),
    "bin/no-interpreter": (0o755, "#!/no/such/interpreter\n"),
    "etc": 0o755,
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/motd": "from the image\n",
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "tmp": 0o1777,
    "work": 0o755,
    "secret": 0o700,
    "secret/file": (0o600, "not for others\n"),
}


def without(tree: Tree, *names: str) -> dict[str, Entry]:
    """Return TREE without NAMES and what lies beneath them."""
    return {
        path: entry
        for path, entry in tree.items()
        if not any(path == name or path.startswith(f"{name}/") for name in names)
    }


def special(kind: bytes, major: int = 0, minor: int = 0) -> tarfile.TarInfo:
    """Return a device or a pipe."""
    info = tarfile.TarInfo()
    info.type, info.mode, info.devmajor, info.devminor = kind, 0o666, major, minor
    return info


def _member(path: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    info, data = tarfile.TarInfo(path), b""
    match entry:
        case tarfile.TarInfo():
            info = entry
            info.name = path
        case int():
            info.type, info.mode = tarfile.DIRTYPE, entry
        case Path():
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(entry), 0o777
        case (mode, content):
            info.mode = mode
            data = content.encode() if isinstance(content, str) else content
        case str() | bytes():
            info.mode = 0o644
            data = entry.encode() if isinstance(entry, str) else entry
    info.size = len(data)
    return info, data


def make(path: Path, tree: Tree, compressor: str = "zstd") -> Path:
    """Write the squashfs file PATH that holds TREE; the launcher itself serves only zstd."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, entry in tree.items():
            info, data = _member(name, entry)
            tar.addfile(info, io.BytesIO(data))
    subprocess.run(
        ["tar2sqfs", "-q", "-f", "-x", "-c", compressor, "-j", "1", path],
        input=stream.getvalue(),
        check=True,
        capture_output=True,
    )
    path.chmod(0o644)
    return path
