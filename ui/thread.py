"""The conversation so far: what was said, newest first, with each lane's own reply to it."""

from collections.abc import Sequence
from html import escape

from ui.race import ORDER
from ui.session import Turn
from ui.texts import Texts

# What a click on one of the buttons below sends to the page's `submit` listener.
CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-turn]');
  if (button) trigger('submit', { turn: Number(button.dataset.turn), instruction: button.dataset.instruction });
});"""


def thread(turns: Sequence[Turn], key: str, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    """HTML of the conversation of the visitor with this `key`; `presets` are (title, instruction)."""
    items = "".join(_turn(turn, turn is turns[-1], key, presets, texts) for turn in reversed(turns))
    inside = f"<ol>{items}</ol>" if turns else f'<p class="note">{escape(texts.thread_empty)}</p>'
    return (
        f'<section class="thread" aria-label="{escape(texts.thread)}"><h2>{escape(texts.thread)}</h2>{inside}</section>'
    )


def _turn(turn: Turn, newest: bool, key: str, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    said = ""
    if turn.said.clips:
        source = f"live/{escape(key)}/{turn.number}.wav"
        said += f'<audio controls preload="none" aria-label="{escape(texts.your_clip)}" src="{source}"></audio>'
    elif turn.duration:
        said += f'<span class="note">{escape(texts.clip_gone)}</span>'
    if turn.text:
        said += f'<p class="written">{escape(turn.text)}</p>'
    again = _again(turn, presets, texts) if turn.said.clips else ""
    cut = f'<p class="note">{escape(texts.interrupted)}</p>' if turn.interrupted else ""
    replies = "" if newest else f'<div class="replies">{"".join(_reply(turn, lane, texts) for lane in ORDER)}</div>'
    length = f" · {turn.duration:.1f} s" if turn.duration else ""
    head = f"{texts.turn.format(number=turn.number + 1)}{length}"
    return f'<li><p class="which">{escape(head)}</p><div class="said">{said}</div>{again}{replies}{cut}</li>'


def _again(turn: Turn, presets: Sequence[tuple[str, str]], texts: Texts) -> str:
    """The one-click tasks for a past clip."""
    chips = "".join(
        f'<button type="button" data-turn="{turn.number}" data-instruction="{escape(wording)}">'
        f"{escape(texts.name(title))}</button>"
        for title, wording in presets
    )
    name = escape(texts.again)
    return f'<div class="again" role="group" aria-label="{name}"><span>{name}</span>{chips}</div>'


def _reply(turn: Turn, lane: str, texts: Texts) -> str:
    answer = turn.answers.get(lane)
    heard = f'<p class="note">“{escape(answer.heard)}”</p>' if answer and answer.heard else ""
    text = escape(answer.text) if answer else "–"
    return f'<div class="{lane}"><h3>{escape(texts.lanes[lane])}</h3>{heard}<p class="past">{text}</p></div>'
