"""The visitor's session in figures: medians and ratios by clip length, a plot, and every turn's own picture."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from assistant.benchmark import summary
from ui.explanation import explain
from ui.race import ORDER
from ui.session import Turn, measurements
from ui.texts import Texts
from ui.waterfall import axis, milliseconds, waterfall

TERMS = ("first_token", "total")


def comparison(turns: Sequence[Turn], texts: Texts) -> str:
    """HTML of all that can be said about a session; before anything can, a sentence says what will stand here."""
    compared = [turn for turn in turns if turn.comparable]
    if compared:
        left_out = texts.comparison_count.format(count=len(compared), left_out=len(turns) - len(compared))
        pairs = [{lane: latency for lane, latency in turn.latencies.items() if latency} for turn in compared]
        inside = (
            f'<p class="explanation">{escape(explain(pairs, texts))}</p>{_plot(compared, texts)}'
            f'{_table(summary(measurements(turns)), texts)}<p class="note">{escape(texts.ratio_how)} '
            f"{escape(left_out)}</p>"
        )
    else:
        inside = f'<p class="note">{escape(texts.comparison_empty)}</p>'
    return (
        f'<section class="comparison" aria-label="{escape(texts.comparison)}"><h2>{escape(texts.comparison)}</h2>'
        f"{inside}{_turns(turns, texts)}</section>"
    )


def _plot(turns: Sequence[Turn], texts: Texts) -> str:
    """First token over clip length: a round mark for one lane, a square one for the other."""
    points = [
        (lane, turn.duration, latency.first_token)
        for turn in turns
        for lane, latency in turn.latencies.items()
        if latency and latency.first_token is not None
    ]
    right, seconds = axis(max(duration for _, duration, _ in points))
    top, times = axis(max(value for _, _, value in points))
    marks = spoken = ""
    for lane, duration, value in points:
        words = texts.plot_point.format(lane=texts.lanes[lane], duration=f"{duration:.1f}", value=f"{value:,.0f}")
        spoken += f"{'; ' if spoken else ''}{words}"
        place = f"left:{100 * duration / right:.2f}%;bottom:{100 * value / top:.2f}%"
        marks += f'<span class="point {lane}" style="{place}" title="{escape(words)}"></span>'
    lines = "".join(
        f'<span class="level" style="bottom:{100 * time / top:.2f}%"><span>{time:,.0f}</span></span>' for time in times
    )
    ticks = "".join(
        f'<span class="tick" style="left:{100 * second / right:.2f}%">{second:g}</span>' for second in seconds
    )
    keys = "".join(f'<li><i class="point {lane}"></i>{escape(texts.lanes[lane])}</li>' for lane in ORDER)
    return (
        f'<div class="plot"><ul class="legend">{keys}<li>{escape(texts.term_names["first_token"])}, ms ↑</li>'
        f"<li>{escape(texts.clip_length)}, s →</li></ul>"
        f'<div class="field" role="img" aria-label="{escape(texts.plot.format(points=spoken))}">{lines}{marks}</div>'
        f'<div class="axis" aria-hidden="true">{ticks}</div></div>'
    )


def _table(result: Mapping[str, Any], texts: Texts) -> str:
    buckets = [(texts.all_lengths, result), *((bucket["duration"], bucket) for bucket in result["by_duration"])]
    heads = "".join(f'<th scope="col">{escape(texts.lanes[lane])}</th>' for lane in ORDER)
    body = ""
    for term in TERMS:
        body += f'<tr><th scope="rowgroup" colspan="4">{escape(texts.term_names[term])}</th></tr>'
        for label, bucket in buckets:
            cells = "".join(f"<td>{_pair(bucket['lanes'].get(lane, {}).get(term))}</td>" for lane in ORDER)
            ratio = bucket["ratio"].get(term)
            shown = "–" if ratio is None else f"{ratio:.2f}"
            title = f"{escape(label)} <small>({bucket['clips']})</small>"
            body += f'<tr><th scope="row">{title}</th>{cells}<td>{shown}</td></tr>'
    return (
        f"<table><caption>{escape(texts.median_p95)}</caption><thead><tr>"
        f'<th scope="col">{escape(texts.clip_length)}</th>{heads}<th scope="col">{escape(texts.ratio)}</th>'
        f"</tr></thead><tbody>{body}</tbody></table>"
    )


def _pair(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['median']:,.0f} / {value['p95']:,.0f}"


def _turns(turns: Sequence[Turn], texts: Texts) -> str:
    if not turns:
        return ""
    items = "".join(_turn(number, turn, texts) for number, turn in enumerate(turns, 1))
    return f'<details class="turns"><summary>{escape(texts.turns)}</summary><ol>{items}</ol></details>'


def _turn(number: int, turn: Turn, texts: Texts) -> str:
    first = [
        f"{texts.lanes[lane]} {milliseconds(latency.first_token)}"
        for lane, latency in turn.latencies.items()
        if latency and latency.first_token is not None
    ]
    length = f"{turn.duration:.1f} s" if turn.duration else texts.written
    about = [texts.turn.format(number=number), length, *first]
    how = texts.not_comparable if turn.together else texts.began.format(lane=texts.lanes[turn.order[0]])
    words = f'<p class="note">{escape(turn.text)}</p>' if turn.text else ""
    return (
        f"<li><details><summary>{escape(' · '.join(about))}</summary>{words}"
        f'<p class="note">{escape(how)}</p>{waterfall(turn.latencies, texts)}</details></li>'
    )
