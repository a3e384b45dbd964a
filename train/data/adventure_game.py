"""What the actors of an adventure game say: real, fluent speech of a large cast, from a Debian package.

    apt-get download flight-of-the-amazon-queen
    python -m train.data.adventure_game flight-of-the-amazon-queen_*.deb --out runs/adventure_game
    python -m train.labels.script runs/adventure_game/{manifest,script}.jsonl --out runs/game_script

*Flight of the Amazon Queen* (1995) is freeware that may be changed and passed on. Its resource file begins with a table
of names, offsets and sizes, big-endian. The speech is MP3 at 11 kHz, a sentence or two a clip; the script is in the
dialogues, but which of its lines a clip says is not: that is for `train.labels.script` to find.
"""

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assistant.sound.audio import AudioError, load_utterance
from train.command_line import command_line, told
from train.data.debian_package import read_from_package
from train.data.manifest import write_manifest
from train.data.sentences import write_sentences

RESOURCES = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
TABLE = struct.Struct(">4s9xH")  # magic; version and compression; number of resources
RESOURCE = struct.Struct(">12sxII")  # name; bundle; offset; size
SPEECH = ".SB"
DIALOGUE = (".DOG", ".CUT")
DESCRIPTIONS = "QUEEN2.JAS"  # what the hero says of things, one a line
DIRECTION = re.compile(r"\*(?:\d\d?|[A-Z]{2})")  # which face to make; a clip ends there


def resources(data: bytes) -> dict[str, bytes]:
    """Every resource by its name. Raises ValueError when this is not the game's file."""
    try:
        magic, count = TABLE.unpack_from(data)
        entries = [RESOURCE.unpack_from(data, TABLE.size + number * RESOURCE.size) for number in range(count)]
    except struct.error as error:
        raise ValueError(f"The table of resources is cut off: {error}.") from error
    if magic != b"QTBL":
        raise ValueError("This is not the game's table of resources.")
    return {name.rstrip(b"\0").decode("ascii"): data[offset : offset + size] for name, offset, size in entries}


def strings(dialogue: bytes) -> Iterator[str]:
    """Printable strings: each has its length before it, a zero after the last of a row."""
    start = 0
    while start < len(dialogue):
        row, end = [], start
        while end < len(dialogue) and (length := dialogue[end]):
            text = dialogue[end + 1 : end + 1 + length]
            if len(text) < length or not all(0x20 <= character < 0x7F for character in text):
                break
            row.append(text.decode("ascii"))
            end += 1 + length
        complete = row and dialogue[end : end + 1] == b"\0"
        if complete:
            yield from row
        start = end if complete else start + 1


def script(game: dict[str, bytes]) -> list[str]:
    """The distinct lines of the script, as they are cut into clips. Raises ValueError when a part of it is missing."""
    if DESCRIPTIONS not in game:
        raise ValueError(f"{DESCRIPTIONS} is missing.")
    spoken = [text for name, data in game.items() if name.endswith(DIALOGUE) for text in strings(data)]
    spoken += game[DESCRIPTIONS].decode("latin-1").splitlines()
    lines = (" ".join(line.split()) for text in spoken for line in DIRECTION.split(text))
    return list(dict.fromkeys(line for line in lines if re.search(r"[A-Za-z]{2}", line)))


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("package", type=Path, help="Debian's package file flight-of-the-amazon-queen")
    arguments = parser.parse_args()
    try:
        game = resources(read_from_package(arguments.package, RESOURCES))
        lines = script(game)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{error} The top of train/data/adventure_game.py says which package is needed.") from error
    arguments.out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    clips = [name for name in game if name.endswith(SPEECH)]
    for name in tqdm(clips, desc="Unpacking", unit=" clips"):
        path = arguments.out / f"{name.removesuffix(SPEECH)}.mp3"
        path.write_bytes(game[name])
        try:
            duration = load_utterance(path).duration
        except AudioError:
            continue
        entries.append(
            {"audio": str(path), "text": None, "speaker": None, "duration": duration, "source": "amazon-queen"}
        )
    write_sentences(arguments.out / "script.jsonl", lines)
    write_manifest(arguments.out / "manifest.jsonl", entries)
    hours = sum(entry["duration"] for entry in entries) / 3600
    unusable = len(clips) - len(entries)
    print(f"{len(entries):,} clips, {hours:.1f} h, {unusable} others unusable; {len(lines):,} lines of the script.")


if __name__ == "__main__":
    main()
