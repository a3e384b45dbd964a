"""The pieces of HTML and script the page is made of; every word that comes from outside is escaped here."""

import base64
import io
from html import escape

import numpy as np
import soundfile

from assistant.tts import SpeechUnavailable, Voice
from ui import texts

# The browser tells why it gives no microphone; the style sheet then shows the matching explanation.
MICROPHONE_SCRIPT = """<script>(() => {
  const explain = (reason) => { document.documentElement.dataset.microphone = reason; };
  const media = navigator.mediaDevices;
  if (!window.isSecureContext || !media || !media.getUserMedia) return explain("insecure");
  const names = { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "missing",
                  OverconstrainedError: "missing" };
  const open = media.getUserMedia.bind(media);
  media.getUserMedia = (wanted) => open(wanted).then(
    (stream) => { delete document.documentElement.dataset.microphone; return stream; },
    (error) => { explain(names[error.name] || "busy"); throw error; });
})();</script>"""

PORT_SCRIPT = "element.querySelectorAll('.port').forEach((word) => { word.textContent = location.port || '80'; });"


def status(message: str, kind: str = "idle") -> str:
    """One sentence on what is going on; `kind` is idle, busy, done or problem."""
    return f'<p class="status {kind}" role="status" aria-live="polite">{escape(message)}</p>'


def note(message: str) -> str:
    """A quiet sentence."""
    return f'<p class="note">{escape(message)}</p>'


def caption(words: str) -> str:
    """What the controls below it are."""
    return f'<p class="caption">{words}</p>'


def card(name: str, heard: str | None = "", reply: str = "", live: bool = False) -> str:
    """One lane's column; `heard` None means that the lane has no reading, an empty string that it is not there yet."""
    trace = f'<span class="absent">{texts.NO_READING}</span>' if heard is None else escape(heard)
    return (
        f'<article class="lane{" live" if live else ""}" aria-label="{texts.LANES[name]}">'
        f'<h2>{texts.LANES[name]}</h2><p class="note">{texts.LANE_HOW[name]}</p>'
        f'<h3>{texts.HEARD}</h3><p class="heard">{trace}</p>'
        f'<h3>{texts.REPLY}</h3><p class="reply" aria-live="polite">{escape(reply)}</p></article>'
    )


def microphone_notes() -> str:
    """One explanation for each reason a browser gives; the style sheet shows the one that applies."""
    port = '<span class="port">7860</span>'
    return "".join(
        f'<p class="problem {reason}" role="alert">{words.format(port=port)}</p>'
        for reason, words in texts.MICROPHONE.items()
    )


def player(voice: Voice | None, text: str) -> str:
    """A player that starts by itself. The sound travels inside the page: no file of it is left on this machine.

    Raises
    ------
    SpeechUnavailable
        The voice cannot say it.
    """
    if voice is None:
        return note(texts.NO_VOICE)
    chunks = list(voice.speak(text))
    if not chunks:
        raise SpeechUnavailable(texts.NOTHING_TO_SAY)
    wav = io.BytesIO()
    soundfile.write(wav, np.concatenate(chunks), voice.sample_rate, format="WAV", subtype="PCM_16")
    sound = base64.b64encode(wav.getvalue()).decode("ascii")
    return f'<audio controls autoplay aria-label="{texts.SPOKEN_PLAYER}" src="data:audio/wav;base64,{sound}"></audio>'
