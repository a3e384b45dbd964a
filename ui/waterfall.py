"""Latency as a picture: every stage of both lanes where it began and as long as it took, on one time axis."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from assistant.lanes.names import CASCADE, END_TO_END
from assistant.latency import STAGES, TERMS, Latency
from assistant.sound.endpointing import Thresholds
from ui.texts import Texts

DECODE = "decode"
ROWS = {  # what each lane goes through, in order
    END_TO_END: ("features", "encode", "connect", "prefill", DECODE),
    CASCADE: ("features", "encode", "transcribe", "prefill", DECODE),
}
MARKERS = ("first_token", "first_audio")
EMPTY_AXIS = 1000.0  # milliseconds shown before anything was timed
TICKS = 5  # at most this many intervals on the axis


def segments(latency: Latency) -> list[tuple[str, float]]:
    """(name, milliseconds) in order: the stages that were timed, then `decode`, what is left of the total."""
    parts = [(stage, value) for stage in STAGES if (value := getattr(latency, stage))]
    work = sum(value for _, value in parts)
    if heard_early(latency) is not None:  # the work lies before the first token, most of it before zero
        work = latency.first_token or 0.0
    rest = (latency.total or 0.0) - work
    return [*parts, (DECODE, rest)] if rest > 0 else parts


def axis(longest: float) -> tuple[float, list[float]]:
    """The end of a time axis that holds `longest` milliseconds, and its ticks at round numbers."""
    if not math.isfinite(longest) or longest <= 0:
        longest = EMPTY_AXIS
    magnitude = 10.0 ** math.floor(math.log10(longest / TICKS))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor * TICKS >= longest * 0.999999)
    count = math.ceil(longest / step - 1e-6)
    return step * count, [step * index for index in range(count + 1)]


@dataclass(frozen=True)
class Span:
    """The stretch of time that a picture shows, in milliseconds; the wait for an end of speech lies below 0."""

    start: float
    end: float

    def place(self, time: float) -> str:
        """Where a moment is, in the percent of style sheets."""
        return f"{100 * (time - self.start) / (self.end - self.start):.3f}%"

    def length(self, time: float) -> str:
        """How wide a time is."""
        return f"{100 * time / (self.end - self.start):.3f}%"


def heard_early(latency: Latency) -> float | None:
    """When the work began that was done before zero, while the end of speech was waited for; None when there was none.

    It cannot have begun before the pause was noticed, and it was done when the first token came.
    """
    work = sum(getattr(latency, stage) or 0.0 for stage in STAGES)
    if latency.endpoint is None or latency.first_token is None or work <= latency.first_token:
        return None
    return min(Thresholds().pause * 1000 - latency.endpoint, latency.first_token - work)


def waterfall(latencies: Mapping[str, Latency | None], texts: Texts) -> str:
    """HTML with the stages of each lane (None: not timed yet) on one axis; as high without figures as with them."""
    known = [latency for latency in latencies.values() if latency is not None]
    end, ticks = axis(max((_extent(latency) for latency in known), default=0.0))
    before = max((-_first(latency) for latency in known), default=0.0)
    earlier = [-ticks[1] * number for number in range(math.ceil(before / ticks[1]), 0, -1)]
    ticks = [*earlier, *ticks]
    span = Span(ticks[0], end)
    lanes = "".join(_lane(name, latency, span, texts) for name, latency in latencies.items())
    marks = "".join(
        f'<span class="tick" style="left:{span.place(tick)}">{tick:,.{0 if end >= 10 else 1}f}</span>' for tick in ticks
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
    parts = sum(value for _, value in segments(latency)) if heard_early(latency) is None else 0.0
    return max(parts, latency.total or 0.0, *(getattr(latency, marker) or 0.0 for marker in MARKERS))


def _first(latency: Latency) -> float:
    """The earliest moment there is to show."""
    return min(0.0, -(latency.endpoint or 0.0), heard_early(latency) or 0.0)


def _lane(name: str, latency: Latency | None, span: Span, texts: Texts) -> str:
    title = escape(texts.lanes.get(name, name))
    head = spoken = escape(texts.not_timed)
    timed: dict[str, float] = {}
    markers = ""
    position, early = 0.0, None
    if latency is not None:
        timed = dict(segments(latency))
        terms = [(term, getattr(latency, term)) for term in ("endpoint", *MARKERS, "total")]
        known = [(texts.term_names[term], milliseconds(value)) for term, value in terms if value is not None]
        head = " · ".join(f"<span>{escape(term)} <b>{value}</b></span>" for term, value in known)
        stages = [(texts.term_names[term], milliseconds(value)) for term, value in timed.items()]
        spoken = escape(", ".join(f"{term} {value}" for term, value in stages + known))
        markers = "".join(
            f'<span class="marker {marker}" style="left:{span.place(value)}" title="{_tip(marker, value, texts)}">'
            "</span>"
            for marker in MARKERS
            if (value := getattr(latency, marker)) is not None
        )
        if latency.endpoint is not None:
            markers += (
                f'<span class="waited" style="left:{span.place(-latency.endpoint)};'
                f'width:{span.length(latency.endpoint)}" title="{_tip("endpoint", latency.endpoint, texts)}"></span>'
            )
        early = heard_early(latency)
        position = early or 0.0
    rows = ""
    for term in [*ROWS.get(name, ()), *(term for term in timed if term not in ROWS.get(name, ()))]:
        if term == DECODE and early is not None and latency is not None:
            position = latency.first_token or 0.0
        rows += _row(term, position, timed.get(term), span, texts)
        position += timed.get(term, 0.0)
    return (
        f'<div class="waterfall-lane"><div class="waterfall-head"><span>{title}</span><span>{head}</span></div>'
        f'<div class="stages" role="img" aria-label="{title}: {spoken}">{rows}'
        f'<div class="markers">{markers}</div></div></div>'
    )


def _row(term: str, start: float, value: float | None, span: Span, texts: Texts) -> str:
    bar, number = "", "–"
    if value is not None:
        number = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
        bar = (
            f'<span class="segment {term}" style="left:{span.place(start)};width:{span.length(value)}" '
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
