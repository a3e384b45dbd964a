"""The conversation so far: what was said, newest first, with each lane's own reply to it."""

from collections.abc import Sequence
from html import escape

from assistant.lanes.names import LANES
from ui.rounds import Round
from ui.texts import Texts

# What a click on one of the buttons below sends to the page's `submit` listener.
CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-turn]');
  if (button) trigger('submit', { turn: Number(button.dataset.turn), instruction: button.dataset.instruction });
});"""


def thread(rounds: Sequence[Round], key: str, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    """HTML of the conversation of the visitor with this `key`; `presets` are (title, instruction)."""
    items = "".join(_round(one, one is rounds[-1], key, presets, texts) for one in reversed(rounds))
    inside = f"<ol>{items}</ol>" if rounds else f'<p class="note">{escape(texts.thread_empty)}</p>'
    return (
        f'<section class="thread" aria-label="{escape(texts.thread)}"><h2>{escape(texts.thread)}</h2>{inside}</section>'
    )


def _round(one: Round, newest: bool, key: str, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    said = ""
    if one.said.clips:
        source = f"live/{escape(key)}/{one.number}.wav"
        said += f'<audio controls preload="none" aria-label="{escape(texts.your_clip)}" src="{source}"></audio>'
    elif one.duration:
        said += f'<span class="note">{escape(texts.clip_gone)}</span>'
    if one.text:
        said += f'<p class="written">{escape(one.text)}</p>'
    again = _again(one, presets, texts) if one.said.clips else ""
    cut = f'<p class="note">{escape(texts.interrupted)}</p>' if one.interrupted else ""
    replies = "" if newest else f'<div class="replies">{"".join(_reply(one, lane, texts) for lane in LANES)}</div>'
    length = f" · {one.duration:.1f} s" if one.duration else ""
    head = f"{texts.turn.format(number=one.number + 1)}{length}"
    return f'<li><p class="which">{escape(head)}</p><div class="said">{said}</div>{again}{replies}{cut}</li>'


def _again(one: Round, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    """The one-click tasks for a past clip."""
    chips = "".join(
        f'<button type="button" data-turn="{one.number}" data-instruction="{escape(wording)}">'
        f"{escape(texts.name(title))}</button>"
        for title, wording in presets
    )
    name = escape(texts.again)
    return f'<div class="again" role="group" aria-label="{name}"><span>{name}</span>{chips}</div>'


def _reply(one: Round, lane: str, texts: Texts) -> str:
    answer = one.answers.get(lane)
    heard = f'<p class="note">“{escape(answer.heard)}”</p>' if answer and answer.heard else ""
    text = escape(answer.text) if answer else "–"
    return f'<div class="{lane}"><h3>{escape(texts.lanes[lane])}</h3>{heard}<p class="past">{text}</p></div>'
