"""Measures every lane on a set of clips: medians and 95th percentiles by clip length, and the ratio of the lanes.

What makes the numbers comparable: one lane at a time, both warmed up on two utterances that do not count, the order
of the lanes swapped from clip to clip, garbage collected before each answer and never during one, ratios formed clip
by clip, and every lane's own clock checked against a second one here.
"""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from assistant.commands.open_microphone import answer_spoken
from assistant.files import exists, printable, read_json_lines
from assistant.lanes.comparison import GAP, RATIO_TERMS, Measurement, summary
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Lane
from assistant.lanes.names import EARLY, typed
from assistant.latency import Latency, hardware
from assistant.sound.audio import AudioError, Utterance, load_utterance
from assistant.voice.tts import load_voice

AUDIO_ENDINGS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".aac", ".aiff"}
CLOCK_TOLERANCE = (20.0, 0.05)  # milliseconds, and share of the total, that a lane's clock may be off
BUSY = 0.25  # load average per core above which somebody else is computing
UNITS = {"reply_tokens": "", "tokens_per_second": "/s", "rtf": "x"}  # all other terms: ms

Report = Callable[[str], None]
Ask = Callable[[Lane, Utterance, str | None], tuple[Latency, float | None]]


def load_average() -> float | None:
    """Processes that wanted to run, averaged over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def find_clips(folder: Path) -> list[Path]:
    """The clips named by `manifest.jsonl` in the folder, or else every audio file below it; a file is its own clip.

    Raises
    ------
    AudioError
        No such file or folder, no clip in it, or a manifest that cannot be read.
    """
    if not exists(folder):
        raise AudioError(
            f"{printable(folder)} does not exist. Give audio files, or folders that hold some or a manifest.jsonl."
        )
    if folder.is_file():
        return [folder]
    manifest = folder / "manifest.jsonl"
    if manifest.is_file():
        try:
            clips = [folder / row["audio"] for row in read_json_lines(manifest)]
        except (ValueError, KeyError, TypeError) as error:
            raise AudioError(f'{manifest} must hold one JSON object with "audio" on every line: {error!r}') from error
    else:
        clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_ENDINGS)
    if not clips:
        raise AudioError(f"{folder} holds no audio ({', '.join(sorted(AUDIO_ENDINGS))}).")
    return clips


def load_clips(paths: Sequence[Path], report: Report) -> list[Utterance]:
    """The readable clips; the others are reported and left out.

    Raises
    ------
    AudioError
        None is readable.
    """
    clips = []
    for path in paths:
        try:
            clips.append(load_utterance(path))
        except AudioError as error:
            report(f"skipped: {error}")
    if not clips:
        raise AudioError("No clip could be read.")
    return clips


def measure(
    lanes: Mapping[str, Lane],
    clips: Sequence[Utterance],
    instruction: str | None = None,
    repeat: int = 1,
    report: Report = lambda message: None,
    ask: Ask | None = None,
) -> list[Measurement]:
    """Answer every clip with every lane, `repeat` times.

    A clip that any lane refuses (no words heard) counts for none, so that all lanes are judged by the same clips.

    Parameters
    ----------
    ask: how a clip is put to a lane, giving the lane's own record and the milliseconds that passed, if known; as a
        file, unless said otherwise.

    Raises
    ------
    AudioError
        No clip is left.
    """
    ask = ask or _ask
    names = list(lanes)
    by_length = sorted(clips, key=lambda clip: clip.duration)
    for name in names:
        for clip in (by_length[0], by_length[-1]):
            with contextlib.suppress(AudioError):
                ask(lanes[name], clip, instruction)
    done: list[Measurement] = []
    refused: set[int] = set()
    for turn in range(repeat):
        for number, clip in enumerate(clips):
            report(f"{turn * len(clips) + number + 1}/{repeat * len(clips)}  {clip.name}")
            for name in names if (turn + number) % 2 == 0 else reversed(names):
                if number in refused:
                    continue
                try:
                    latency, elapsed = ask(lanes[name], clip, instruction)
                except AudioError as error:
                    report(f"skipped: {clip.name}, {name}: {error}")
                    refused.add(number)
                    continue
                absolute, share = CLOCK_TOLERANCE
                if elapsed is not None and abs(elapsed - (latency.total or 0.0)) > absolute + share * elapsed:
                    report(f"{clip.name}, {name}: says {latency.total} ms, but took {elapsed:.0f} ms; do not trust it")
                done.append(Measurement(number, clip.duration, name, latency))
    done = [measurement for measurement in done if measurement.clip not in refused]
    if not done:
        raise AudioError("No lane could answer any clip.")
    return done


def hands_free() -> Ask:
    """Clips put to the lanes as if they were spoken into an open microphone, replies spoken by the natural voice."""
    voice = load_voice()
    assert voice is not None
    voice.warm_up()

    def ask(lane: Lane, clip: Utterance, instruction: str | None) -> tuple[Latency, float | None]:
        gc.collect()
        return answer_spoken(lane, clip, instruction, voice, lane.name == EARLY), None  # its clock starts within

    return ask


def _ask(lane: Lane, clip: Utterance, instruction: str | None) -> tuple[Latency, float]:
    """One answer: the lane's own record, and the milliseconds that passed here."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        reply = lane.reply(Turn.spoken(clip, instruction))
        elapsed = (time.perf_counter() - start) * 1000
    finally:
        gc.enable()
    return reply.latency, elapsed


def table(result: Mapping[str, Any]) -> str:
    """The summary for people: terms as rows, lanes as columns, all clips first and then by length."""
    lines = list(_section("All clips", result, [*(field.name for field in fields(Latency)), GAP]))
    for bucket in result["by_duration"]:
        lines += ["", *_section(bucket["duration"], bucket, RATIO_TERMS)]
    return "\n".join(line.rstrip() for line in lines)


def _section(title: str, result: Mapping[str, Any], terms: Sequence[str]) -> Iterator[str]:
    lanes, ratio = result["lanes"], result["ratio"]
    count = result["clips"]
    title = f"{title} ({count} clip{'s' if count != 1 else ''})"
    yield f"{title:<26}" + "".join(f"{typed(name):>20}" for name in lanes) + f"{'ratio' if ratio else '':>9}"
    yield " " * 26 + f"{'median':>11}{'p95':>9}" * len(lanes)
    for term in terms:
        if not any(term in lane for lane in lanes.values()):
            continue
        row = f"  {term:<18}{UNITS.get(term, 'ms'):<6}"
        for lane in lanes.values():
            value = lane.get(term)
            row += f"{_number(value['median']):>11}{_number(value['p95']):>9}" if value else f"{'-':>11}{'-':>9}"
        yield row + (f"{ratio[term]:>9.2f}" if term in ratio else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def peak_memory() -> float | None:
    """The most memory this process has held, in GiB; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on a Mac
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)


def benchmark(
    lanes: Mapping[str, Lane],
    paths: Sequence[Path],
    precision: str,
    load: float | None,
    instruction: str | None = None,
    repeat: int = 1,
    report: Report = lambda message: None,
    ask: Ask | None = None,
) -> tuple[str, dict[str, Any]]:
    """The whole run: the text for people and the object for programs.

    `load` is the load average before the models were loaded, which themselves keep the machine busy; `ask` as in
    `measure`.

    Raises
    ------
    AudioError
        No clip could be read or answered.
    """
    clips = load_clips(paths, report)
    result = summary(measure(lanes, clips, instruction, repeat, report, ask))
    skipped = len(paths) - result["clips"]
    threads = torch.get_num_threads()
    heading = [hardware(), f"{precision}; {threads} threads; {repeat} repeat{'s' if repeat != 1 else ''} per clip"]
    if ask is not None:
        heading.append("hands-free: zero is when the utterance was closed; the end-to-end lane had heard it early")
    if skipped:
        heading.append(f"{skipped} of {len(paths)} clips skipped, named above")
    if load is not None and load > BUSY * (os.cpu_count() or 1):
        heading.append(f"WARNING: the machine was busy before the start (load average {load}): too slow, too uneven")
    facts = {"hardware": hardware(), "precision": precision, "threads": threads, "load_average": load}
    facts["hands_free"] = ask is not None
    memory = {"peak_memory_gib": peak_memory(), "skipped": skipped, "repeat": repeat, "instruction": instruction}
    return "\n".join([*heading, "", table(result)]), {**facts, **memory, **result}
