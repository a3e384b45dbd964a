"""Executes the commands of README.md in a form that a small machine can afford; an unknown command fails."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.files import ROOT

START_LIMIT = 120  # seconds a page may take to answer here; the test machine may be busy, and converts weights once
RUN_LIMIT = 600  # seconds for any other command


def commands(text: str) -> list[str]:
    """The commands in the ```bash blocks of a Markdown text: comments and prompts left out, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    stripped = [" ".join(shlex.split(line, comments=True)) and line.strip().removeprefix("$ ") for line in lines]
    return [line for line in stripped if line]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in the repository, and see it succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=RUN_LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def open_page(arguments: list[str], folder: Path) -> None:
    """Start the page on a free port, wait until it answers, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "page.log"
    command = [sys.executable, "launch.py", *arguments, "--no-browser", "--port", str(port)]
    with log.open("w") as output:
        page = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        give_up = time.monotonic() + START_LIMIT
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert "Earshot" in answer.read().decode("utf-8")
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert page.poll() is None, f"the page ended:\n{log.read_text()}"
                assert time.monotonic() < give_up, f"the page did not answer:\n{log.read_text()}"
                time.sleep(0.5)
    finally:
        page.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        try:
            page.wait(20)
        except subprocess.TimeoutExpired:
            page.kill()
            page.wait()


def collect_tests(arguments: list[str], folder: Path) -> None:
    """Collect instead of running: the run that this is part of already does that."""
    done = run("launch.py", "test", *arguments, "--collect-only", "-q")
    assert "test_readme.py" in done.stdout


def ask(arguments: list[str], folder: Path) -> None:
    """As written."""
    done = run("launch.py", "ask", *arguments)
    assert done.stdout.strip()
    if "--json" in arguments:
        assert all("lanes" in json.loads(line) for line in done.stdout.splitlines())


def bench(arguments: list[str], folder: Path) -> None:
    """On the smallest of the clips only, and with a short reply."""
    given = arguments and not arguments[0].startswith("-")
    clips = ROOT / (arguments[0] if given else "assets/samples")
    smallest = min((clip for clip in clips.rglob("*") if clip.suffix in (".wav", ".flac", ".opus")), key=_size)
    shutil.copy(smallest, folder)
    short = [] if "--instruction" in arguments else ["--instruction", "Repeat what was said."]
    done = run("launch.py", "bench", str(folder), *arguments[bool(given) :], *short)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["clips"] == 1
    assert all(lane["first_token"]["median"] > 0 for lane in result["lanes"].values())


def doctor(arguments: list[str], folder: Path) -> None:
    """As written: it must find that the page can run."""
    assert "The page can run" in run("launch.py", "doctor", *arguments).stdout


def module_help(module: str, arguments: list[str]) -> None:
    """A training command is not run, but its module must exist and know every option."""
    shown = run("-m", module, "--help").stdout
    for option in (argument.split("=")[0] for argument in arguments if argument.startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", shown), f"{module} has no option {option}"


def _size(path: Path) -> int:
    return path.stat().st_size


LAUNCHER: dict[str, Callable[[list[str], Path], None]] = {
    "test": collect_tests,
    "ask": ask,
    "bench": bench,
    "doctor": doctor,
}


def exercise(command: str, folder: Path) -> None:
    """Do what the command does, as far as affordable.

    Raises
    ------
    ValueError
        Nobody taught this test how; a command that is never run may not work.
    """
    match shlex.split(command, comments=True):
        case ["python" | "python3", "launch.py"]:
            open_page([], folder)
        case ["python" | "python3", "launch.py", option, *rest] if option.startswith("-"):
            open_page([option, *rest], folder)
        case ["python" | "python3", "launch.py", name, *rest] if name in LAUNCHER:
            LAUNCHER[name](rest, folder)
        case ["python" | "python3" | ".venv/bin/python", "-m", module, *rest] if module.startswith("train."):
            module_help(module, rest)
        case ["git", "clone", *_] | ["cd", _]:
            pass  # getting here is what they are for
        case _:
            raise ValueError(f"README.md has a command that no test exercises: {command}")


README = ROOT / "README.md"
FOUND = list(dict.fromkeys(commands(README.read_text("utf-8")))) if README.is_file() else []


@pytest.mark.parametrize("command", FOUND)
@pytest.mark.weights
def test_command_of_the_readme(command: str, tmp_path: Path) -> None:
    exercise(command, tmp_path)


@pytest.mark.parametrize("command", ["python launch.py", "python launch.py test"])
def test_readme_has_the_two_commands(command: str) -> None:
    assert command in [found.partition("#")[0].strip() for found in FOUND]


def test_commands_are_read_from_bash_blocks_only() -> None:
    text = "```bash\n# a comment\n$ python launch.py  # why\npython a \\\n  b\n\n```\n```\nnot this\n```\n"
    assert [" ".join(shlex.split(command, comments=True)) for command in commands(text)] == [
        "python launch.py",
        "python a b",
    ]


@pytest.mark.parametrize("command", ["rm -rf /", "python launch.py sing", "python other.py", "python -m antigravity"])
def test_unknown_command_fails(command: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no test exercises"):
        exercise(command, tmp_path)
