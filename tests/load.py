"""Ten visitors who behave as visitors do, without browsers: `python -m tests.load` starts the page and visits it.

For ten minutes each asks, writes, stops, reloads, closes the tab in mid-reply, takes the session away and brings files
that are no recordings. Nobody may see another's words or files, every wait must end, and memory must stay flat.
Prints a line a minute; the last line is one JSON object. Exits with 1 when anything was mixed, failed or stayed behind.
"""

import argparse
import contextlib
import io
import json
import random
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile
from websockets.sync.client import connect

from assistant.files import ROOT, SAMPLES, cache_directory
from ui.texts import ENGLISH

START_LIMIT = 180  # seconds the page may take to answer
PATIENCE = 600  # seconds a visitor waits for an answer
WARM_UP = 0.2  # of the time, after which memory must be flat
GROWTH = 0.03  # of the memory after the warm-up that may be added to it
RECORDING = re.compile(r"\blive/([\w-]+)/(\d+)\.wav")


@dataclass
class Visitor:
    """One browser tab's worth of requests: upload a clip, ask for an answer, read the stream of updates.

    `place` is the longest line that was announced; `finished` is a time of `time.monotonic`.
    """

    url: str
    clip: Path
    instruction: str = ""
    key: str = ""
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    place: int = 0
    finished: float = 0.0
    updates: list[Any] = field(default_factory=list)

    def join(self, client: httpx.Client) -> None:
        """Upload the clip and enter the line."""
        with self.clip.open("rb") as file:
            files = {"files": (self.clip.name, file)}
            uploaded = client.post(f"{self.url}gradio_api/upload", files=files).raise_for_status().json()[0]
        recording = {"path": uploaded, "orig_name": self.clip.name, "meta": {"_type": "gradio.FileData"}}
        self.call(client, answer_function(client, self.url), self.key, recording, *self.wishes)

    @property
    def wishes(self) -> list[Any]:
        """How to be answered, as the page's controls say it."""
        return [self.instruction, "end_to_end", "silent", 1.0, "en"]

    def call(self, client: httpx.Client, function: int, *data: Any) -> None:
        """Ask for a listener of the page to be run."""
        body = {"data": data, "fn_index": function, "session_hash": self.session}
        client.post(f"{self.url}gradio_api/queue/join", json=body).raise_for_status()

    def listen(self, client: httpx.Client, until: str | None = None, most: int | None = None) -> None:
        """Read updates until the answer is complete, until one holds `until`, or until there were `most` of them."""
        stream = client.stream(
            "GET", f"{self.url}gradio_api/queue/data", params={"session_hash": self.session}, timeout=PATIENCE
        )
        with stream as answer:
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                said = json.dumps(message, ensure_ascii=False)
                self.updates.append(message)
                if "before you" in said:
                    self.place = max(self.place, int(said.split(" before you")[0].rsplit(" ", 1)[1]))
                if message.get("msg") in ("process_completed", "close_stream") or (until and until in said):
                    break
                if most is not None and len(self.updates) >= most:
                    break
        self.finished = time.monotonic()

    @property
    def said(self) -> str:
        """Everything that this visitor was sent."""
        return json.dumps(self.updates, ensure_ascii=False)


def listeners(client: httpx.Client, url: str) -> list[dict[str, Any]]:
    """What the page can be asked to do."""
    config = client.get(f"{url}config").raise_for_status().json()
    return [listener for listener in config["dependencies"] if listener["backend_fn"]]


def answer_function(client: httpx.Client, url: str) -> int:
    """The number of the listener that answers recordings: of those that take one, the first."""
    config = client.get(f"{url}config").raise_for_status().json()
    recorders = {one["id"] for one in config["components"] if one["props"].get("elem_id") == "recording"}
    return next(
        listener["id"]
        for listener in config["dependencies"]
        if recorders & set(listener["inputs"]) and listener["backend_fn"]
    )


def visit_together(url: str, clips: Sequence[Path], instructions: Sequence[str]) -> list[Visitor]:
    """Visitors who enter one after the other and then wait all at once; returned when each has been answered."""
    visitors = [Visitor(url, clip, words) for clip, words in zip(clips, instructions, strict=True)]
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        threads = []
        for visitor in visitors:
            visitor.join(client)
            thread = threading.Thread(target=visitor.listen, args=(client,))
            thread.start()
            threads.append(thread)
            time.sleep(0.05)  # so that "in order" means something
        for thread in threads:
            thread.join()
    return visitors


# Visitors as they are ---------------------------------------------------------------------------------------------


class Crowd:
    """What all visitors of a run have in common: their secrets, what they did, and what went wrong."""

    def __init__(self, url: str, folder: Path, seconds: float) -> None:
        self.url, self.folder = url, folder
        self.until = time.monotonic() + seconds
        self.secrets: dict[str, str] = {}  # of every tab there ever was -> whose it is
        self.done: Counter[str] = Counter()
        self.mixed: list[str] = []
        self.failed: list[str] = []
        self.lock = threading.Lock()

    def count(self, what: str) -> None:
        """One more of these."""
        with self.lock:
            self.done[what] += 1

    def check(self, tab: str, said: str) -> None:
        """What a tab was sent holds no other tab's secret and no failure."""
        with self.lock:
            others = [whose for secret, whose in self.secrets.items() if secret != tab and secret in said]
            self.mixed += [f"{self.secrets[tab]} saw {whose}" for whose in others]
            if ENGLISH.unexpected in said or '"success": false' in said:
                self.failed.append(f"{self.secrets[tab]}: {said[-300:]}")


class Person(threading.Thread):
    """Opens tabs one after the other and does in each what comes to mind, until the time is over."""

    def __init__(self, crowd: Crowd, number: int, seed: int) -> None:
        super().__init__(name=f"visitor {number}", daemon=True)
        self.crowd, self.random = crowd, random.Random(seed * 1000 + number)
        self.clips = sorted(SAMPLES.glob("*.flac"))

    def run(self) -> None:
        """Tab after tab."""
        while time.monotonic() < self.crowd.until:
            try:
                self.open_a_tab()
            except Exception as error:  # whatever it is, it is a finding
                self.crowd.failed.append(f"{self.name}: {type(error).__name__}: {error}")
                time.sleep(1)

    def open_a_tab(self) -> None:
        """A page with a key and a live line of its own, until it is reloaded or closed."""
        crowd, key, tab = self.crowd, secrets.token_urlsafe(18), secrets.token_hex(8)
        with crowd.lock:
            crowd.secrets[tab] = self.name
        origin = crowd.url.rstrip("/")
        with (
            httpx.Client(timeout=PATIENCE) as client,
            connect(f"{origin.replace('http', 'ws', 1)}/live", origin=origin) as line,  # type: ignore[arg-type]
        ):
            line.send(json.dumps({"key": key}))
            client.get(crowd.url).raise_for_status()
            known = {one["api_name"]: one["id"] for one in listeners(client, crowd.url)}
            while time.monotonic() < crowd.until:
                does = self.random.choices(list(DOES), [weight for _, weight in DOES.values()])[0]
                crowd.count(does)
                if not DOES[does][0](self, client, key, tab, known):
                    return  # the tab is closed
                time.sleep(self.random.uniform(0, 0.5))

    def recording(self, tab: str) -> Path:
        """A piece of speech as nobody else has it: another clip, another length, another loudness."""
        samples, rate = soundfile.read(self.random.choice(self.clips), dtype="float32")
        length = self.random.randint(min(len(samples), rate), min(len(samples), 8 * rate))
        path = self.crowd.folder / f"{tab}.wav"
        loudness = self.random.uniform(0.3, 0.9) / np.abs(samples[:length]).max()
        soundfile.write(path, samples[:length] * loudness, rate, subtype="PCM_16")
        return path

    def visitor(self, key: str, tab: str, clip: Path) -> Visitor:
        """The next request of a tab."""
        return Visitor(self.crowd.url, clip, f"Say what you heard, {tab}.", key)

    def ask(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Ask, wait for both lanes, and hear one's own recording again."""
        asking = self.visitor(key, tab, self.recording(tab))
        asking.join(client)
        asking.listen(client)
        self.crowd.check(tab, asking.said)
        self.crowd.count("answered" if ENGLISH.done in asking.said else "told_why_not")
        turns = RECORDING.findall(asking.said)
        if {whose for whose, _ in turns} - {key}:
            self.crowd.mixed.append(f"{self.name} was shown another's recording")
        if turns and ENGLISH.done in asking.said:
            heard = client.get(f"{self.crowd.url}live/{key}/{max(int(number) for _, number in turns)}.wav")
            mine, _ = soundfile.read(asking.clip, dtype="int16")
            theirs, _ = soundfile.read(io.BytesIO(heard.raise_for_status().content), dtype="int16")
            if len(mine) != len(theirs) or np.abs(mine.astype(int) - theirs).max() > 2:
                self.crowd.mixed.append(f"{self.name} heard another's recording")
            self.crowd.count("recordings_compared")
        return True

    def write(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Ask in writing."""
        writing = self.visitor(key, tab, Path())
        writing.call(client, known["message"], key, f"Who are you? I am {tab}.", *writing.wishes)
        writing.listen(client)
        self.crowd.check(tab, writing.said)
        return True

    def stop(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Ask, and press Stop after a moment."""
        asking = self.visitor(key, tab, self.recording(tab))
        asking.join(client)

        def press() -> None:
            body = {"data": [key], "fn_index": known["stop"], "session_hash": asking.session}
            client.post(f"{self.crowd.url}gradio_api/run/predict", json=body).raise_for_status()

        pressed = threading.Timer(self.random.uniform(0, 4), press)
        pressed.start()
        asking.listen(client)
        pressed.join()
        self.crowd.check(tab, asking.said)
        return True

    def leave(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Ask, and reload the page in the middle of the reply, or in the middle of the wait."""
        asking = self.visitor(key, tab, self.recording(tab))
        asking.join(client)
        asking.listen(client, most=self.random.randint(1, 20))
        self.crowd.check(tab, asking.said)
        return False

    def close(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Ask, close the tab at once, and come back later."""
        self.visitor(key, tab, self.recording(tab)).join(client)
        time.sleep(self.random.uniform(0, 3))
        return False

    def bring(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Bring a file that cannot be answered; be told why."""
        name, content = self.random.choice(list(bad_files(self.random.randbytes(20_000)).items()))
        path = self.crowd.folder / f"{tab}-{name}"
        path.write_bytes(content)
        bringing = self.visitor(key, tab, path)
        bringing.join(client)
        bringing.listen(client)
        self.crowd.check(tab, bringing.said)
        if ENGLISH.done in bringing.said or "problem" not in bringing.said:
            self.crowd.failed.append(f"{self.name}: nothing was said about {name}: {bringing.said[-300:]}")
        return True

    def take(self, client: httpx.Client, key: str, tab: str, known: dict[str, int]) -> bool:
        """Take the session away and look into it."""
        taking = self.visitor(key, tab, Path())
        taking.call(client, known["export_2"], key, "en")
        taking.listen(client)
        self.crowd.check(tab, taking.said)
        if found := re.search(r'"url": "([^"]+\.zip)"', taking.said):
            content = client.get(found.group(1)).raise_for_status().content
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                self.crowd.check(tab, archive.read("session.json").decode("utf-8"))
            self.crowd.count("sessions_looked_into")
        return True


Action = Callable[[Person, httpx.Client, str, str, dict[str, int]], bool]  # false: the tab is closed
DOES: dict[str, tuple[Action, float]] = {
    "ask": (Person.ask, 4),
    "write": (Person.write, 2),
    "stop": (Person.stop, 2),
    "reload": (Person.leave, 2),
    "close": (Person.close, 1),
    "bad_file": (Person.bring, 2),
    "export": (Person.take, 1),
}


def bad_files(noise: bytes) -> dict[str, bytes]:
    """Files that hold nothing to answer, by name."""
    silent, short = io.BytesIO(), io.BytesIO()
    soundfile.write(silent, np.zeros(16_000), 16_000, format="WAV")
    soundfile.write(short, np.full(1_000, 0.1), 16_000, format="WAV")
    return {
        "empty.wav": b"",
        "noise.m4a": noise,
        "text.mp3": b"This is no recording.\n" * 50,
        "silent.wav": silent.getvalue(),
        "short.wav": short.getvalue(),
        "header.flac": b"fLaC\x00\x00\x00\x22" + bytes(34),
        "cut.webm": b"\x1aE\xdf\xa3" + noise[:50],
    }


def drive(url: str, seconds: float, visitors: int = 10, seed: int = 0, each: Callable[[], None] | None = None) -> Crowd:
    """Let visitors do what they do for so long, and wait until the last is done; `each` is called every second."""
    with tempfile.TemporaryDirectory() as folder:
        crowd = Crowd(url, Path(folder), seconds)
        people = [Person(crowd, number, seed) for number in range(visitors)]
        for person in people:
            person.start()
        give_up = crowd.until + PATIENCE
        while any(person.is_alive() for person in people) and time.monotonic() < give_up:
            time.sleep(1)
            if each:
                each()
        crowd.failed += [f"{person.name} waits for ever" for person in people if person.is_alive()]
    return crowd


def resident(pid: int) -> int:
    """MiB that a process and its children hold in memory."""
    total, process = 0, psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return round(total / 2**20)


def main() -> int:
    """Start the page, visit it, report, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    before = set(cache_directory().glob("visitors-*"))
    page = subprocess.Popen([sys.executable, "launch.py", "--no-browser", "--port", str(port)], cwd=ROOT)
    try:
        give_up = time.monotonic() + START_LIMIT
        while True:
            try:
                httpx.get(url, timeout=10).raise_for_status()
                break
            except httpx.HTTPError:
                if page.poll() is not None or time.monotonic() > give_up:
                    sys.exit("The page did not start.")
                time.sleep(0.5)
        visit_together(url, [SAMPLES / "capital.flac"], [""])  # answered: the models are there
        began, sizes = time.monotonic(), [resident(page.pid)]
        print(f"{sizes[0]} MiB with the models loaded and one answer given", flush=True)

        def note() -> None:
            sizes.append(resident(page.pid))
            if len(sizes) % 60 == 0:
                print(f"{sizes[-1]} MiB after {time.monotonic() - began:.0f} s", flush=True)

        crowd = drive(url, options.seconds, options.visitors, options.seed, note)
        took, end = time.monotonic() - began, resident(page.pid)
    finally:
        page.terminate()
        page.wait(30)
    left = set(cache_directory().glob("visitors-*")) - before
    warm = sizes[int(len(sizes) * WARM_UP)]
    report = {
        "visitors": options.visitors,
        "seconds": round(took),
        "tabs": len(crowd.secrets),
        **dict(sorted(crowd.done.items())),
        "mixed": len(crowd.mixed),
        "failed": len(crowd.failed),
        "memory_mib": {"start": sizes[0], "after_warm_up": warm, "end": end, "most": max(sizes)},
        "memory_flat": end - warm <= GROWTH * warm,
        "folders_left": len(left),
    }
    for problem in [*crowd.mixed, *crowd.failed][:20]:
        print(problem, file=sys.stderr)
    print(json.dumps(report), flush=True)
    return int(bool(crowd.mixed or crowd.failed or left or not report["memory_flat"]))


if __name__ == "__main__":
    sys.exit(main())
