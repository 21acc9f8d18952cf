#!/bin/sh
# Installs what the tests need beside Python packages: strace, for the tests of power loss and failing system calls;
# chromium, which is shown the page; openssl, for the fetcher's certificates; slowhttptest, for the long tests;
# PostgreSQL's server, of which the tests start one of their own.
set -eu

missing=
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-noto-cjk"
for tool in openssl slowhttptest; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing; install it with your system's package manager." >&2
    exit 1
fi
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    # Debian would make and start a server of its own.
    $as_root mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
# shellcheck disable=SC2086 - a list of packages
$as_root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
    $as_root apt-get update >/dev/null
    $as_root apt-get install -y --no-install-recommends $missing >/dev/null
}
