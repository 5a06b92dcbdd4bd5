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

fuse=/dev/fuse fuse_lock='' fuse_kept=/run/shifter-lite-fuse-mode

# open_fuse: let ordinary users mount images, until close_fuse.
open_fuse() {
    local mode
    [[ -e $fuse ]] || as_root modprobe fuse 2>/dev/null || true
    [[ -e $fuse ]] || fail "there is no $fuse on this machine: the kernel's fuse module is missing"
    if ((UID != 0)); then
        [[ -r $fuse && -w $fuse ]] || fail "you may not use $fuse: ask root for chmod 666 $fuse"
        return
    fi
    # Shared by all who need it: the last one of them closes it.
    exec {fuse_lock}>>"$fuse_kept"
    flock -s "$fuse_lock"
    mode=$(stat -c %a "$fuse")
    [[ $mode == 666 ]] || echo "$mode" >"$fuse_kept"
    chmod 666 "$fuse"
}

# close_fuse: give /dev/fuse the mode that it had, unless another script still needs it.
close_fuse() {
    [[ -n $fuse_lock ]] || return 0
    if flock -n -x "$fuse_lock"; then
        [[ ! -s $fuse_kept ]] || chmod "$(cat "$fuse_kept")" "$fuse"
        rm -f "$fuse_kept"
    fi
    exec {fuse_lock}>&-
    fuse_lock=''
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

# install_into VENV [dev]: make or refresh VENV, with this clone's state installed in it.  All that
# comes from elsewhere is locked, with hashes (scripts/lock), and nothing is installed elsewhere.
install_into() {
    local venv=$1 locked=scripts/lib/requirements${2:+-$2}.txt python stamp
    python=$(find_python)
    stamp="$venv $python $("$python" -V) $(cat pyproject.toml "$locked" | sha256sum)"
    if [[ $(cat "$venv/stamp" 2>/dev/null) != "$stamp" ]]; then
        rm -rf "$venv"
        "$python" -m venv "$venv" || fail "$python cannot make a venv: install python3-venv"
        "$venv/bin/pip" install -qq --require-hashes --only-binary :all: -r "$locked" ||
            fail "cannot install what this clone needs"
    fi
    "$venv/bin/pip" install -qq --no-deps --no-build-isolation --force-reinstall . ||
        fail "cannot install this clone"
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
