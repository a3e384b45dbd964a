"""Speaks a reply while it is still being written: pieces of text go to a voice's thread, sounds come back in order."""

import contextlib
import logging
import queue
import re
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from assistant.lanes.lane import Chunk, Chunks, Reply, TextDelta
from assistant.limits import SILENCE_PEAK
from assistant.voice.tts import SpeechUnavailable, Voice

LOG = logging.getLogger("earshot.voice")
FAILED = "The voice failed; this reply is shown, not spoken."
FIRST_WORDS = 6  # the first piece is no longer, so that something is heard soon
CLAUSES = 2  # pieces that may end at a comma; later ones are whole sentences, which sound better
WAITING = 32  # pieces; a voice that is further behind holds the reply up

_SENTENCE = re.compile(r"[.!?…]+[\"”’)\]*_]*(?=\s)|[。！？]|\n+")
_CLAUSE = re.compile(r"(?<=\w)[,;:—](?=\s)|[，；：]")
_NO_END = re.compile(r"(^|\s)(Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|[A-Z])\.$|^\s*(\d+\.|[-*+#]+)$")


@dataclass(frozen=True)
class Sound:
    """A piece of the spoken reply: float32 samples [n], `rate` of them a second, and the `text` that they say."""

    samples: np.ndarray
    rate: int
    text: str


@dataclass(frozen=True)
class Unspoken:
    """The rest of the reply is not spoken; `reason` says why."""

    reason: str


class Pieces:
    """Cuts growing text where a voice can take breath. Nothing is lost: the pieces together are the text."""

    def __init__(self) -> None:
        self._text = ""
        self._given = 0

    def feed(self, text: str) -> Iterator[str]:
        """More text -> the pieces that are complete now."""
        self._text += text
        while (end := self._end()) is not None:
            piece, self._text = self._text[:end], self._text[end:]
            self._given += bool(re.search(r"\w", piece))
            yield piece

    def rest(self) -> str:
        """What is left when the reply is over."""
        left, self._text = self._text, ""
        return left

    def _end(self) -> int | None:
        """Where the next piece ends."""
        text = self._text
        ends = [match.end() for match in _SENTENCE.finditer(text) if not _NO_END.search(text[: match.end()])]
        if self._given < CLAUSES:
            ends += [match.end() for match in _CLAUSE.finditer(text) if len(text[: match.start()].split()) > 1]
        if self._given == 0 and len(words := list(re.finditer(r"\w\S*\s", text))) >= FIRST_WORDS:
            ends.append(words[FIRST_WORDS - 1].end())
        return min((end for end in ends if _whole(text[:end])), default=None)


def words_heard(text: str, share: float) -> str:
    """What was said of a piece of text when it was cut after a `share` of its sound: whole words."""
    words = re.findall(r"\s*\S+", text)
    return "".join(words[: int(len(words) * share)])


def _whole(text: str) -> bool:
    """Whether no code block and no link is open at the end: those must be seen whole to be left unread."""
    return text.count("```") % 2 == 0 and text.count("[") <= text.count("]")


def speak(
    chunks: Chunks, voice: Voice | None, stop: threading.Event | None = None, delay: float = 0.0
) -> Generator[Chunk | Sound | Unspoken, None, None]:
    """A lane's chunks with the sounds of the reply between them; the `Reply` comes last, its `first_audio` measured.

    The lane keeps the machine until the reply is spoken, so that no other lane is timed meanwhile. Closing the iterator
    ends both; `stop` ends the voice, and must be given to the lane as well.

    Parameters
    ----------
    voice: None leaves the reply written.
    delay: milliseconds from handing a sound over until it can be heard, such as a loudspeaker's latency.
    """
    if voice is None:
        yield from chunks
        return
    pieces, speaker = Pieces(), _Speaker(voice)
    shown = first_audio = None  # seconds when the first token came; milliseconds from it to the first audible sample
    with closing(chunks), closing(speaker):
        for chunk in chunks:
            if isinstance(chunk, TextDelta):
                shown = shown or time.perf_counter()
                yield chunk
                for piece in pieces.feed(chunk.text):
                    speaker.put(piece)
            elif isinstance(chunk, Reply):
                speaker.put(pieces.rest())
                speaker.put(None)
            else:
                yield chunk
            for sound in speaker.sounds(to_the_end=isinstance(chunk, Reply), stop=stop):
                if first_audio is None and shown is not None and isinstance(sound, Sound):
                    waited = (time.perf_counter() - shown) * 1000
                    first_audio = waited + _leading_silence(sound) + delay
                yield sound
            if isinstance(chunk, Reply):
                if first_audio is not None and chunk.latency.first_token is not None:
                    chunk.latency.first_audio = chunk.latency.first_token + first_audio
                yield chunk


def _leading_silence(sound: Sound) -> float:
    """Milliseconds until the first audible sample."""
    return int((np.abs(sound.samples) > SILENCE_PEAK).argmax()) / sound.rate * 1000


class _Speaker:
    """A voice in a thread of its own: pieces of text in, sounds out, both in order."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._pieces: queue.Queue[str | None] = queue.Queue(WAITING)
        self._sounds: queue.SimpleQueue[Sound | Unspoken | None] = queue.SimpleQueue()  # None: all is spoken
        self._closed = False
        threading.Thread(target=self._work, name="voice", daemon=True).start()

    def put(self, piece: str | None) -> None:
        """The next piece of text; None after the last."""
        self._pieces.put(piece)

    def sounds(self, to_the_end: bool, stop: threading.Event | None) -> Iterator[Sound | Unspoken]:
        """What is spoken by now, or, when it is waited for, all of it; nothing more once `stop` is set."""
        while not (stop and stop.is_set()):
            try:
                sound = self._sounds.get(block=to_the_end, timeout=0.05)
            except queue.Empty:
                if to_the_end:
                    continue
                return
            if sound is None:
                return
            yield sound

    def close(self) -> None:
        """What has not been spoken never will be."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._pieces.get_nowait()
        self._pieces.put(None)

    def _work(self) -> None:
        able = True
        while (piece := self._pieces.get()) is not None:
            if not able or self._closed:
                continue
            try:
                said = list(self._voice.speak(piece))
            except Exception as error:  # whatever happens to the voice, the reply goes on in writing
                able = False
                if not isinstance(error, SpeechUnavailable):
                    LOG.exception("The voice failed")
                self._sounds.put(Unspoken(str(error) if isinstance(error, SpeechUnavailable) else FAILED))
                continue
            if said:
                self._sounds.put(Sound(np.concatenate(said), self._voice.sample_rate, piece))
        self._sounds.put(None)
