# shellcheck shell=bash
# shellcheck disable=SC2034  # those who source this use the lists
# What the scripts need of a machine, brought about if it is missing.  Sourced from the clone's root.

building=(gcc libc6-dev libzstd-dev make musl-dev python3 python3-venv)
running=(squashfuse)
serving=(docker-registry mmdebstrap)
testing=(apparmor busybox-static charliecloud-runtime e2fsprogs fakeroot fuse3 glusterfs-client munge openssl rsync shellcheck skopeo slurm-wlm squashfs-tools squashfs-tools-ng strace tinycdb umoci xfsprogs)
comparing=(bubblewrap charliecloud-builders podman)
# mmdebstrap of an ordinary user needs user namespaces with many ids.
((UID == 0)) || serving+=(uidmap)

# The venv must be readable for the ordinary users that root's tests make.
umask 022

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# as_root COMMAND...
as_root() {
    if ((UID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root must do this first: $*"
    fi
}

# packages NAME...: install those that are missing, and start none of their services.
packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || fail "this needs Debian 12, or one of its kind"
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) == *" installed" ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    echo "installing: ${missing[*]}" >&2
    as_root bash -s -- "${missing[@]}" <<'EOF' || fail "cannot install ${missing[*]}"
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
new=()
for service in docker-registry munge slurmctld slurmd; do
    [[ -e /lib/systemd/system/$service.service ]] || new+=("$service")
done
# Some other source than Debian may be broken; what is really missing, installing says.
apt-get -qq update </dev/null || true
apt-get -qq install --no-install-recommends "$@" </dev/null >/dev/null
for service in "${new[@]}"; do
    if [[ -d /run/systemd/system && -e /lib/systemd/system/$service.service ]]; then
        systemctl --quiet disable "$service"
    fi
done
EOF
}

# open_fuse: let ordinary users mount images.
open_fuse() {
    [[ -e /dev/fuse ]] || as_root modprobe fuse 2>/dev/null || true
    [[ -e /dev/fuse ]] || fail "there is no /dev/fuse on this machine: the kernel's fuse module is missing"
    if ((UID == 0)); then
        chmod 666 /dev/fuse
    elif [[ ! -r /dev/fuse || ! -w /dev/fuse ]]; then
        fail "you may not use /dev/fuse: ask root for chmod 666 /dev/fuse"
    fi
}

# cache: print the directory of what is kept between runs, as tests/helpers/debian.py has it.
cache() {
    echo "${SHIFTER_TEST_CACHE:-/var/tmp/shifter-lite-tests-$UID}"
}

# venv_place: print where the venv belongs: in the clone, unless ordinary users cannot go there.
venv_place() {
    local kept
    if ((UID != 0)) || setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$PWD/pyproject.toml"; then
        echo "$PWD/.venv"
        return
    fi
    kept=$(cache)
    mkdir -p "$kept"
    [[ -O $kept && ! -L $kept ]] || fail "$kept is not ours: remove it, or set SHIFTER_TEST_CACHE"
    echo "$kept/venv"
}

# install_into VENV [EXTRA]: make or refresh VENV, with this clone's state installed in it.
install_into() {
    local venv=$1 extra=${2:-} python stamp
    python=$(find_python)
    stamp="$venv $extra $python $("$python" -V) $(sha256sum <pyproject.toml)"
    if [[ $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]]; then
        "$venv/bin/pip" install -qq --no-deps --force-reinstall . || fail "cannot install this clone"
        return
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python cannot make a venv: install python3-venv"
    "$venv/bin/pip" install -qq ".$extra" || fail "cannot install this clone"
    echo "$stamp" >"$venv/stamp"
}

# find_python: print one that is new enough; Debian's own one, which every user can run, first.
find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3; do
        if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "no python3 of at least 3.11 that can make a venv: set PYTHON to one"
}
