"""Sentences of public-domain books that Debian packages hold: words and grammar that everyday sentences lack.

    apt-get install --no-install-recommends bible-kjv && apt-get download r-cran-janeaustenr
    python -m train.data.literature --austen r-cran-janeaustenr_*.deb --out runs/literature.jsonl
    python -m train.synthesis.synthesize runs/literature.jsonl --out runs/literature

The King James Bible is printed by the program `bible`; the novels are read from the package file itself, nothing of R
is needed. *Sense and Sensibility* is left out: a set that the reading is measured on takes clips from it.
"""

import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from train.command_line import command_line, told
from train.data.debian_package import read_from_package
from train.data.sentences import write_sentences

NOVELS = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
LEFT_OUT = "SENSE AND SENSIBILITY"
PUNCTUATION = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "-", "_": " "})


def sentences(text: str) -> list[str]:
    """The text cut where a reader breathes, at full stops, colons and semicolons; on one line each, straight quotes."""
    plain = " ".join(text.translate(PUNCTUATION).replace("--", ", ").replace('"', "").split())
    return [part.strip() for part in re.split(r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)[.:;?!]+", plain) if part.strip()]


def bible() -> str:
    """The King James Bible without its numbering."""
    printed = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return re.sub(r"^\S+\d+:\d+ ", "", printed.stdout, flags=re.MULTILINE)


def novels(package: Path) -> Iterator[str]:
    """The novels in the Debian package: each an R character vector of printed lines, in a zlib stream of its own."""
    packed = read_from_package(package, NOVELS)
    while packed:
        stream = zlib.decompressobj()
        unpacked = stream.decompress(packed[4:])  # four bytes of length before each stream
        packed = stream.unused_data
        lines = []
        position = unpacked.find(b"\x00\x04\x00\x09")
        while unpacked[position : position + 4] == b"\x00\x04\x00\x09":  # an R string: flags, length, bytes
            length = int.from_bytes(unpacked[position + 4 : position + 8], "big")
            lines.append(unpacked[position + 8 : position + 8 + length].decode("utf-8", "replace"))
            position += 8 + length
        if lines[0] != LEFT_OUT:
            yield "\n".join(lines)


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__, "JSON lines that train.synthesis.synthesize reads")
    parser.add_argument("--austen", type=Path, required=True, help="Debian's package file r-cran-janeaustenr")
    arguments = parser.parse_args()
    try:
        books = [bible(), *novels(arguments.austen)]
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{error}. The top of train/data/literature.py says which packages are needed.") from error
    found = list(dict.fromkeys(sentence for book in books for sentence in sentences(book)))
    write_sentences(arguments.out, found)
    print(f"{len(found):,} distinct sentences of {len(books)} books.")


if __name__ == "__main__":
    main()
