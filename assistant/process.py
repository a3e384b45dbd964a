"""All that Earshot sets for its whole process: nothing else in the tree touches what other code in it can see."""

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from assistant.files import cache_directory

# Held while a lane works: two visitors, or two lanes, would otherwise be timed while they slow each other down.
MACHINE = threading.Lock()

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
ALIVE = "alive"  # the file in a folder of our own that its process keeps locked
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # never behind a proxy
NO_PROXY = dict.fromkeys(("no_proxy", "NO_PROXY"), "*")

_loading = threading.Lock()
_ways_out: dict[str, str] = {}  # the proxies and certificates that the person's environment names
_outward = 0  # blocks of `way_out` that are open
_changing = threading.Lock()  # held while the environment is changed


def prepare() -> None:
    """Called once, by `import assistant`, before the libraries that look at these variables are imported."""
    # Nothing leaves this machine: these libraries may report usage unless told not to.
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", ORT_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    # Gradio decides on import where it puts folders that it may never use; nothing is written outside the cache.
    os.environ["GRADIO_TEMP_DIR"] = str(cache_directory() / "gradio")
    # oneDNN keeps what it compiled for a thousand shapes; 60 clips of new lengths would add 160 MB that never go.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    _share_memory_between_threads()
    # The way to 127.0.0.1 leads through no proxy, and a proxy that cannot be understood stops nothing here.
    _ways_out.clear()
    _ways_out.update({name: value for name, value in os.environ.items() if _leads_out(name)})
    _replace_ways(NO_PROXY)  # "*" keeps the settings of the operating system out, too


def _share_memory_between_threads() -> None:
    """glibc gives every thread a heap of its own, and none gives back to another: 800 MB with ten visitors."""
    _of_glibc("mallopt", -8, 2)  # M_ARENA_MAX


def give_memory_back() -> None:
    """Hand what was freed in this process back to the machine, where the C library can."""
    _of_glibc("malloc_trim", 0)


def _of_glibc(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library
        getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)


def _leads_out(name: str) -> bool:
    return name.lower().endswith("_proxy") or name.upper() in ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _replace_ways(ways: Mapping[str, str]) -> None:
    for name in filter(_leads_out, list(os.environ)):
        del os.environ[name]
    os.environ.update(ways)


def ways_out() -> dict[str, str]:
    """The variables that say how the network is reached, as the person set them, and this machine without a proxy."""
    ways = dict(_ways_out)
    if proxies(ways):
        exempt = next((value for name, value in ways.items() if name.lower() == "no_proxy"), "")
        if exempt.strip() != "*":
            exempt = ",".join(dict.fromkeys([*filter(None, map(str.strip, exempt.split(","))), *LOOPBACK]))
        ways |= dict.fromkeys(NO_PROXY, exempt)
    return ways


def proxies(ways: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that name a proxy."""
    return {name: ways[name] for name in ways if name.lower().endswith("_proxy") and name.lower() != "no_proxy"}


def outward() -> dict[str, str]:
    """The environment for another program that is to reach the network, such as pip."""
    return {name: value for name, value in os.environ.items() if not _leads_out(name)} | ways_out()


@contextmanager
def way_out() -> Iterator[None]:
    """Within this block the network is reached as the person's environment says, through their proxy if need be."""
    global _outward
    with _changing:
        _outward += 1
        _replace_ways(ways_out())
    try:
        yield
    finally:
        with _changing:
            _outward -= 1
            if not _outward:
                _replace_ways(NO_PROXY)


@contextmanager
def loading_with_transformers(hub: bool) -> Iterator[None]:
    """Within this block transformers loads a model, for one thread at a time, without its bar for every tensor.

    The network is there only for what comes from the hub.
    """
    from transformers.utils import logging

    with _loading, way_out() if hub else contextlib.nullcontext():
        logging.disable_progress_bar()
        yield


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Within this block all that passes through temporary files, Gradio's too, passes through `folder`."""
    before, os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_TEMP_DIR"], str(folder / "page")
    tempfile.tempdir = str(folder)  # uploads pass through there before they are complete
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def folder_of_our_own(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in `parent` that nobody else on this machine may read, gone when the block ends, whatever ends it.

    SIGTERM and a closed terminal end it as Ctrl-C does. What `kill -9` leaves is deleted when the next folder of this
    prefix is made; one whose process still runs is locked and stays.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{prefix}*"):
        _delete_abandoned(old)
    with _signals_end_the_block():
        for _ in range(10):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            with contextlib.suppress(OSError):
                alive = _lock(folder / ALIVE)
                if (folder / ALIVE).exists():
                    break
                alive.close()  # another Earshot took the folder for abandoned just before it was locked
            shutil.rmtree(folder, ignore_errors=True)
        else:
            raise OSError(f"Files in {parent} cannot be locked. Set EARSHOT_CACHE to a folder on a local disk.")
        try:
            yield folder
        finally:
            alive.close()
            shutil.rmtree(folder, ignore_errors=True)


def _delete_abandoned(folder: Path) -> None:
    """Delete a folder of our own whose process is gone; one without the mark is not ours, one in use is locked."""
    if folder.is_symlink() or not (folder / ALIVE).is_file():
        return
    with contextlib.suppress(OSError):  # in use, or another user's
        with _lock(folder / ALIVE):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a file that is open


def _lock(path: Path) -> IO[bytes]:
    """The file, open and locked until it is closed or this process ends. Raises OSError while another holds it."""
    file = path.open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


@contextmanager
def _signals_end_the_block() -> Iterator[None]:
    """Within this block a signal that would end the process at once raises SystemExit in the main thread instead."""
    ours = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]  # `nohup` stays in force
    if threading.current_thread() is not threading.main_thread():
        ours = []  # only that one may say what signals do

    def end(number: int, frame: FrameType | None) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # a second one must not stop the putting away
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def let_signals_kill() -> None:
    """From now on a signal ends this process at once: where the main thread is not Python's, it would wait for ever."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
