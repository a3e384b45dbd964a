"""Serving the page to others: passwords, https, a window, a hosted Space with a lent GPU, and what is left behind."""

import os
import pickle
import signal
import ssl
import subprocess
import sys
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import launch
from assistant.files import ROOT, SAMPLES
from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import Chunks, Heard, Lane, Reply, TextDelta
from assistant.lanes.zero_gpu import on_zero_gpu
from assistant.latency import Latency
from assistant.model.prompt import Message
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance
from tests.browser.conftest import free_port
from tests.conftest import LISTENING
from ui import serving
from ui.machine import Machine
from ui.serving import Address, ServingError

UTTERANCE = Utterance(np.full(SAMPLE_RATE, 0.1, np.float32))


class Echo(Lane):
    """Says its name, or that it heard nothing."""

    precision = "exact"

    def __init__(self, name: str, deaf: bool = False) -> None:
        self.name, self.deaf = name, deaf

    def answer(
        self,
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """Heard, then how many exchanges there were before in the reply."""
        if self.deaf:
            raise AudioError("No words were heard.")
        count = len(dialogue.exchanges) if dialogue else 0
        if dialogue is not None:
            dialogue.exchanges.append(Said(Message("user", [torch.ones(2, 3)]), "words"))
        yield Heard("words")
        yield TextDelta(self.name)
        yield TextDelta(f" after {count}")
        yield Reply(f"{self.name} after {count}", "words", Latency(total=1))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What `launch.page` asks `serve` for, instead of serving."""
    asked: dict[str, object] = {}
    monkeypatch.setattr(launch.environment, "ensure", lambda *_: None)
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("EARSHOT_USER", raising=False)
    monkeypatch.setattr(launch, "load_lanes", lambda options: {"cascade": Echo("cascade")})
    monkeypatch.setattr(
        serving, "serve", lambda load, samples, address, show: asked.update(load=load, address=address, show=show)
    )
    return asked


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ([], False),
        (["--host", "localhost"], False),
        (["--host", "0.0.0.0"], True),
        (["--share"], True),
        (["--host", "0.0.0.0", "--user", "ann:secret"], False),
    ],
)
def test_serving_to_everybody_is_warned_of(
    served: dict[str, object], capsys: pytest.CaptureFixture[str], arguments: list[str], warned: bool
) -> None:
    assert launch.main(arguments) == launch.DONE
    said = capsys.readouterr().err
    assert ("Anyone who can reach this machine can use the page" in said) == warned
    assert len(said.splitlines()) == warned


def test_the_user_may_come_from_the_environment(served: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_USER", "ann:se:cret")
    assert launch.main([]) == launch.DONE
    assert served["address"].user == ("ann", "se:cret")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--certificate", "a.pem"], {}, "--certificate and --key belong together"),
        ([], {"EARSHOT_USER": "ann"}, "EARSHOT_USER: a user is NAME:PASSWORD"),
        (["--window"], {}, "--window needs the package pywebview"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    served: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    monkeypatch.setitem(sys.modules, "webview", None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.main(arguments) == launch.BAD_INPUT
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1 and not served


def test_a_space_listens_on_its_port_and_lends_a_gpu_to_each_answer(
    served: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/earshot")
    spaces, lent = lending()
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    assert launch.main([]) == launch.DONE
    address, load = served["address"], served["load"]
    assert (address.host, address.port) == ("0.0.0.0", 7860)  # type: ignore[attr-defined]
    assert capsys.readouterr().err == ""
    assert list(load()["cascade"].answer(Turn((UTTERANCE,))))[-1].text == "cascade after 0"  # type: ignore[operator]
    assert lent == ["cascade"]


def test_a_lent_gpu_sends_chunks_and_what_was_not_heard() -> None:
    spaces, lent = lending()
    lanes = on_zero_gpu({"end_to_end": Echo("end_to_end", deaf=True), "cascade": Echo("cascade")}, spaces)
    assert [type(chunk) for chunk in lanes["cascade"].answer(Turn((UTTERANCE,)))] == [
        Heard,
        TextDelta,
        TextDelta,
        Reply,
    ]
    with pytest.raises(AudioError, match=r"No words were heard\."):
        list(lanes["end_to_end"].answer(Turn((UTTERANCE,))))
    assert lent == ["cascade", "end_to_end"] and lanes["cascade"].precision == "exact"


def test_a_conversation_goes_on_across_lent_gpus() -> None:
    spaces, _ = lending()
    lane, dialogue = on_zero_gpu({"cascade": Echo("cascade")}, spaces)["cascade"], Dialogue()
    for count in range(2):
        assert list(lane.answer(Turn((UTTERANCE,)), dialogue))[-1].text == f"cascade after {count}"
    assert [said.reply for said in dialogue.exchanges] == ["cascade after 0", "cascade after 1"]
    assert dialogue.exchanges[1].latency == Latency(total=1)
    early = lane.anticipate(Turn((UTTERANCE,)), dialogue)
    assert early.take(early.turn) is None

    stop = threading.Event()
    chunks = lane.answer(Turn((UTTERANCE,)), dialogue, stop=stop)
    assert next(chunks) == Heard("words") and next(chunks) == TextDelta("cascade")
    stop.set()
    (last,) = chunks
    assert isinstance(last, Reply) and last.text == dialogue.exchanges[-1].reply == "cascade"


def lending() -> tuple[types.ModuleType, list[str]]:
    """A stand-in for the package of ZeroGPU Spaces: all that goes in and out is pickled, errors lose their words."""
    lent: list[str] = []

    def decorator(duration: int) -> Callable[..., object]:
        def decorate(task: Callable[..., Iterator[object]]) -> Callable[..., Iterator[object]]:
            def handler(*arguments: object) -> Iterator[object]:
                lent.append(str(arguments[0]))
                try:
                    for item in task(*pickle.loads(pickle.dumps(arguments))):
                        yield pickle.loads(pickle.dumps(item))
                except Exception as error:
                    raise RuntimeError(type(error).__name__) from None

            return handler

        return decorate

    spaces = types.ModuleType("spaces")
    spaces.__spec__ = ModuleSpec("spaces", None)
    spaces.GPU = decorator  # type: ignore[attr-defined]
    return spaces, lent


def test_https_and_a_password(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *files], check=True, capture_output=True)
    address = Address(port=free_port(), certificate=certificate, key=key, user=("ann", "secret"))
    page = serving.launch(Machine({}), None, tmp_path, address)
    try:
        trusted = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"https://127.0.0.1:{address.port}/config", context=trusted, timeout=30)
        logged = urllib.request.Request(
            f"https://127.0.0.1:{address.port}/login", data=b"username=ann&password=secret", method="POST"
        )
        assert urllib.request.urlopen(logged, context=trusted, timeout=30).status == 200
    finally:
        page.close(verbose=False)


def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("words")
    with pytest.raises(ServingError, match=r"a\.pem and .*a\.pem are not a PEM certificate"):
        serving.check_certificate(tmp_path / "a.pem", tmp_path / "a.pem")


def test_models_that_do_not_load_close_the_page_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    shown: list[str] = []

    def load() -> dict[str, Lane]:
        raise LookupError("no weights")

    def show(url: str, over: threading.Event) -> None:
        shown.append(url)
        assert over.wait(30)

    with pytest.raises(LookupError, match="no weights"):
        serving.serve(load, tmp_path, Address(port=free_port()), show)
    assert len(shown) == 1 and list((tmp_path / "cache").iterdir()) == []


def test_what_visitors_brought_is_deleted_in_time_and_nothing_else(tmp_path: Path) -> None:
    brought, mark = tmp_path / "page" / "a1" / "said.wav", tmp_path / "alive"
    brought.parent.mkdir(parents=True)
    for path in (brought, mark):
        path.touch()
    serving.delete_older(tmp_path, 600)
    assert brought.exists()
    serving.delete_older(tmp_path, -1)
    serving.delete_older(tmp_path, -1)
    assert not brought.parent.exists() and mark.exists()


PAGE = """
import sys, threading
from pathlib import Path
from ui import desktop, serving

def load():
    threading.Event().wait()

serving.serve(load, Path("assets/samples"), serving.Address(port=int(sys.argv[1])), desktop.in_browser(False))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "proxy"),
    [
        (signal.SIGTERM, {"ALL_PROXY": "socks5://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}),
        (signal.SIGHUP, {"all_proxy": "socks://127.0.0.1:9", "SSL_CERT_FILE": "/nowhere.pem"}),
        (signal.SIGINT, {"https_proxy": "::nonsense::", "no_proxy": "example.com"}),
    ],
)
def test_the_page_opens_behind_any_proxy_and_leaves_no_recording(
    tmp_path: Path, number: signal.Signals, proxy: dict[str, str]
) -> None:
    cache, port = tmp_path / "cache", free_port()
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"EARSHOT_CACHE": str(cache), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)} | proxy
    command = [sys.executable, "-c", PAGE, str(port)]
    page = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, **LISTENING)
    try:
        assert page.stdout is not None and f"http://127.0.0.1:{port}/" in page.stdout.readline()
        api = f"http://127.0.0.1:{port}/gradio_api/upload"
        with (SAMPLES / "capital.flac").open("rb") as file:
            uploaded = Path(httpx.post(api, files={"files": ("said.flac", file)}, timeout=30).json()[0])
        (folder,) = cache.glob("visitors-*")
        assert uploaded.is_relative_to(folder) and uploaded.is_file()
        assert folder.stat().st_mode & 0o077 == 0  # whatever lies below it is closed to others with it
    finally:
        page.send_signal(number)
        page.wait(30)
    assert list(cache.glob("visitors-*")) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
