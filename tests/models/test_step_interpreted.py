"""Our own kernels without a GPU: their tests by Triton's interpreter, from a Triton of their own, as torch for CPUs has none.

Triton 3.7 is what torch 2.13 for GPUs brings; 3.9's interpreter takes no masks that are numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("test_step_passes.py")


@pytest.mark.deep
def test_the_interpreter_agrees_with_torch(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path), "triton==3.7.1"], check=True)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", str(TESTS)],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"^(\d+) passed", ran.stdout, re.MULTILINE)
    assert ran.returncode == 0 and passed and int(passed[1]) >= 13 and "skipped" not in ran.stdout, ran.stdout[-3000:]
