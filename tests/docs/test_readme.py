"""The README's tour, pasted into a shell beside a fresh demo, prints what the README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.server import free_port

ROOT = Path(__file__).parents[2]
_END = "--- end of step ---"
_SECONDS = 60


class Step(NamedTuple):
    """A block to paste, and the output the README shows for it."""

    commands: str
    output: str


def _tour() -> list[Step]:
    text = (ROOT / "README.md").read_text()
    section = text.split("## A two-minute tour\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```(sh|text)\n(.*?)```", section, re.DOTALL)
    steps: list[Step] = []
    for kind, body in blocks:
        if kind == "sh":
            steps.append(Step(body, ""))
        else:
            assert steps[-1].output == ""
            steps[-1] = steps[-1]._replace(output=body)
    return steps


def _pattern(shown: str) -> re.Pattern[str]:
    """What the README shows, where ``...``, with the blanks that fill its column, differs each time."""
    parts = re.split(r"\.\.\. *", shown)
    return re.compile(r"[^\n]+".join(re.escape(part) for part in parts))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[int]:
    """A demo as `make run` starts it, in a folder that has no data yet; its port."""
    port = free_port()
    binaries = tmp_path / ".venv" / "bin"
    binaries.parent.mkdir()
    binaries.symlink_to(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    log = tmp_path / "demo.out"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [".venv/bin/counterfoil", "demo"],
            cwd=tmp_path,
            env={**env, "COUNTERFOIL_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(_SECONDS)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour uses curl")
def test_tour(demo: int, tmp_path: Path) -> None:
    steps = _tour()
    assert len(steps) > 5
    env = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    # As pasted: one shell, line by line, with whatever one line leaves for the next.
    pasted = "".join(f"{step.commands}echo '{_END}'\n" for step in steps).replace(":8787", f":{demo}")
    done = subprocess.run(
        ["bash"], input=pasted, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.stderr == ""
    printed = done.stdout.split(f"{_END}\n")
    assert printed.pop() == ""
    assert len(printed) == len(steps)
    for step, text in zip(steps, printed, strict=True):
        assert _pattern(step.output).fullmatch(text), f"{step.commands}\nprinted:\n{text}\nshown:\n{step.output}"
