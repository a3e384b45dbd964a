"""Many visitors at once, without browsers: `python -m tests.browser.load` starts the page as people do and visits it.

Prints one JSON object a round: how many were answered, in which order, how long they took, and the memory of the page.
"""

import argparse
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from assistant.files import ROOT

START_LIMIT = 180  # seconds the page may take to answer
PATIENCE = 600  # seconds a visitor waits for an answer


@dataclass
class Visitor:
    """One browser tab's worth of requests: upload a clip, ask for an answer, read the stream of updates.

    `place` is the longest line that was announced; `finished` is a time of `time.monotonic`.
    """

    url: str
    clip: Path
    instruction: str = ""
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    place: int = 0
    finished: float = 0.0
    updates: list[Any] = field(default_factory=list)

    def join(self, client: httpx.Client) -> None:
        """Upload the clip and enter the line."""
        api = f"{self.url}gradio_api/"
        with self.clip.open("rb") as file:
            uploaded = client.post(f"{api}upload", files={"files": (self.clip.name, file)}).raise_for_status().json()[0]
        recording = {"path": uploaded, "orig_name": self.clip.name, "meta": {"_type": "gradio.FileData"}}
        body = {
            "data": ["", recording, self.instruction, "end_to_end", "silent", 1.0, "en"],
            "fn_index": answer_function(client, self.url),
            "session_hash": self.session,
        }
        client.post(f"{api}queue/join", json=body).raise_for_status()

    def listen(self, client: httpx.Client, until: str | None = None) -> None:
        """Read updates until the answer is complete, or until one holds `until`."""
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
        self.finished = time.monotonic()

    @property
    def said(self) -> str:
        """Everything that this visitor was sent."""
        return json.dumps(self.updates, ensure_ascii=False)


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


def main() -> None:
    """Start the page, visit it in rounds, report, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
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
        clips = sorted((ROOT / "assets" / "samples").glob("*.flac"), key=lambda clip: clip.stat().st_size)
        chosen = [clips[number % len(clips)] for number in range(options.visitors)]
        for number in range(options.rounds):
            began = time.monotonic()
            visitors = visit_together(url, chosen, ["Repeat what was said."] * len(chosen))
            finished = [visitor.finished for visitor in visitors]
            report = {
                "round": number + 1,
                "answered": sum("Both lanes have answered." in visitor.said for visitor in visitors),
                "in_order": finished == sorted(finished),
                "longest_line_announced": max(visitor.place for visitor in visitors),
                "seconds_first": round(min(finished) - began, 1),
                "seconds_last": round(max(finished) - began, 1),
                "memory_mib": round(psutil.Process(page.pid).memory_info().rss / 2**20),
            }
            print(json.dumps(report), flush=True)
    finally:
        page.terminate()
        page.wait(30)


if __name__ == "__main__":
    main()
