"""`launch.py doctor`: what it says of a machine where something is missing, and the command it gives."""

import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from assistant.commands import doctor
from assistant.commands.environment import Environment
from assistant.files import ROOT


def test_doctor_passes_only_when_nothing_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optional = doctor.Finding(doctor.OPTIONAL, "microphone", "missing", "get it")
    for name in ("machine", "sound"):
        monkeypatch.setattr(doctor, name, lambda: iter([optional]))
    monkeypatch.setattr(doctor, "models", lambda environment: iter([]))
    assert doctor.report(Environment()) == 0
    assert "→ get it" in capsys.readouterr().out
    broken = doctor.Finding(doctor.BROKEN, "torch", "does not load")
    monkeypatch.setattr(doctor, "machine", lambda: iter([broken]))
    assert doctor.report(Environment()) == 1
    assert "1 thing to mend" in capsys.readouterr().out


def test_doctor_names_missing_packages_and_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("surely-not-installed==1\n")
    *_, packages = doctor.packages(Environment(tmp_path))
    assert packages.mark == doctor.BROKEN
    assert "surely-not-installed" in packages.found
    assert "launch.py" in str(packages.remedy)


def test_doctor_survives_a_missing_sound_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    findings = {finding.what: finding for finding in doctor.sound()}
    assert findings["microphone"].mark == doctor.OPTIONAL
    assert findings["microphone"].remedy == "sudo apt install libportaudio2"


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "sudo apt install chromium"),
        ("dnf", "sudo dnf install chromium"),
        ("pacman", "sudo pacman -S chromium"),
        ("brew", "brew install --cask google-chrome"),
        ("winget", "winget install Google.Chrome"),
        ("none of them", "install chromium with this system's package manager"),
    ],
)
def test_doctor_gives_the_command_of_this_system(monkeypatch: pytest.MonkeyPatch, manager: str, command: str) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == manager else None)
    assert doctor.chromium_advice() == command


def test_doctor_runs_for_real() -> None:
    run = subprocess.run(
        [sys.executable, "launch.py", "doctor"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert run.returncode == (1 if "✗" in run.stdout.split("Tests and training")[0] else 0)
    assert "torch 2.13.0" in run.stdout
    assert "Traceback" not in run.stderr


# What can be wrong with a machine ----------------------------------------------------------------------------------


def by_name(findings: Iterable[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in findings}


@pytest.mark.parametrize(
    ("value", "mark", "shown"),
    [
        ("http://ann:secret@proxy.corp:3128", doctor.GOOD, "http_proxy=http://proxy.corp"),
        ("proxy.corp:3128", doctor.GOOD, "http_proxy=http://proxy.corp"),
        ("socks5h://127.0.0.1:1080", doctor.OPTIONAL, "http_proxy=socks5h://127.0.0.1"),
        ("::::", doctor.OPTIONAL, "http_proxy=http://?"),
        ("http://[::1", doctor.OPTIONAL, "http_proxy=?"),
    ],
)
def test_doctor_names_a_proxy_and_keeps_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str, mark: str, shown: str
) -> None:
    monkeypatch.setattr(doctor, "ways_out", lambda: {"http_proxy": value, "no_proxy": "localhost"})
    found = by_name(doctor.network())["proxy"]
    assert found.mark == mark and found.found.startswith(shown + ":") and "secret" not in found.found


@pytest.mark.parametrize(
    ("host", "secure", "environment", "advice"),
    [
        (None, False, {}, None),
        ("localhost", False, {}, None),
        ("192.168.0.7", True, {}, None),
        ("192.168.0.7", False, {}, "--certificate FILE --key FILE, or ssh -L 7860:127.0.0.1:7860"),
        ("0.0.0.0", False, {}, "--certificate FILE --key FILE, or ssh -L 7860:127.0.0.1:7860"),
        (None, False, {"SSH_CONNECTION": "1 2 3 4"}, "ssh -L 7860:127.0.0.1:7860"),
    ],
)
def test_doctor_knows_where_a_browser_cannot_get_the_microphone(
    monkeypatch: pytest.MonkeyPatch, host: str | None, secure: bool, environment: dict[str, str], advice: str | None
) -> None:
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = by_name(doctor.network(host, secure))["browser's microphone"]
    assert (found.mark, found.remedy is None) == ((doctor.OPTIONAL, False) if advice else (doctor.GOOD, True))
    assert advice is None or str(found.remedy).startswith(advice)


@pytest.mark.parametrize(
    ("size", "free", "mark", "said"),
    [
        (2, 1, doctor.BROKEN, "2.0 GiB; the page needs 3 GiB"),
        (8, 1, doctor.OPTIONAL, "1.0 GiB of 8 free; the page needs 3 GiB"),
        (8, 7, doctor.GOOD, "8 GiB"),
        (None, None, None, ""),
    ],
)
def test_doctor_says_how_much_memory_is_needed(
    monkeypatch: pytest.MonkeyPatch, size: int | None, free: int | None, mark: str | None, said: str
) -> None:
    monkeypatch.setattr(doctor, "_importable", lambda module: False)
    for name, value in (("memory_size", size), ("memory_free", free)):
        monkeypatch.setattr(doctor, name, lambda value=value: None if value is None else value * 2**30)
    found = by_name(doctor.machine()).get("memory")
    assert (found and found.mark, found.found if found else "") == (mark, said)


def test_doctor_sees_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "unlimited").write_text("max\n")
    monkeypatch.setattr(doctor, "LIMITS", [tmp_path / "absent", tmp_path / "unlimited", tmp_path / "memory.max"])
    assert doctor.memory_size() == 2**30


def test_doctor_says_how_much_disk_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=2**29))
    monkeypatch.setattr(doctor, "_importable", lambda module: False)
    found = by_name(doctor.models(Environment(tmp_path)))
    assert {name: found[name].found for name in ("disk", "temporary folder")} == {
        "disk": "0.5 GiB free, 8 needed",
        "temporary folder": "0.5 GiB free, 2 needed",
    }
    assert "TMPDIR" in str(found["temporary folder"].remedy) and found["disk"].mark == doctor.BROKEN


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A finished `.venv` for this Python, seen from another one that lacks the packages."""
    (tmp_path / "assets").mkdir()
    models = '[whisper-base.packages]\n["qwen2.5-coder-0.5b-instruct".packages]\n'
    (tmp_path / "assets" / "models.toml").write_text(models)
    (tmp_path / "requirements.txt").write_text("surely-not-installed==1\n")
    made = Environment(tmp_path)
    (made.folder / "bin").mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    cfg = f"home = /usr/bin\nversion = {version}\ncommand = /usr/bin/python3 -m venv --clear {made.folder}\n"
    (made.folder / "pyvenv.cfg").write_text(cfg)
    (made.folder / "earshot-runtime.stamp").write_text(made.fingerprint("runtime"))
    return made


def test_a_venv_that_is_right_is_said_to_be(venv: Environment) -> None:
    assert [finding.mark for finding in doctor.prepared(venv)] == [doctor.GOOD]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize(
    ("harm", "mark", "said"),
    [
        (
            lambda made: (made.root / "requirements.txt").write_text("x==2\n"),
            doctor.OPTIONAL,
            "requirements have changed",
        ),
        (lambda made: (made.folder / "earshot-runtime.stamp").unlink(), doctor.OPTIONAL, "is not finished"),
        (lambda made: relink(made.python, "/nowhere/python"), doctor.BROKEN, "is gone: /usr/bin"),
        (lambda made: relink(made.python, "/bin/false"), doctor.BROKEN, "none that starts now"),
        (
            lambda made: reword(made, sys.version.split()[0], "3.9.1"),
            doctor.BROKEN,
            "made with Python 3.9, and is run by",
        ),
        (
            lambda made: reword(made, str(made.folder), "/old/.venv"),
            doctor.OPTIONAL,
            "was made as /old/.venv and moved",
        ),
        (lambda made: shutil.rmtree(made.folder), doctor.GOOD, "not there yet"),
    ],
)
def test_a_stale_venv_is_recognised(
    venv: Environment, harm: Callable[[Environment], None], mark: str, said: str
) -> None:
    harm(venv)
    (found,) = doctor.prepared(venv)
    assert found.mark == mark and said in found.found and bool(found.remedy) == (mark != doctor.GOOD)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def reword(made: Environment, old: str, new: str) -> None:
    cfg = made.folder / "pyvenv.cfg"
    cfg.write_text(cfg.read_text().replace(old, new))
