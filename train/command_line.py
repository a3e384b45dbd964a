"""What the commands of training have in common: their description, `--out`, and how a failure ends them."""

import argparse
import contextlib
import errno
import glob
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assistant.files import matching
from assistant.model.checkpoint import CheckpointError
from assistant.model.weights import WeightsError
from train.workers import WorkerError


def command_line(description: str | None, out: str = "", required: bool = True) -> argparse.ArgumentParser:
    """A command's arguments, its description the docstring of its file; `out` says what goes to `--out`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=required, help=out or "folder for what is written")
    return parser


class Files(argparse.Action):
    """For arguments that take several files: a pattern that the shell left as it is becomes the files it means."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Put what was meant in the place of what was given, as what it was given as."""
        meant = [[value] if not glob.has_magic(str(value)) else map(type(value), matching(value)) for value in values]
        setattr(namespace, self.dest, list(itertools.chain(*meant)))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A block, or a `main`, that fails for a reason that a person can mend ends the command with that reason alone."""
    try:
        yield
    except (CheckpointError, WeightsError, WorkerError, ValueError, OSError) as error:
        full = isinstance(error, OSError) and (error.errno == errno.ENOSPC or "No space left" in str(error))
        remedy = ". What was written before is whole: make room, and give the same command again." if full else ""
        raise SystemExit(f"{error}{remedy}") from error
