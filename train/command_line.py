"""What the commands of training have in common: their description, `--out`, and how a failure ends them."""

import argparse
import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from assistant.model.checkpoint import CheckpointError
from assistant.model.weights import WeightsError
from train.workers import WorkerError


def command_line(description: str | None, out: str = "", required: bool = True) -> argparse.ArgumentParser:
    """A command's arguments, its description the docstring of its file; `out` says what goes to `--out`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=required, help=out or "folder for what is written")
    return parser


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A block, or a `main`, that fails for a reason that a person can mend ends the command with that reason alone."""
    try:
        yield
    except (CheckpointError, WeightsError, WorkerError, ValueError, OSError) as error:
        full = isinstance(error, OSError) and (error.errno == errno.ENOSPC or "No space left" in str(error))
        remedy = ". What was written before is whole: make room, and give the same command again." if full else ""
        raise SystemExit(f"{error}{remedy}") from error
