"""Latency as a picture: one stacked bar a lane on a common time axis, and the figures behind it as a table."""

import math
from collections.abc import Mapping
from html import escape

from assistant.latency import STAGES, TERMS, Latency
from ui import texts

DECODE = "decode"
SEGMENTS = (*STAGES, DECODE)
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


def latency_bars(latencies: Mapping[str, Latency | None], hardware: str = "") -> str:
    """HTML with a bar for each lane (None: not timed yet), the axis, a legend and the table of all terms."""
    known = [latency for latency in latencies.values() if latency is not None]
    end, ticks = axis(max((_extent(latency) for latency in known), default=0.0))
    rows = "".join(_row(name, latency, end) for name, latency in latencies.items())
    marks = "".join(
        f'<span class="tick" style="left:{_percent(tick, end)}">{tick:,.{0 if end >= 10 else 1}f}</span>'
        for tick in ticks
    )
    machine = f'<p class="note">{texts.MEASURED_ON} {escape(hardware)}.</p>' if hardware else ""
    return (
        f'<section class="latency" aria-label="{escape(texts.TIMING)}">'
        f'<h2>{escape(texts.TIMING)}</h2><p class="note">{escape(texts.TIMING_HOW)}</p>{rows}'
        f'<div class="axis" aria-hidden="true">{marks}<span class="unit">ms</span></div>{_legend(known)}'
        f"{_table(latencies)}{machine}</section>"
    )


def _extent(latency: Latency) -> float:
    parts = sum(value for _, value in segments(latency))
    return max(parts, latency.total or 0.0, *(getattr(latency, marker) or 0.0 for marker in MARKERS))


def _percent(value: float, end: float) -> str:
    return f"{100 * value / end:.3f}%"


def _words(term: str) -> str:
    return term.replace("_", " ")


def _meaning(term: str) -> str:
    return texts.DECODE if term == DECODE else TERMS[term]


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _row(name: str, latency: Latency | None, end: float) -> str:
    title = escape(texts.LANES.get(name, name))
    if latency is None:
        head, drawn, spoken = texts.NOT_TIMED, "", texts.NOT_TIMED
    else:
        terms = [(term, getattr(latency, term)) for term in (*MARKERS, "total")]
        head = " · ".join(
            f"<span>{_words(term)} <b>{_milliseconds(value)}</b></span>" for term, value in terms if value is not None
        )
        position, drawn = 0.0, ""
        for term, value in segments(latency):
            drawn += (
                f'<span class="segment {term}" style="left:{_percent(position, end)};width:{_percent(value, end)}" '
                f'title="{_tip(term, value)}"><span>{_words(term)} {value:,.0f}</span></span>'
            )
            position += value
        for marker in MARKERS:
            if (value := getattr(latency, marker)) is not None:
                drawn += (
                    f'<span class="marker {marker}" style="left:{_percent(value, end)}" '
                    f'title="{_tip(marker, value)}"></span>'
                )
        spoken = ", ".join(f"{_words(term)} {_milliseconds(value)}" for term, value in segments(latency))
    return (
        f'<div class="latency-row"><div class="latency-head"><span>{title}</span><span>{head}</span></div>'
        f'<div class="track" role="img" aria-label="{title}: {escape(spoken)}">{drawn}</div></div>'
    )


def _tip(term: str, value: float) -> str:
    return escape(f"{_words(term)}: {_milliseconds(value)}\n{_meaning(term)}")


def _legend(latencies: list[Latency]) -> str:
    """The keys of what is drawn; before anything is, those of all segments, so that the height stays."""
    used = {name for latency in latencies for name, _ in segments(latency)} or set(SEGMENTS)
    markers = {name for name in MARKERS if any(getattr(latency, name) is not None for latency in latencies)}
    keys = [(f"swatch {name}", name) for name in SEGMENTS if name in used]
    keys += [(f"key-marker {name}", name) for name in MARKERS if name in (markers or {"first_token"})]
    items = "".join(
        f'<li title="{escape(_meaning(name))}"><i class="{style}"></i>{_words(name)}</li>' for style, name in keys
    )
    return f'<ul class="legend">{items}</ul>'


def _table(latencies: Mapping[str, Latency | None]) -> str:
    def cell(latency: Latency | None, term: str) -> str:
        if latency is None:
            return "–"
        value = dict(segments(latency)).get(DECODE) if term == DECODE else getattr(latency, term)
        if value is None:
            return "–"
        return f"{value:,.2f}" if term in ("rtf", "tokens_per_second") else f"{value:,.0f}"

    heads = "".join(f'<th scope="col">{escape(texts.LANES.get(name, name))}</th>' for name in latencies)
    terms = [*STAGES, DECODE, *(term for term in TERMS if term not in STAGES)]
    body = "".join(
        f'<tr><th scope="row">{_words(term)}<small>{escape(_meaning(term))}</small></th>'
        + "".join(f"<td>{cell(latency, term)}</td>" for latency in latencies.values())
        + "</tr>"
        for term in terms
    )
    return (
        f'<details class="figures"><summary>{escape(texts.TABLE)}</summary>'
        f'<p class="note">{escape(texts.MILLISECONDS)}</p>'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table></details>"
    )
