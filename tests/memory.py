"""Whether answering makes the process grow: `python -m tests.memory`, one JSON line in the end.

Clips of ever new lengths, each heard by both lanes and answered in a few words. What grows is what was kept for a
length; what stays is what the models need.
"""

import json
import time

import numpy as np
import psutil

from assistant.files import SAMPLES
from assistant.lanes.dialogue import Turn
from assistant.lanes.loading import load_lanes
from assistant.lanes.names import END_TO_END
from assistant.sound.audio import SAMPLE_RATE, Utterance, load_utterance

CLIPS = 60  # in a round, of 1 to 13 s; odd rounds bring new lengths, even ones repeat them


def main() -> None:
    """Print resident memory and the median time to hear a clip after every round."""
    speech = np.tile(load_utterance(SAMPLES / "jfk.flac").resampled(), 2)
    lanes = load_lanes()
    process = psutil.Process()
    figures = []
    for number in range(6):
        lengths = np.random.default_rng(number // 2).uniform(1, 13, CLIPS)
        row: dict[str, float] = {}
        for name, lane in lanes.items():
            times = []
            for seconds in lengths if name == END_TO_END else lengths[:10]:
                turn = Turn.spoken(Utterance(speech[: int(seconds * SAMPLE_RATE)]))
                began = time.perf_counter()
                ready = lane.anticipate(turn)
                ready.take(turn)
                times.append(time.perf_counter() - began)
            row[f"{name}_ms"] = round(1000 * float(np.median(times)), 1)
        row["resident_mb"] = round(process.memory_info().rss / 2**20)
        figures.append(row)
        print(row, flush=True)
    print(json.dumps({"clips": CLIPS, "rounds": figures}))


if __name__ == "__main__":
    main()
