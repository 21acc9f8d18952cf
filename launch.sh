#!/bin/sh
# Sets up what Wanreel needs, then passes its arguments on to `wanreel`. Linux and macOS; launch.ps1 is for Windows.
set -eu

usage() {
    cat <<'EOF'
Usage: ./launch.sh [--repair | --setup-only] [OPTIONS OF THE PAGE | COMMAND OF wanreel …]

Sets up .venv in this folder (the first time, and when the project file changed). Then it serves the page and opens it
in a browser, or runs a command.

  ./launch.sh                         the page, for this machine
  ./launch.sh --share                 the page, from everywhere: makes a key and prints the address
  ./launch.sh --host 0.0.0.0          the page, for your network: makes a key and prints a sign-in link
  ./launch.sh generate photo.jpg "the camera slowly pushes in"
  ./launch.sh --ray                   the page and the API on a Ray cluster, with workers for text and for pictures
  ./launch.sh doctor                  what this machine has, and what to fix
  ./launch.sh serve --help            all options of the page
  ./launch.sh generate --help         all options of a command

  --port PORT  --localhost  --models-dir FOLDER  --auto-load [MODEL]  --no-auto-load  --workers N  --multi-gpu
  --no-open  --no-color  --quiet      see `./launch.sh serve --help`
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
    --version | --server | --server=*) ;;
    --ray) shift; set -- cluster up --with-ui "$@" ;;
    '' | -*) set -- serve "$@" ;;
esac
extras=
if [ "$1" = serve ]; then
    shift
    # What comes after wins: --no-open, --no-create-key.
    set -- serve --open --create-key "$@"
    extras='--extras ui'
    case " $* " in *' --quiet '*) extras="$extras --quiet" ;; esac
elif [ "$1" = cluster ]; then
    extras='--extras ray,ui'
fi
exec "$python" -I -S "$root/scripts/setup" $repair $extras -- wanreel "$@"
