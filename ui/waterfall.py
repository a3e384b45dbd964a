"""Latency as a picture: every stage of both lanes where it began and as long as it took, on one time axis."""

import math
from collections.abc import Mapping
from html import escape

from assistant.latency import STAGES, TERMS, Latency
from ui.texts import Texts

DECODE = "decode"
ROWS = {  # what each lane goes through, in order
    "end_to_end": ("features", "encode", "connect", "prefill", DECODE),
    "cascade": ("features", "encode", "transcribe", "prefill", DECODE),
}
MARKERS = ("first_token", "first_audio")
EMPTY_AXIS = 1000.0  # milliseconds shown before anything was timed
TICKS = 5  # at most this many intervals on the axis


def segments(latency: Latency) -> list[tuple[str, float]]:
    """(name, milliseconds) in order: the stages that were timed, then `decode`, what is left of the total."""
    parts = [(stage, value) for stage in STAGES if (value := getattr(latency, stage))]
    rest = (latency.total or 0.0) - sum(value for _, value in parts)
    return [*parts, (DECODE, rest)] if rest > 0 else parts


def axis(longest: float) -> tuple[float, list[float]]:
    """The end of a time axis that holds `longest` milliseconds, and its ticks at round numbers."""
    if not math.isfinite(longest) or longest <= 0:
        longest = EMPTY_AXIS
    magnitude = 10.0 ** math.floor(math.log10(longest / TICKS))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor * TICKS >= longest * 0.999999)
    count = math.ceil(longest / step - 1e-6)
    return step * count, [step * index for index in range(count + 1)]


def waterfall(latencies: Mapping[str, Latency | None], texts: Texts) -> str:
    """HTML with the stages of each lane (None: not timed yet) on one axis; as high without figures as with them."""
    known = [latency for latency in latencies.values() if latency is not None]
    end, ticks = axis(max((_extent(latency) for latency in known), default=0.0))
    lanes = "".join(_lane(name, latency, end, texts) for name, latency in latencies.items())
    marks = "".join(
        f'<span class="tick" style="left:{_percent(tick, end)}">{tick:,.{0 if end >= 10 else 1}f}</span>'
        for tick in ticks
    )
    return f'<div class="waterfall">{lanes}<div class="axis" aria-hidden="true">{marks}</div></div>'


def figures(latencies: Mapping[str, Latency | None], texts: Texts) -> str:
    """HTML with the table of all terms, each with what it means, folded away."""
    heads = "".join(f'<th scope="col">{escape(texts.lanes.get(name, name))}</th>' for name in latencies)
    terms = [*STAGES, DECODE, *(term for term in TERMS if term not in STAGES)]
    body = "".join(
        f'<tr><th scope="row">{escape(texts.term_names[term])}<small>{escape(texts.terms[term])}</small></th>'
        + "".join(f"<td>{_cell(latency, term)}</td>" for latency in latencies.values())
        + "</tr>"
        for term in terms
    )
    return (
        f'<details class="figures"><summary>{escape(texts.table)}</summary>'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def milliseconds(value: float) -> str:
    """A time as people read it."""
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _extent(latency: Latency) -> float:
    parts = sum(value for _, value in segments(latency))
    return max(parts, latency.total or 0.0, *(getattr(latency, marker) or 0.0 for marker in MARKERS))


def _percent(value: float, end: float) -> str:
    return f"{100 * value / end:.3f}%"


def _lane(name: str, latency: Latency | None, end: float, texts: Texts) -> str:
    title = escape(texts.lanes.get(name, name))
    head = spoken = escape(texts.not_timed)
    timed: dict[str, float] = {}
    markers = ""
    if latency is not None:
        timed = dict(segments(latency))
        terms = [(term, getattr(latency, term)) for term in (*MARKERS, "total")]
        known = [(texts.term_names[term], milliseconds(value)) for term, value in terms if value is not None]
        head = " · ".join(f"<span>{escape(term)} <b>{value}</b></span>" for term, value in known)
        stages = [(texts.term_names[term], milliseconds(value)) for term, value in timed.items()]
        spoken = escape(", ".join(f"{term} {value}" for term, value in stages + known))
        markers = "".join(
            f'<span class="marker {marker}" style="left:{_percent(value, end)}" title="{_tip(marker, value, texts)}">'
            "</span>"
            for marker in MARKERS
            if (value := getattr(latency, marker)) is not None
        )
    rows, position = "", 0.0
    for term in [*ROWS.get(name, ()), *(term for term in timed if term not in ROWS.get(name, ()))]:
        rows += _row(term, position, timed.get(term), end, texts)
        position += timed.get(term, 0.0)
    return (
        f'<div class="waterfall-lane"><div class="waterfall-head"><span>{title}</span><span>{head}</span></div>'
        f'<div class="stages" role="img" aria-label="{title}: {spoken}">{rows}'
        f'<div class="markers">{markers}</div></div></div>'
    )


def _row(term: str, start: float, value: float | None, end: float, texts: Texts) -> str:
    bar, number = "", "–"
    if value is not None:
        number = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
        bar = (
            f'<span class="segment {term}" style="left:{_percent(start, end)};width:{_percent(value, end)}" '
            f'title="{_tip(term, value, texts)}"></span>'
        )
    name = escape(texts.term_names[term])
    return (
        f'<div class="stage" title="{escape(texts.terms[term])}"><span class="stage-name">{name}</span>'
        f'<span class="track">{bar}</span><span class="stage-value">{number}</span></div>'
    )


def _tip(term: str, value: float, texts: Texts) -> str:
    return escape(f"{texts.term_names[term]}: {milliseconds(value)}\n{texts.terms[term]}")


def _cell(latency: Latency | None, term: str) -> str:
    if latency is None:
        return "–"
    value = dict(segments(latency)).get(DECODE) if term == DECODE else getattr(latency, term)
    if value is None:
        return "–"
    return f"{value:,.2f}" if term in ("rtf", "tokens_per_second") else f"{value:,.0f}"
