"""A CDI specification as lines of udiRoot.conf: what is done, what is not, and what is refused."""

import copy
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite import cdi
from shifter_lite.errors import BadConfig
from tests.conftest import Runner

Json = dict[str, Any]
LIBS = "/usr/lib/x86_64-linux-gnu"
RO = ["ro", "nosuid", "nodev", "rbind", "rprivate"]


def library(name: str, options: list[str] | None = None) -> Json:
    path = f"{LIBS}/{name}"
    return {"hostPath": path, "containerPath": path, "options": options or RO}


def hook(*args: str, path: str = "/usr/bin/nvidia-cdi-hook") -> Json:
    return {"hookName": "createContainer", "path": path, "args": ["nvidia-cdi-hook", *args]}


# As nvidia-ctk 1.17 writes it for a node of two GPUs, one of them in parts.
NVIDIA: Json = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {
            "name": "1:0",
            "containerEdits": {
                "deviceNodes": [
                    {"path": "/dev/nvidia1"},
                    {"path": "/dev/nvidia-caps/nvidia-cap30"},
                    {"path": "/dev/nvidia-caps/nvidia-cap31"},
                ]
            },
        },
        {
            "name": "all",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}],
                "hooks": [hook("chmod", "--mode", "755", "--path", "/dev/dri")],
            },
        },
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [
            {"path": "/dev/nvidiactl", "hostPath": "/dev/nvidiactl"},
            {"path": "/dev/nvidia-uvm", "permissions": "rw"},
        ],
        "hooks": [
            hook("create-symlinks", "--link", f"libcuda.so.1::{LIBS}/libcuda.so"),
            hook("enable-cuda-compat", "--host-driver-version=550.54.15"),
            hook("update-ldcache", "--folder", LIBS, "--folder", f"{LIBS}/vdpau"),
        ],
        "mounts": [
            library("libcuda.so.550.54.15"),
            library("libnvidia-ml.so.550.54.15"),
            library("vdpau/libvdpau_nvidia.so.550.54.15"),
            {
                "hostPath": "/run/nvidia-persistenced/socket",
                "containerPath": "/run/nvidia-persistenced/socket",
                "options": ["noexec", *RO],
            },
            {
                "hostPath": "/usr/bin/nvidia-smi",
                "containerPath": "/usr/bin/nvidia-smi",
                "options": ["ro", "bind"],
            },
        ],
    },
}
AMD: Json = {
    "cdiVersion": "0.6.0",
    "kind": "amd.com/gpu",
    "annotations": {"made.by": "amd-ctk"},
    "devices": [
        {
            "name": str(number),
            "annotations": {"number": str(number)},
            "containerEdits": {
                "deviceNodes": [
                    {"path": "/dev/kfd"},
                    {
                        "path": f"/dev/dri/renderD{128 + number}",
                        "type": "c",
                        "major": 226,
                        "minor": 128 + number,
                        "permissions": "rw",
                    },
                ],
                "env": [f"AMD_DEVICE_{number}=yes"],
            },
        }
        for number in range(2)
    ],
    "containerEdits": {"additionalGids": [44, 109]},
}
ALIASES = {
    f"{LIBS}/libcuda.so.550.54.15": [f"{LIBS}/libcuda.so.1"],
    f"{LIBS}/libnvidia-ml.so.550.54.15": [f"{LIBS}/libnvidia-ml.so.1"],
    f"{LIBS}/vdpau/libvdpau_nvidia.so.550.54.15": [],
}


def links(path: str) -> list[str]:
    return ALIASES[path]


def absent(path: str) -> list[str]:
    raise FileNotFoundError(path)


def module(spec: object, name: str = "", device: str = "all") -> list[str]:
    data = json.dumps(spec).encode()
    return cdi.module(data, "gpu.json", links, name=name, device=device).splitlines()


def setting(lines: list[str], key: str) -> str:
    (found,) = [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]
    return found


def changed(spec: Json, *path: str | int, to: object) -> Json:
    made = copy.deepcopy(spec)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return made


def test_nvidias_becomes_mounts_with_the_names_that_programs_look_for() -> None:
    mounts = setting(module(NVIDIA), "module_nvidia_siteFs").split(";")
    cuda, ml = f"{LIBS}/libcuda.so.550.54.15", f"{LIBS}/libnvidia-ml.so.550.54.15"
    vdpau = f"{LIBS}/vdpau/libvdpau_nvidia.so.550.54.15"
    assert mounts == [
        f"{cuda}:{cuda}:ro:rec",
        f"{ml}:{ml}:ro:rec",
        f"{vdpau}:{vdpau}:ro:rec",
        "/run/nvidia-persistenced/socket:/run/nvidia-persistenced/socket:ro:rec",
        "/usr/bin/nvidia-smi:/usr/bin/nvidia-smi:ro",
        # ldconfig would have made the first two, a hook the third, of the first.
        f"{cuda}:{LIBS}/libcuda.so.1:ro:rec",
        f"{ml}:{LIBS}/libnvidia-ml.so.1:ro:rec",
        f"{cuda}:{LIBS}/libcuda.so:ro:rec",
    ]


def test_the_loader_looks_into_the_folders_in_their_order() -> None:
    lines = module(NVIDIA)
    folders = f"LD_LIBRARY_PATH={LIBS}:{LIBS}/vdpau"
    assert setting(lines, "module_nvidia_siteEnvPrepend") == folders
    assert setting(lines, "module_nvidia_siteEnv") == "NVIDIA_VISIBLE_DEVICES=void"


def test_what_is_not_done_is_said() -> None:
    comments = [line for line in module(NVIDIA) if line.startswith("# not done: ")]
    assert len(comments) == 3
    assert "option noexec of the mount on /run/nvidia-persistenced/socket" in comments[0]
    assert "enable-cuda-compat --host-driver-version=550.54.15" in comments[1]
    assert "/usr/local/cuda/compat" in comments[1]
    assert "nvidia-cdi-hook chmod --mode 755 --path /dev/dri" in comments[2]


def test_one_device_is_taken_without_the_others() -> None:
    assert not any("chmod" in line for line in module(NVIDIA, device="1:0"))
    lines = module(AMD, device="1", name="rocm")
    assert lines[0] == "# amd.com/gpu, device '1', of gpu.json"
    assert lines[1] == "module_rocm_siteEnv=AMD_DEVICE_1=yes"
    with pytest.raises(BadConfig, match="there is no device '7'") as caught:
        module(NVIDIA, device="7")
    assert caught.value.hint == "there are: 0, 1:0, all"


def test_amds_devices_are_there_already_and_its_groups_are_the_nodes_affair() -> None:
    assert module(AMD) == [
        "# amd.com/gpu, device 'all', of gpu.json",
        "module_amd_siteEnv=AMD_DEVICE_0=yes AMD_DEVICE_1=yes",
        "# not done: additionalGids: users have the groups and resources that the node gives",
    ]


def test_device_nodes_that_are_not_there_are_said() -> None:
    nodes = [
        {"path": "/dev/a", "hostPath": "/run/driver/dev/a"},
        {"path": "/opt/b"},
        {"path": "/dev/c"},
    ]
    lines = module(changed(AMD, "containerEdits", to={"deviceNodes": nodes}))
    told = [line for line in lines if "device node" in line]
    assert len(told) == 2
    assert "/dev/a" in told[0]
    assert "/run/driver/dev/a" in told[0]
    assert "/opt/b" in told[1]


@pytest.mark.parametrize(
    ("host", "container"),
    [("/", "/host"), ("/x", "/"), ("/etc", "/etc"), ("/x", "/proc/driver/x"), ("/x", "/etc/group")],
)
def test_a_mount_that_the_launcher_refuses_is_said_and_the_others_are_made(
    host: str, container: str
) -> None:
    mounts = [
        {"hostPath": host, "containerPath": container},
        {"hostPath": "/x", "containerPath": "/etc/vulkan/icd.d"},
    ]
    lines = module(changed(AMD, "containerEdits", to={"mounts": mounts}))
    assert setting(lines, "module_amd_siteFs") == "/x:/etc/vulkan/icd.d"
    assert f"# not done: mount of {host} on {container}: the launcher does not allow it" in lines


def test_libraries_that_are_not_on_this_host_are_counted() -> None:
    lines = cdi.module(json.dumps(NVIDIA).encode(), "gpu.json", absent).splitlines()
    assert any("3 libraries that are not on this host" in line for line in lines)
    # Nothing leads to libcuda.so then.
    assert f"# not done: link {LIBS}/libcuda.so to {LIBS}/libcuda.so.1" in lines


@pytest.mark.parametrize("version", cdi._VERSIONS)
def test_every_version_from_0_3_on_is_known(version: str) -> None:
    assert module(changed(NVIDIA, "cdiVersion", to=version))


@pytest.mark.parametrize("version", ["0.2.0", "2.0.0", "1.0", "", "0.5.0\n"])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(BadConfig, match="is not known"):
        module(changed(NVIDIA, "cdiVersion", to=version))


@pytest.mark.parametrize(
    "path",
    [
        "relative",
        "",
        "/a;b",
        "/a:b",
        "/a b",
        "/a\nb",
        "/a\\",
        "/a\tb",
        "/a/../b",
        "/a\u2028b",
        "/a\ud800b",
        "/a\x1b",
        7,
        None,
        ["/a"],
    ],
)
def test_a_path_that_would_break_a_line_is_refused_with_its_place(path: object) -> None:
    for where in ("hostPath", "containerPath"):
        spec = changed(NVIDIA, "containerEdits", "mounts", 1, where, to=path)
        with pytest.raises(BadConfig, match=rf"gpu.json.containerEdits.mounts\[1\].{where}: "):
            module(spec)
    spec = changed(NVIDIA, "containerEdits", "deviceNodes", 0, "path", to=path)
    with pytest.raises(BadConfig, match=r"deviceNodes\[0\].path"):
        module(spec)
    if isinstance(path, str):
        edits = {"hooks": [hook("update-ldcache", f"--folder={path}")]}
        with pytest.raises(BadConfig, match=r"hooks\[0\].args"):
            module(changed(NVIDIA, "containerEdits", to=edits))


@pytest.mark.parametrize("env", ["A", "=a", "1A=b", "A B=c", "A\n=b"])
def test_what_is_no_variable_is_refused(env: str) -> None:
    with pytest.raises(BadConfig, match="not a variable"):
        module(changed(NVIDIA, "containerEdits", "env", to=[env]))


@pytest.mark.parametrize("value", ["a b", "a\nmodule_x_siteFs=/:/", "a\\", "\x1b[2J", "a\tb"])
def test_a_value_that_no_line_can_hold_is_said_on_one_line(value: str) -> None:
    lines = module(changed(NVIDIA, "containerEdits", "env", to=[f"A={value}", "B=c"]))
    assert setting(lines, "module_nvidia_siteEnv") == "B=c"
    (told,) = [line for line in lines if "# not done: A:" in line]
    assert not told.endswith("\\")
    assert told.isprintable()


@pytest.mark.parametrize("name", ["a_b", "none", "None", "a b", "a\n", "é", "-a", "x" * 33])
def test_a_name_that_no_module_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="not a module's name"):
        module(NVIDIA, name=name)


@pytest.mark.parametrize(
    "spec",
    [
        [],
        None,
        "text",
        {},
        changed(NVIDIA, "kind", to="gpu"),
        changed(NVIDIA, "kind", to=5),
        changed(NVIDIA, "devices", to={}),
        changed(NVIDIA, "devices", to={"a": 1}),
        changed(NVIDIA, "devices", 0, to="0"),
        changed(NVIDIA, "devices", 0, "name", to=0),
        changed(NVIDIA, "later", to=1),
        changed(NVIDIA, "containerEdits", to=[1]),
        changed(NVIDIA, "containerEdits", "later", to=1),
        changed(NVIDIA, "containerEdits", "env", to="A=b"),
        changed(NVIDIA, "containerEdits", "env", to=[1]),
        changed(NVIDIA, "containerEdits", "mounts", 0, "options", to="ro"),
        changed(NVIDIA, "containerEdits", "hooks", 0, "args", to=[[]]),
        changed(NVIDIA, "containerEdits", "hooks", 0, "path", to="hook"),
    ],
)
def test_what_is_no_specification_is_refused(spec: object) -> None:
    with pytest.raises(BadConfig):
        module(spec)


def test_yaml_is_refused_with_the_way_to_json() -> None:
    with pytest.raises(BadConfig, match="not JSON") as caught:
        cdi.module(b"cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n", "nvidia.yaml", links)
    assert "--format=json" in caught.value.hint
    with pytest.raises(BadConfig, match="not JSON"):
        cdi.module(b"[" * 100_000, "deep", links)


texts = st.text(max_size=12)


@given(
    st.lists(st.tuples(texts, texts), max_size=3),
    st.lists(texts, max_size=3),
    st.lists(texts, max_size=5),
)
def test_whatever_it_says_there_is_an_error_or_nothing_but_our_lines(
    mounts: list[tuple[str, str]], env: list[str], args: list[str]
) -> None:
    edits = {
        "mounts": [{"hostPath": f"/{a}", "containerPath": f"/{b}"} for a, b in mounts],
        "env": [f"A={each}" for each in env],
        "hooks": [{"hookName": "x", "path": "/x", "args": ["x", *args]}],
    }
    spec = {"cdiVersion": "0.5.0", "kind": "a.b/c", "devices": [{"name": "d"}]}
    try:
        made = module({**spec, "containerEdits": edits})
    except BadConfig:
        return
    for line in made:
        assert line.isprintable()
        assert not line.endswith("\\")
        assert line.startswith(("# ", "module_a_siteFs=/", "module_a_siteEnv"))


def test_the_program_finds_the_names_that_libraries_have_on_the_host(run: Runner) -> None:
    libs = run.home / "libs"
    libs.mkdir()
    (libs / "libcuda.so.550").write_bytes(b"\x7fELF")
    (libs / "libcuda.so.1").symlink_to("libcuda.so.550")
    (libs / "libcuda.so").symlink_to("libcuda.so.1")
    (libs / "libother.so.1").symlink_to("/etc/passwd")
    (libs / "broken.so.1").symlink_to("nowhere")
    mount = {"hostPath": f"{libs}/libcuda.so.550", "containerPath": "/host/libcuda.so.550"}
    hooks = [hook("update-ldcache", "--folder", "/host")]
    spec = changed(NVIDIA, "containerEdits", to={"mounts": [mount], "hooks": hooks})
    file = run.home / "gpu.json"
    file.write_text(json.dumps(spec))
    for path in (libs, file):
        os.chmod(path, 0o755)
    done = run("shifter-admin", "module", "from-cdi", file, "--name", "cuda", "--device", "0")
    assert (done.returncode, done.stderr) == (0, "")
    here = f"{libs}/libcuda.so.550:/host/libcuda.so"
    assert done.stdout.splitlines()[1:] == [
        f"module_cuda_siteFs={here}.550;{here};{here}.1",
        "module_cuda_siteEnvPrepend=LD_LIBRARY_PATH=/host",
    ]


def test_the_program_says_what_it_cannot_read(run: Runner) -> None:
    done = run("shifter-admin", "module", "from-cdi", "/absent.json")
    assert done.returncode == 78
    assert "cannot read '/absent.json'" in done.stderr
