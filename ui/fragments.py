"""The smaller pieces of HTML the page is made of; every word that comes from outside is escaped here."""

from collections.abc import Mapping
from html import escape

from assistant.latency import Latency
from ui.texts import Texts
from ui.waterfall import figures, waterfall


def header(texts: Texts) -> str:
    """The title and what this is; the script of the page shows the second line while the server cannot be reached."""
    return (
        f'<header lang="{texts.code}"><h1>{escape(texts.title)}</h1><p>{escape(texts.tagline)}</p></header>'
        f'<p class="lost" role="alert" hidden>{escape(texts.lost)}</p>'
    )


def status(message: str, kind: str = "idle") -> str:
    """One sentence on what is going on; `kind` is idle, busy, done or problem."""
    return f'<p class="status {kind}" role="status" aria-live="polite">{escape(message)}</p>'


def note(message: str) -> str:
    """A quiet sentence."""
    return f'<p class="note">{escape(message)}</p>'


def caption(words: str) -> str:
    """What the controls below it are."""
    return f'<p class="caption">{escape(words)}</p>'


def timing(latencies: Mapping[str, Latency | None], texts: Texts, measured_on: str) -> str:
    """The section on where the time of one turn went."""
    return (
        f'<section class="timing" aria-label="{escape(texts.timing)}"><h2>{escape(texts.timing)}</h2>'
        f'<p class="note">{escape(texts.timing_how)}</p>{waterfall(latencies, texts)}{figures(latencies, texts)}'
        f'<p class="note">{escape(texts.measured_on.format(machine=measured_on))}</p></section>'
    )


def microphone_notes(texts: Texts) -> str:
    """One explanation for each reason a browser gives; the style sheet shows the one that applies."""
    port = '<span class="port">7860</span>'
    return "".join(
        f'<p class="problem {reason}" role="alert">{words.format(port=port)}</p>'
        for reason, words in texts.microphone.items()
    )


def ear(texts: Texts) -> str:
    """How loud it is, and what the live line is doing; the style sheet shows the words that apply."""
    states = "".join(f'<span class="{state}">{escape(words)}</span>' for state, words in texts.states.items())
    return (
        '<div class="ear"><span class="level-meter" aria-hidden="true"><i></i></span>'
        f'<p role="status" aria-live="polite">{states}</p></div>'
    )


def spoken(texts: Texts) -> str:
    """How replies are spoken; the script of the page puts the reason here when one is not."""
    return f'<p class="note">{escape(texts.spoken_how)}</p><p class="note unspoken" role="status"></p>'
