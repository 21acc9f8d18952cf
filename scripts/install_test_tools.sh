#!/bin/sh
# Installs what the tests need beside Python packages: strace, for the tests of power loss and failing system calls.
set -eu

command -v strace >/dev/null 2>&1 && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "strace is missing; install it with your system's package manager." >&2
    exit 1
fi
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
$as_root apt-get install -y --no-install-recommends strace >/dev/null 2>&1 || {
    $as_root apt-get update >/dev/null
    $as_root apt-get install -y --no-install-recommends strace >/dev/null
}
