"""The visitor's session in figures: medians and ratios by clip length, a plot, and every turn's own picture."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from assistant.lanes.comparison import RATIO_TERMS, summary
from assistant.lanes.names import LANES
from ui.explanation import explain
from ui.rounds import Round, measurements
from ui.texts import Texts
from ui.waterfall import axis, milliseconds, waterfall


def comparison(rounds: Sequence[Round], texts: Texts) -> str:
    """HTML of all that can be said about a session; before anything can, a sentence says what will stand here."""
    compared = [one for one in rounds if one.comparable]
    if compared:
        left_out = texts.comparison_count.format(count=len(compared), left_out=len(rounds) - len(compared))
        pairs = [{lane: latency for lane, latency in one.latencies.items() if latency} for one in compared]
        inside = (
            f'<p class="explanation">{escape(explain(pairs, texts))}</p>{_plot(compared, texts)}'
            f'{_table(summary(measurements(rounds)), texts)}<p class="note">{escape(texts.ratio_how)} '
            f"{escape(left_out)}</p>"
        )
    else:
        inside = f'<p class="note">{escape(texts.comparison_empty)}</p>'
    return (
        f'<section class="comparison" aria-label="{escape(texts.comparison)}"><h2>{escape(texts.comparison)}</h2>'
        f"{inside}{_rounds(rounds, texts)}</section>"
    )


def _plot(rounds: Sequence[Round], texts: Texts) -> str:
    """First token over clip length: a round mark for one lane, a square one for the other."""
    points = [
        (lane, one.duration, latency.first_token)
        for one in rounds
        for lane, latency in one.latencies.items()
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
    keys = "".join(f'<li><i class="point {lane}"></i>{escape(texts.lanes[lane])}</li>' for lane in LANES)
    return (
        f'<div class="plot"><ul class="legend">{keys}<li>{escape(texts.term_names["first_token"])}, ms ↑</li>'
        f"<li>{escape(texts.clip_length)}, s →</li></ul>"
        f'<div class="field" role="img" aria-label="{escape(texts.plot.format(points=spoken))}">{lines}{marks}</div>'
        f'<div class="axis" aria-hidden="true">{ticks}</div></div>'
    )


def _table(result: Mapping[str, Any], texts: Texts) -> str:
    buckets = [(texts.all_lengths, result), *((bucket["duration"], bucket) for bucket in result["by_duration"])]
    heads = "".join(f'<th scope="col">{escape(texts.lanes[lane])}</th>' for lane in LANES)
    body = ""
    for term in RATIO_TERMS:
        body += f'<tr><th scope="rowgroup" colspan="4">{escape(texts.term_names[term])}</th></tr>'
        for label, bucket in buckets:
            cells = "".join(f"<td>{_pair(bucket['lanes'].get(lane, {}).get(term))}</td>" for lane in LANES)
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


def _rounds(rounds: Sequence[Round], texts: Texts) -> str:
    if not rounds:
        return ""
    items = "".join(_round(number, one, texts) for number, one in enumerate(rounds, 1))
    return f'<details class="turns"><summary>{escape(texts.turns)}</summary><ol>{items}</ol></details>'


def _round(number: int, one: Round, texts: Texts) -> str:
    first = [
        f"{texts.lanes[lane]} {milliseconds(latency.first_token)}"
        for lane, latency in one.latencies.items()
        if latency and latency.first_token is not None
    ]
    length = f"{one.duration:.1f} s" if one.duration else texts.written
    about = [texts.turn.format(number=number), length, *first]
    how = texts.began.format(lane=texts.lanes[one.order[0]])
    words = f'<p class="note">{escape(one.text)}</p>' if one.text else ""
    return (
        f"<li><details><summary>{escape(' · '.join(about))}</summary>{words}"
        f'<p class="note">{escape(how)}</p>{waterfall(one.latencies, texts)}</details></li>'
    )
