"""The live line of each visitor: sound from their microphone and to their loudspeaker, over one WebSocket.

Up: `{"key": …}` first, then `{"rate": …}` when a microphone opens, `{"gate": true}` when it was closed for a while,
`{"heard": pieces, "of": turn}` when the browser was silenced, and 16-bit mono samples. Down: `{"state": …}`,
`{"silence": true}`, `{"unspoken": reason}`, and `{"sound": turn, "rate": …}` followed by 16-bit mono samples.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from assistant.limits import GRACE
from ui.ear import sample_rate
from ui.export import as_file
from ui.visit import KEY, Visit, Visits

LOG = logging.getLogger("earshot.live")
HELLO = 10.0  # seconds a browser has to say who it is
LONGEST = 2**17  # bytes in a message: more than a second of any microphone
BEHIND = 2**24  # bytes a browser may be behind, five minutes of speech; then it is given up
REFUSED, NOT_UNDERSTOOD, TOO_LONG = 4403, 4400, 1009  # codes with which a line is closed


def add_live_routes(app: FastAPI, visits: Visits) -> None:
    """Serve the lines of all visitors, and their own recordings, beside the page."""

    async def line(socket: WebSocket) -> None:
        await _Line(socket, visits).run()

    def recording(request: Request) -> Response:
        visit = visits.find(request.path_params["key"])
        number = request.path_params["number"]
        found = next((one for one in visit.rounds if one.number == number), None) if visit else None
        if found is None or not found.said.clips:
            return Response("This recording is gone.", 404, media_type="text/plain")
        return Response(as_file(found.said.clips, "WAV"), media_type="audio/wav", headers={"Cache-Control": "no-store"})

    app.router.routes[0:0] = [WebSocketRoute("/live", line), Route("/live/{key}/{number:int}.wav", recording)]


class _Line:
    def __init__(self, socket: WebSocket, visits: Visits) -> None:
        self._socket, self._visits = socket, visits
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[tuple[str, bytes | None]] = asyncio.Queue()
        self._running: asyncio.Task[Any] | None = None
        self._behind = 0  # bytes that wait to be sent

    async def run(self) -> None:
        """Until the browser or the server hangs up."""
        headers = self._socket.headers
        hosts = {headers.get("host"), headers.get("x-forwarded-host")}
        if urlsplit(headers.get("origin", "")).netloc not in hosts:  # another site in the visitor's browser
            await self._socket.close(REFUSED)
            return
        await self._socket.accept()
        with contextlib.suppress(RuntimeError, OSError):  # hung up while it was spoken to
            visit = await self._greet()
            if visit is None:
                await self._socket.close(REFUSED)
                return
            visit.connect(self._send)
            self._running = asyncio.current_task()
            sending = asyncio.create_task(self._pass_on())
            try:
                await self._listen(visit)
            except asyncio.CancelledError:
                if self._behind <= BEHIND:  # the server stops
                    raise
                LOG.warning("A browser does not take what it is sent; its line is closed.")
            finally:
                sending.cancel()
                if visit._send == self._send:
                    visit.connect(None)
                    self._loop.call_later(GRACE, self._forget, visit)

    def _forget(self, visit: Visit) -> None:
        if not visit.connected:
            self._visits.forget(visit)

    async def _greet(self) -> Visit | None:
        try:
            hello = await asyncio.wait_for(self._socket.receive_text(), HELLO)
            key = json.loads(hello)["key"]
            return self._visits.of(key) if KEY.fullmatch(key) else None
        except (TimeoutError, ValueError, KeyError, TypeError, AttributeError, WebSocketDisconnect):
            return None

    async def _listen(self, visit: Visit) -> None:
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            content = message.get("bytes") or message.get("text") or b""
            if len(content) > LONGEST:
                await self._socket.close(TOO_LONG)
                return
            try:
                if isinstance(content, bytes):
                    if visit.ear is not None:
                        await run_in_threadpool(visit.ear.hear, content)
                else:
                    self._take(visit, json.loads(content))
            except (ValueError, KeyError, TypeError, AttributeError):
                await self._socket.close(NOT_UNDERSTOOD)
                return

    def _take(self, visit: Visit, said: Mapping[str, Any]) -> None:
        if "heard" in said:
            visit.heard(int(said["of"]), max(0.0, float(said["heard"])))
        else:
            if not said.get("gate"):
                visit.rate = sample_rate(int(said["rate"]))
            if visit.ear is not None:
                visit.ear.restart(visit.rate)

    def _send(self, about: Mapping[str, Any], content: bytes | None) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._put, json.dumps(about), content)

    def _put(self, about: str, content: bytes | None) -> None:
        self._behind += len(about) + len(content or b"")
        self._waiting.put_nowait((about, content))
        if self._behind > BEHIND and self._running is not None:
            self._running.cancel()

    async def _pass_on(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            while True:
                about, content = await self._waiting.get()
                await self._socket.send_text(about)
                if content is not None:
                    await self._socket.send_bytes(content)
                self._behind -= len(about) + len(content or b"")
