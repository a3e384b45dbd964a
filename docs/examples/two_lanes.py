"""Both lanes on one recording, from Python: what each heard, said, and how long its first word took.

.venv/bin/python -m docs.examples.two_lanes assets/samples/capital.flac
"""

import sys

from assistant import Heard, Reply, TextDelta, Turn, load_lanes, load_utterance


def main(path: str) -> None:
    """Answer one recording with each lane, streamed."""
    turn = Turn.spoken(load_utterance(path))
    for name, lane in load_lanes().items():
        for chunk in lane.answer(turn):
            match chunk:
                case Heard(text):
                    print(f"{name} heard: {text}\n  ", end="")
                case TextDelta(text):
                    print(text, end="", flush=True)
                case Reply(latency=latency):
                    print(f"\n  first word after {latency.first_token:.0f} ms, all after {latency.total:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
