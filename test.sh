#!/bin/sh
# Sets up what the tests need, then runs them; arguments go to pytest. With --deep first, the long variants instead.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
case ${1:-} in
    -h | --help)
        printf '%s\n' "Usage: ./test.sh [--deep] [ARGUMENTS OF pytest]" "" \
            "Sets up .venv with the 'dev' extra, then runs the tests on three processes: they often wait for a server." \
            "  --deep   the long variants instead; results go to build/deep-results.md"
        exit 0 ;;
esac

. "$root/scripts/find_python.sh"
find_python
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
# Some machines forbid bytecode files; without them every server and worker that a test starts compiles its imports again.
unset PYTHONDONTWRITEBYTECODE
cd "$root"
if [ "${1:-}" != --deep ]; then
    exec "$python" -I -S scripts/setup --quiet --extras dev -- pytest -n 3 --dist loadgroup --no-loadscope-reorder "$@"
fi

shift
mkdir -p build
status=0
"$python" -I -S scripts/setup --quiet --extras dev -- \
    pytest -m deep --timeout 3600 --junitxml build/deep-results.xml "$@" || status=$?
.venv/bin/python scripts/deep_results.py build/deep-results.xml build/deep-results.md || true
exit "$status"
