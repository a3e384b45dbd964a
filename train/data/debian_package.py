"""A file out of a Debian package file, without installing it."""

import subprocess
import tempfile
from pathlib import Path


def read_from_package(package: Path, name: str) -> bytes:
    """Content of the file `name`. Raises OSError or subprocess.CalledProcessError when it cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "--extract", str(package), folder], check=True)
        return (Path(folder) / name).read_bytes()
