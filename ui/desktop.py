"""Shows the page to whoever started it: in their browser, or in a window of its own."""

import contextlib
import importlib.util
import threading
import webbrowser

from assistant.process import let_signals_kill, way_out
from ui.serving import Show
from ui.texts import ENGLISH

SIZE = (1120, 900)  # pixels of the window
INSTALL = "python -m pip install pywebview (on Linux: pywebview[qt], or the system's python3-webview)"


class WindowUnavailable(RuntimeError):
    """No window can be opened; the message says what to do."""


def in_browser(opened: bool) -> Show:
    """Say where the page is, open it if wanted, and wait."""

    def show(url: str, over: threading.Event) -> None:
        print(f"Earshot answers at {url} (Ctrl-C stops it).", flush=True)
        if opened:
            with way_out():  # a browser that starts now stays, and has other places to go to
                webbrowser.open(url)
        while not over.wait(3600):
            pass

    return show


def in_window() -> Show:
    """The page in a native window, until it is closed.

    Raises
    ------
    WindowUnavailable
        The package is not there.
    """
    if importlib.util.find_spec("webview") is None:
        raise WindowUnavailable(f"--window needs the package pywebview: {INSTALL}. Or leave --window out.")

    def show(url: str, over: threading.Event) -> None:
        import webview

        print(f"Earshot answers at {url} (closing its window stops it).", flush=True)
        window = webview.create_window(ENGLISH.title, url, width=SIZE[0], height=SIZE[1])

        def close_when_over() -> None:
            over.wait()
            with contextlib.suppress(Exception):  # the window may be gone already, in whatever way its toolkit says
                window.destroy()

        threading.Thread(target=close_when_over, daemon=True).start()
        let_signals_kill()  # the toolkit's loop hears none; what is left is put away at the next start
        try:
            webview.start(user_agent="Earshot", private_mode=True)
        except webview.WebViewException as error:
            raise WindowUnavailable(f"No window can be opened: {error}. Install {INSTALL}.") from error

    return show
