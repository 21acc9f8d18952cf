# Sourced by launch.sh, test.sh and .ci/run, which set `root`. Sets `python` to one that can run scripts/setup.

# Fit: 3.11 or newer, and able to make a virtual environment. Running it is the only sure test: a name may lead nowhere.
fit() {
    "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

has_torch() {
    "$1" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' >/dev/null 2>&1
}

no_python() {
    printf '%s\n' "$1" "  Cure: $2" >&2
    exit 1
}

find_python() {
    python="$root/.venv/bin/python"
    if [ -z "${WANREEL_PYTHON:-}" ] && [ -f "$root/.venv/wanreel-setup.json" ] && "$python" -I -S -c '' 2>/dev/null; then
        return
    fi
    if [ -n "${WANREEL_PYTHON:-}" ]; then
        python=$WANREEL_PYTHON
        fit "$python" || no_python "WANREEL_PYTHON=$python is no Python 3.11 or newer that can make a virtual environment." \
            "set it to another one, or unset it."
        return
    fi
    python=
    for name in python3.13 python3.12 python3.11 python3 python; do
        command -v "$name" >/dev/null 2>&1 && fit "$name" || continue
        # One that comes with torch (a GPU image) goes before one that is merely newer.
        if has_torch "$name"; then
            python=$name
            return
        fi
        python=${python:-$name}
    done
    [ -n "$python" ] || no_python "No Python 3.11 or newer was found that can make a virtual environment." \
        "Debian/Ubuntu: sudo apt install python3 python3-venv · macOS: brew install python · or set WANREEL_PYTHON."
}
