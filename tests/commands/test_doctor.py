"""`launch.py doctor`: what it says of a machine where something is missing, and the command it gives."""

import subprocess
import sys
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
