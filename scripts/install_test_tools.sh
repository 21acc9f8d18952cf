#!/bin/sh
# Installs what the tests need beside Python packages: strace, for the tests of power loss and failing system calls;
# chromium, which is shown the page; openssl, for the fetcher's certificates; slowhttptest, for the long tests.
set -eu

missing=
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-noto-cjk"
for tool in openssl slowhttptest; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing; install it with your system's package manager." >&2
    exit 1
fi
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
# shellcheck disable=SC2086 - a list of packages
$as_root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
    $as_root apt-get update >/dev/null
    $as_root apt-get install -y --no-install-recommends $missing >/dev/null
}
