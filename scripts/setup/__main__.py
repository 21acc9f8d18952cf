"""Set up the checkout's virtual environment if need be, then run a program of it.

    python -I scripts/setup [--extras dev] [--repair] [--quiet] [-- PROGRAM ARGUMENTS…]

The one piece of set-up code behind launch.sh, launch.ps1, test.sh and .ci/run. It needs Python 3.11 and nothing else.
Everything it says goes to stderr. A start with nothing to do costs some hundredths of a second.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]

from console import SetupError, banner, done, fail, is_terminal, say, warn  # noqa: E402
from environment import Environment, Stamp  # noqa: E402


def main() -> int:
    options = _options()
    environment = Environment(ROOT)
    signal.signal(signal.SIGTERM, _stop)
    try:
        stamp = _complete_stamp(environment, options)
        if stamp is None:
            stamp = _set_up_alone(environment, options)
        elif is_terminal() and not options.quiet:
            say(f"Wanreel · {stamp.summary} · data in {os.environ.get('WANREEL_DATA_DIR', ROOT)}")
    except SetupError as error:
        fail(str(error), error.cure)
        return 1
    except KeyboardInterrupt:
        fail("Stopped.", "run the same again: the set-up goes on where it stopped.")
        return 130
    return _run(environment, options.command) if options.command else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/setup", description="Set up .venv, then run a program of it.")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml, separated by commas")
    parser.add_argument("--repair", action="store_true", help="make .venv anew")
    parser.add_argument("--quiet", action="store_true", help="say nothing when there is nothing to do")
    own, dashes, command = _split(sys.argv[1:])
    options = parser.parse_args(own)
    options.command = command if dashes else []
    return options


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


def _wanted(options: argparse.Namespace) -> set[str]:
    return {extra for extra in options.extras.split(",") if extra}


def _complete_stamp(environment: Environment, options: argparse.Namespace) -> Stamp | None:
    """The stamp when nothing is to be done."""
    stamp = None if options.repair else environment.stamp()
    if stamp is None or stamp.fingerprint != environment.fingerprint() or not _wanted(options) <= set(stamp.extras):
        return None
    from torch_build import signs_of_gpu

    return stamp if stamp.gpu == signs_of_gpu() and environment.python.exists() else None


def _set_up_alone(environment: Environment, options: argparse.Namespace) -> Stamp:
    """Set up with the lock held, so that of several starts one works and the others wait."""
    sys.path.insert(0, str(ROOT / "src"))
    from wanreel.host import FileLock

    lock = FileLock(ROOT / ".venv.lock")
    if not lock.acquire():
        say("Another start is setting up; waiting for it.")
        while not lock.acquire():
            time.sleep(0.2)
        options.repair = False
    try:
        return _complete_stamp(environment, options) or _set_up(environment, options)
    finally:
        lock.release()


def _set_up(environment: Environment, options: argparse.Namespace) -> Stamp:
    import torch_build

    begun = time.monotonic()
    banner()
    gpu = torch_build.find_gpu()
    say(f"Python {sys.version.split()[0]} · " + (", ".join(gpu.names) if gpu else "no NVIDIA GPU: torch for the CPU"))
    system_torch = torch_build.usable_system_torch(ROOT) if gpu else None
    if system_torch:
        done(f"The system's {system_torch} works with the GPU and is used.")
    former = environment.stamp()
    extras = _wanted(options) | set(former.extras if former else [])
    environment.prepare(anew=options.repair, system_packages=system_torch is not None)
    torch = torch_build.ensure(environment, gpu)
    say("Installing Wanreel and what it needs" + (f" ({', '.join(sorted(extras))})." if extras else "."))
    environment.install(extras, torch.version)
    _check(environment, torch.version)
    summary = f"{torch}" + (f" · {', '.join(gpu.names)}" if gpu else "")
    stamp = Stamp(environment.fingerprint(), str(ROOT), sorted(extras), torch_build.signs_of_gpu(), summary)
    environment.write_stamp(stamp)
    done(f"Ready after {time.monotonic() - begun:.0f} s: {summary}.")
    say(f"Results, weights and settings: {os.environ.get('WANREEL_DATA_DIR', ROOT)}")
    return stamp


def _check(environment: Environment, torch: str) -> None:
    """See that what was installed is there and that torch is still the same. Raises SetupError."""
    program = "import torch, av, PIL, diffusers, wanreel; print(torch.__version__)"
    found = environment.answer("-c", program)
    if found is None or found.splitlines()[-1] != torch:
        raise SetupError("What was installed does not work together.", "./launch.sh --repair makes .venv anew.")
    if environment.run("-m", "pip", "check", "--quiet") != 0:
        warn("Some packages do not agree on versions, as said above.", "./launch.sh --repair if anything fails.")


def _run(environment: Environment, command: list[str]) -> int:
    program = environment.scripts / command[0]
    if os.name == "nt":
        return subprocess.run([f"{program}.exe", *command[1:]], check=False).returncode
    # The program takes this process's place, so that signals and the exit status are its own.
    os.execv(program, [str(program), *command[1:]])


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
