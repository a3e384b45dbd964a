"""What is set for the whole process: no proxy before this machine, and folders that are gone whatever ends them."""

import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from assistant import process
from assistant.commands import environment
from assistant.files import ROOT
from tests.conftest import LISTENING

PROXIES = [
    {"http_proxy": "http://127.0.0.1:9"},
    {"HTTP_PROXY": "http://127.0.0.1:9", "https_proxy": "https://127.0.0.1:9"},
    {"HTTPS_PROXY": "127.0.0.1:9", "http_proxy": "127.0.0.1:9"},
    {"all_proxy": "socks://127.0.0.1:1080"},
    {"ALL_PROXY": "socks5://127.0.0.1:1080"},
    {"ALL_PROXY": "socks4://127.0.0.1:1080", "http_proxy": "socks5h://u:p@127.0.0.1:1080"},
    {"http_proxy": "::::", "ALL_PROXY": "nonsense", "https_proxy": "http:/no authority"},
    {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.com, .corp"},
    {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": "[::1"},
    {"SSL_CERT_FILE": "/nowhere.pem", "SSL_CERT_DIR": "/nowhere"},
]


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """`process.prepare` may be called again; afterwards all is as before."""
    before, ways = dict(os.environ), dict(process._ways_out)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)
    process._ways_out.clear()
    process._ways_out.update(ways)


@pytest.fixture(scope="module")
def here() -> Iterator[str]:
    """The address of a server on this machine."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *given: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("given", PROXIES, ids=str)
def test_the_way_to_this_machine_leads_through_no_proxy(
    restored: pytest.MonkeyPatch, here: str, given: dict[str, str]
) -> None:
    restored.setattr(os, "environ", os.environ)
    os.environ.pop("no_proxy"), os.environ.pop("NO_PROXY")
    os.environ.update(given)
    process.prepare()
    assert httpx.get(here).status_code == 200
    with urllib.request.build_opener().open(here, timeout=10) as answer:
        assert answer.status == 200
    assert urllib.request.proxy_bypass("localhost")
    assert not {name for name in given if "no_proxy" not in name.lower()} & set(os.environ)


def test_what_must_go_out_goes_as_the_person_set_it(restored: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.environ.update(http_proxy="http://proxy.corp:3128", no_proxy=".corp,localhost", SSL_CERT_FILE="/corp.pem")
    process.prepare()
    given = {"http_proxy": "http://proxy.corp:3128", "SSL_CERT_FILE": "/corp.pem"}
    given |= dict.fromkeys(("no_proxy", "NO_PROXY"), ".corp,localhost,127.0.0.1,::1")

    def ways() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if process._leads_out(name)}

    assert ways() == {"no_proxy": "*", "NO_PROXY": "*"}
    with process.way_out():
        with process.way_out():
            pass
        assert ways() == given
    assert ways() == {"no_proxy": "*", "NO_PROXY": "*"}

    said = tmp_path / "said.json"
    tell = f"import json, os; json.dump(dict(os.environ), open({str(said)!r}, 'w'))"
    environment.run_step([sys.executable, "-c", tell])  # as pip is run
    told = json.loads(said.read_text())
    assert {name: told[name] for name in given} == given


def test_without_a_proxy_the_way_out_is_left_to_the_system(restored: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if process._leads_out(name):
            del os.environ[name]
    process.prepare()
    assert process.ways_out() == {} and "no_proxy" not in process.outward()


def test_only_a_model_that_is_named_on_the_hub_is_looked_for_outside(
    restored: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.environ.update(ALL_PROXY="socks://127.0.0.1:1080")
    process.prepare()
    with process.loading_with_transformers(hub=False):
        assert "ALL_PROXY" not in os.environ
    with process.loading_with_transformers(hub=True):
        assert os.environ.get("ALL_PROXY") == "socks://127.0.0.1:1080"
    assert "ALL_PROXY" not in os.environ


# Folders of our own -----------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from assistant.process import folder_of_our_own
with folder_of_our_own(Path(sys.argv[1]), "visitors-") as folder:
    (folder / "page").mkdir()
    (folder / "page" / "said.wav").write_bytes(b"words")
    print(folder, flush=True)
    {wait}
"""


def hold(cache: Path, wait: str = "sys.stdin.read()", **options: object) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder in `cache`, and the folder."""
    code = HOLD.format(wait=wait)
    pipe = subprocess.PIPE
    held = subprocess.Popen(
        [sys.executable, "-c", code, str(cache)],
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        **(LISTENING | options),
    )  # type: ignore[call-overload]
    return held, Path(held.stdout.readline().strip())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    held, folder = hold(tmp_path)
    assert (folder / "page" / "said.wav").exists()
    held.send_signal(number)
    held.communicate(timeout=30)
    assert held.returncode == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_nohup_stays_in_force_and_impatience_does_not_stop_the_putting_away(tmp_path: Path) -> None:
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    held, folder = hold(tmp_path, **ignored)
    held.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        held.wait(0.2)
    assert folder.exists()
    for _ in range(3):
        held.send_signal(signal.SIGTERM)
    held.communicate(timeout=30)
    assert held.returncode == 128 + signal.SIGTERM and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_what_a_kill_leaves_is_swept_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    running, kept = hold(tmp_path)
    killed, left = hold(tmp_path)
    killed.kill()
    killed.wait()
    photos = tmp_path / "visitors-photos"
    photos.mkdir()
    (tmp_path / "visitors-list.txt").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / process.ALIVE).touch()
    (tmp_path / "visitors-link").symlink_to(outside)
    assert left.exists()
    with process.folder_of_our_own(tmp_path, "visitors-") as mine:
        assert not left.exists() and mine.exists()
        names = {"outside", "visitors-link", "visitors-list.txt", "visitors-photos", kept.name}
        assert {path.name for path in tmp_path.iterdir()} == names | {mine.name}
        other, others = hold(tmp_path)  # a third start sweeps neither of us
        assert (kept / "page" / "said.wav").exists() and mine.exists()
        for one in (running, other):
            one.communicate(timeout=30)
    assert not kept.exists() and not others.exists() and (outside / process.ALIVE).exists()


def test_a_disk_that_knows_no_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(process, "_lock", refuse)
    with pytest.raises(OSError, match="local disk"), process.folder_of_our_own(tmp_path, "visitors-"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_read_it_and_temporary_files_go_there(tmp_path: Path) -> None:
    import tempfile

    before = os.umask(0)
    try:
        with process.folder_of_our_own(tmp_path / "new" / "cache", "visitors-") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700 or os.name == "nt"
            with process.temporary_files_in(folder):
                assert Path(tempfile.mkdtemp()).parent == folder
                assert Path(os.environ["GRADIO_TEMP_DIR"]).parent == folder
    finally:
        os.umask(before)
    assert Path(tempfile.gettempdir()) != folder and not folder.exists()


def test_a_thread_may_hold_a_folder_too(tmp_path: Path) -> None:
    seen = []

    def work() -> None:
        with process.folder_of_our_own(tmp_path, ".partial-") as folder:
            seen.append(folder.exists())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True] and list(tmp_path.iterdir()) == []
