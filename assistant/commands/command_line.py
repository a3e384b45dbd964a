"""The command line of `launch.py`: what can be asked for, and what is refused before anything heavy is imported."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from assistant.files import SAMPLES, exists
from assistant.lanes.names import LANES, typed

MODEL_OPTIONS = ("llm", "system", "whisper", "checkpoint", "precision")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    models = shared.add_argument_group("models")
    models.add_argument("--llm", metavar="NAME", help="a chat LLM: its name (models.toml, hub), folder or GGUF file")
    models.add_argument("--system", metavar="TEXT", help="what both lanes are told before all else")
    models.add_argument("--whisper", metavar="NAME", help="a Whisper size, such as whisper-base")
    models.add_argument("--checkpoint", metavar="DIR", type=Path, help="a trained speech-LLM")
    models.add_argument("--precision", help="auto, int8, float32, float16 or bfloat16")
    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument("--instruction", metavar="TEXT", help="what to do with the speech; without it, it is answered")
    asking.add_argument("--lane", choices=["both", *map(typed, LANES)], default="both")

    top = argparse.ArgumentParser(prog="launch.py", description="Speak; two lanes answer.", parents=[shared])
    top.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
    top.add_argument("--port", type=port, default=7860, help="first port to try (default: 7860)")
    top.add_argument("--no-browser", action="store_true", help="do not open the page")
    top.add_argument("--window", action="store_true", help="open the page in a window of its own (needs pywebview)")
    top.add_argument("--user", metavar="NAME:PASSWORD", type=user, help="ask for it (or set EARSHOT_USER to it)")
    top.add_argument("--certificate", metavar="FILE", type=Path, help="serve over https with this certificate (PEM)")
    top.add_argument("--key", metavar="FILE", type=Path, help="the certificate's private key (PEM)")
    top.add_argument("--share", action="store_true", help="a public link through Gradio's service, for a week")
    commands = top.add_subparsers(dest="command", metavar="{ask,talk,bench,doctor,test}")
    one = commands.add_parser("ask", parents=[shared, asking], help="answer audio files in the terminal")
    one.add_argument("audio", nargs="+", type=Path)
    one.add_argument("--json", action="store_true", help="one JSON object per clip, and nothing else")
    live = commands.add_parser("talk", parents=[shared, asking], help="speak, at this machine's own microphone")
    live.add_argument("--push-to-talk", action="store_true", help="Enter begins and ends what you say")
    live.add_argument("--barge-in", action="store_true", help="listen while it speaks, too (with headphones)")
    live.add_argument("--voice", default="natural", help="natural, system or silent (default: natural)")
    live.add_argument("--speed", type=float, default=1.0, help="of the voice, 0.5 to 2 (default: 1)")
    live.add_argument("--list-devices", action="store_true", help="show microphones and loudspeakers, and end")
    live.add_argument("--device", type=device, metavar="NAME", help="microphone: number or part of its name")
    live.add_argument("--output-device", type=device, metavar="NAME", help="loudspeaker, likewise")
    many = commands.add_parser("bench", parents=[shared, asking], help="measure the lanes on a set of clips")
    many.add_argument(
        "clips", nargs="*", type=Path, default=[SAMPLES], help="files, or folders of them (default: ours)"
    )
    many.add_argument("--repeat", type=positive, default=1, metavar="N", help="answers per clip and lane")
    many.add_argument("--hands-free", action="store_true", help="as if spoken into an open microphone, replies spoken")
    commands.add_parser("doctor", help="what is installed, what is missing, and how to get it")
    commands.add_parser("test", help="run the tests; what follows goes to pytest")
    return top


def as_files(arguments: Sequence[str]) -> list[str]:
    """The arguments, with files that look like options (`-take.wav`, which a shell makes of `*.wav`) made to be files.

    No option has a dot in its name.
    """
    return [f".{os.sep}{one}" if one.startswith("-") and "." in one and exists(Path(one)) else one for one in arguments]


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is not a port; use 1 to 65535")
    return int(text)


def device(text: str) -> int | str:
    """A sound device: its number, or a part of its name."""
    return int(text) if text.isdigit() else text


def user(text: str) -> tuple[str, str] | None:
    """NAME:PASSWORD -> both; None for nothing."""
    name, _, password = text.partition(":")
    if text and not (name and password):
        raise argparse.ArgumentTypeError("a user is NAME:PASSWORD, both not empty")
    return (name, password) if text else None


def positive(text: str) -> int:
    """A whole number above 0."""
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)
