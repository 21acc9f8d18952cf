#!/bin/sh
# Sets up what Wanreel needs, then passes its arguments on to `wanreel`. Linux and macOS; launch.ps1 is for Windows.
set -eu

usage() {
    cat <<'EOF'
Usage: ./launch.sh [--repair | --setup-only] [ARGUMENTS OF wanreel]

Sets up .venv in this folder (the first time, and when the project file changed), then runs wanreel.

  ./launch.sh generate photo.jpg "the camera slowly pushes in"
  ./launch.sh doctor                  what this machine has, and what to fix
  ./launch.sh generate --help         all options of a command

  --help          this text
  --setup-only    set up and stop
  --repair        make .venv anew, then go on

Variables:
  WANREEL_PYTHON    the Python to use; otherwise the newest fit one from 3.11 on
  WANREEL_TORCH     what pip shall install as torch, such as 'torch==2.13.0'; otherwise what fits this machine.
                    A torch that works is never replaced.
  WANREEL_DATA_DIR  where outputs/, models/ and settings lie; otherwise this folder
  NO_COLOR          no colours
EOF
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
repair=
case ${1:-} in
    -h | --help) usage; exit 0 ;;
    --repair) repair=--repair; shift ;;
esac

. "$root/scripts/find_python.sh"
find_python
export WANREEL_DATA_DIR="${WANREEL_DATA_DIR:-$root}"
case ${1:-} in
    --setup-only) exec "$python" -I -S "$root/scripts/setup" $repair ;;
    '') set -- --help ;;
esac
exec "$python" -I -S "$root/scripts/setup" $repair -- wanreel "$@"
