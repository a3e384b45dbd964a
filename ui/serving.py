"""Serves the page: its address, its limits, who may open it, and what becomes of what visitors leave behind."""

import contextlib
import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.files import ASSETS, cache_directory
from assistant.lanes.lane import Lane
from assistant.limits import KEEP, MAX_UPLOAD, MAX_VISITORS
from assistant.process import folder_of_our_own, give_memory_back, temporary_files_in, way_out
from assistant.voice.tts import load_voice
from ui.live import add_live_routes
from ui.machine import Machine
from ui.page import build_page
from ui.texts import ENGLISH
from ui.visit import Visits, Voices

WAITING = 32  # requests that Gradio itself may hold
SWEEP = 60  # seconds between two looks for files to delete
THREADS = 96  # for visitors: one for each who is hands-free or waits, and some for the quick things


class ServingError(RuntimeError):
    """The page cannot be served as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Address:
    """Where the page is served and to whom; `user` is (name, password), `certificate` and `key` make it https."""

    host: str = "127.0.0.1"
    port: int = 7860
    certificate: Path | None = None
    key: Path | None = None
    user: tuple[str, str] | None = None
    share: bool = False


Show = Callable[[str, threading.Event], None]


def serve(load: Callable[[], dict[str, Lane]], samples: Path, address: Address, show: Show) -> None:
    """Serve the page until `show` returns: it is given the URL, and an event after which it must return.

    The page answers at once and says that the models are loading, while `load` does so in another thread. What `load`
    raises is raised here, after the page has been closed.

    Raises
    ------
    ServingError
        The certificate, the key or the public link cannot be used.
    """
    machine = Machine()
    over = threading.Event()
    failed: list[Exception] = []
    with visitors_folder():
        page = launch(machine, functools.lru_cache(load_voice), samples, address)

        def provide() -> None:
            try:
                machine.provide(load())
            except Exception as error:  # reported by the thread that waits
                failed.append(error)
                over.set()

        try:
            threading.Thread(target=provide, daemon=True).start()
            show(page.share_url or str(page.local_url), over)
        finally:
            page.close(verbose=False)
    if failed:
        raise failed[0]


def launch(machine: Machine, voices: Voices, samples: Path, address: Address) -> gr.Blocks:
    """Start serving the page; returns at once. Nothing calls home, and nothing that is said is recorded."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "sans-serif")]
    monospace = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "monospace")]
    style, *scripts = ((ASSETS / name).read_text("utf-8") for name in ("page.css", "page.js", "live.js"))
    script = "\n".join(scripts)
    secure: dict[str, Any] = {}
    if address.certificate and address.key:  # Gradio looks whether its own page answers: a certificate for a public
        # name does not hold for 127.0.0.1, which is no fault of it
        secure = {"ssl_certfile": str(address.certificate), "ssl_keyfile": str(address.key), "ssl_verify": False}
        check_certificate(address.certificate, address.key)
    visits = Visits(machine)
    page = build_page(machine, visits, voices, samples)
    with way_out() if address.share else contextlib.nullcontext():
        page.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False).launch(
            server_name=address.host,
            server_port=address.port,
            share=address.share,
            auth=[address.user] if address.user else None,
            auth_message=ENGLISH.tagline,
            **secure,
            theme=gr.themes.Base(
                primary_hue="blue", neutral_hue="slate", radius_size="lg", font=fonts, font_mono=monospace
            ),
            head=f"<style>{style}</style><script>{script}</script>",
            footer_links=[],
            run_history=False,  # it would keep what was said in the browser's storage
            max_file_size=MAX_UPLOAD,
            state_session_capacity=MAX_VISITORS,
            max_threads=THREADS,
            ssr_mode=False,
            show_error=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    add_live_routes(page.server_app, visits)
    if address.share and not page.share_url:
        page.close(verbose=False)
        raise ServingError(
            "No public link could be had from Gradio's service. Check the connection, or leave out --share."
        )
    return page


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises ServingError when the two files are not a certificate and its key."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ServingError(
            f"{certificate} and {key} are not a PEM certificate and its unlocked key: {error.strerror or error}."
        ) from error


@contextlib.contextmanager
def visitors_folder() -> Iterator[Path]:
    """The one place where visitors' recordings are written, within the cache; gone when the server is."""
    over = threading.Event()

    def forget() -> None:
        while not over.wait(SWEEP):
            delete_older(folder, KEEP)
            give_memory_back()

    with folder_of_our_own(cache_directory(), "visitors-") as folder, temporary_files_in(folder):
        threading.Thread(target=forget, name="forget", daemon=True).start()
        try:
            yield folder
        finally:
            over.set()


def delete_older(folder: Path, seconds: float) -> None:
    """Delete what passed through Gradio so long ago. Its own way of it ends for good at the first upload meanwhile."""
    for path in (folder / "page").rglob("*"):
        with contextlib.suppress(OSError):  # gone already, or a folder that is not empty
            if time.time() - path.stat().st_ctime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()
