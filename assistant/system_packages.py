"""Packages of the operating system that something here can use: their names, and the command that installs them.

Standard library only, since it is asked before anything is installed.
"""

import shutil

# Names of a system package by package manager; absent where the wheel or the system brings it.
SYSTEM_PACKAGES: dict[str, dict[str, str]] = {
    "portaudio": {"apt-get": "libportaudio2", "dnf": "portaudio", "pacman": "portaudio", "brew": "portaudio"},
    "espeak-ng": {
        "apt-get": "espeak-ng",
        "dnf": "espeak-ng",
        "pacman": "espeak-ng",
        "brew": "espeak-ng",
        "winget": "eSpeak-NG.eSpeak-NG",
    },
    "venv": {"apt-get": "python3-venv"},
    "chromium": {
        "apt-get": "chromium",
        "dnf": "chromium",
        "pacman": "chromium",
        "brew": "--cask google-chrome",
        "winget": "Google.Chrome",
    },
}
COMMANDS = {
    "apt-get": "sudo apt install",
    "dnf": "sudo dnf install",
    "pacman": "sudo pacman -S",
    "brew": "brew install",
    "winget": "winget install",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser() -> str | None:
    """The Chromium (or Chrome) that the tests of the page can drive."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def chromium_advice() -> str | None:
    """How to get a browser for the tests; None when there is one."""
    return None if browser() else install_command("chromium")


def install_command(package: str) -> str:
    """The command that installs a system package on this machine, in words where its package manager is unknown."""
    for manager, name in SYSTEM_PACKAGES[package].items():
        if shutil.which(manager):
            return f"{COMMANDS[manager]} {name}"
    return f"install {package} with this system's package manager"
