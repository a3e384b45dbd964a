"""Start here: `python launch.py` opens the page; ask, talk, bench, doctor and test are the other things it can do.

The first start prepares a `.venv` beside this file. Torch and the rest are imported only by what needs them.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # said before anything below fails to be understood
    sys.exit("Earshot needs Python 3.11 or newer; this is Python {}.{}.".format(*sys.version_info[:2]))

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING

from assistant.commands import doctor, environment
from assistant.commands.command_line import MODEL_OPTIONS, as_files, parser, user
from assistant.files import ROOT, SAMPLES, cache_directory, matching, printable
from assistant.lanes.names import LANES, typed
from assistant.process import folder_of_our_own, temporary_files_in
from assistant.system_packages import chromium_advice

if TYPE_CHECKING:
    from assistant.lanes.lane import Lane

DONE, OUR_FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes


class BadInput(Exception):
    """What was asked for cannot be done; the message says which input and what to do."""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # replies may be Chinese where the terminal is not
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        if arguments[:1] == ["test"]:  # everything after it belongs to pytest
            return test(arguments[1:])
        options = parser().parse_args(as_files(arguments))
        options.given = arguments
        if options.command != "doctor":
            environment.ensure(["runtime"], ROOT / "launch.py", arguments)
        return {"ask": ask, "talk": talk, "bench": bench, "doctor": diagnose, None: page}[options.command](options)
    except BadInput as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough; Python must not try to flush the rest on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except environment.PreparationError as error:
        print(error, file=sys.stderr)
        return OUR_FAULT
    except Exception as error:
        if os.environ.get("EARSHOT_DEBUG"):
            raise
        first = (str(error).splitlines() or ["no message"])[0]
        print(f"Earshot failed: {type(error).__name__}: {first} (EARSHOT_DEBUG=1 shows where)", file=sys.stderr)
        return OUR_FAULT


def page(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or until its window is closed."""
    spaces = importlib.import_module("spaces") if importlib.util.find_spec("spaces") else None  # must precede torch
    from ui import desktop
    from ui.serving import Address, ServingError, serve

    try:
        login = options.user or user(os.environ.get("EARSHOT_USER", ""))
    except argparse.ArgumentTypeError as error:
        raise BadInput(f"EARSHOT_USER: {error}.") from error
    if bool(options.certificate) != bool(options.key):
        raise BadInput("--certificate and --key belong together: give both, or neither.")
    hosted = "SPACE_ID" in os.environ  # a Hugging Face Space: its own front door leads to this port
    host = options.host or ("0.0.0.0" if hosted else "127.0.0.1")
    if not login and not hosted and (options.share or not _local(host)):
        print("Anyone who can reach this machine can use the page: consider --user NAME:PASSWORD.", file=sys.stderr)
    port = options.port if hosted else free_port(host, options.port)
    try:
        show = desktop.in_window() if options.window else desktop.in_browser(not options.no_browser and not hosted)
        address = Address(host, port, options.certificate, options.key, login, options.share)
        load = functools.partial(load_lanes, options)
        if spaces and hosted:  # a lent GPU takes over what is in memory when serving begins
            from assistant.lanes.zero_gpu import on_zero_gpu

            lanes = on_zero_gpu(load(), spaces)
            serve(lambda: lanes, SAMPLES, address, show)
        else:
            serve(load, SAMPLES, address, show)
    except (ServingError, desktop.WindowUnavailable) as error:
        raise BadInput(str(error)) from error
    return DONE


def ask(options: argparse.Namespace) -> int:
    """Answer clips in the terminal, or as JSON lines."""
    from assistant.commands.ask import as_object, tell
    from assistant.sound.audio import AudioError, load_utterance

    lanes: dict[str, Lane] = {}
    problems = 0
    instruction = options.instruction or None
    for path in (path for given in options.audio for path in matching(given)):  # one is held at a time
        try:
            utterance = load_utterance(path)
            with contextlib.redirect_stdout(sys.stderr):  # libraries that print must not get between the JSON lines
                lanes = lanes or load_lanes(options)  # not before there is something to answer
                answer = as_object(path, utterance, instruction, lanes) if options.json else None
            if answer is None:
                tell(path, utterance, instruction, lanes)
            else:
                print(printable(json.dumps(answer, ensure_ascii=False)), flush=True)
        except AudioError as error:
            said, where = printable(error), printable(path)
            print(said if where in said else f"{where}: {said}", file=sys.stderr)
            problems += 1
    return BAD_INPUT if problems else DONE


def talk(options: argparse.Namespace) -> int:
    """Speak and be answered in the terminal until Ctrl-C."""
    from assistant.commands import talk as conversation
    from assistant.sound import sound_devices
    from assistant.voice import tts

    try:
        if options.list_devices:
            print(sound_devices.devices_in_words())
            return DONE
        voice = tts.load_voice(options.voice, options.speed)
        if voice is not None:
            voice.warm_up()
    except (sound_devices.SoundDeviceError, tts.SpeechUnavailable, ValueError) as error:
        raise BadInput(str(error)) from error
    print("Loading the models…", file=sys.stderr, flush=True)
    named = {name: getattr(options, name) for name in ("push_to_talk", "barge_in", "device", "output_device")}
    wanted = conversation.TalkOptions(instruction=options.instruction or "", **named)
    with folder_of_our_own(cache_directory(), "visitors-") as folder, temporary_files_in(folder):  # voices write files
        conversation.Talk(load_lanes(options), voice, wanted).run()
    return DONE


def bench(options: argparse.Namespace) -> int:
    """Measure the lanes; the last line is one JSON object."""
    from assistant.commands import bench as benchmark
    from assistant.sound.audio import AudioError

    load = benchmark.load_average()
    try:
        paths = [clip for given in options.clips for found in matching(given) for clip in benchmark.find_clips(found)]
        with contextlib.redirect_stdout(sys.stderr):
            lanes = load_lanes(options)
            from assistant.lanes.loading import precision_in_words

            text, result = benchmark.benchmark(
                lanes,
                paths,
                precision_in_words(lanes),
                load,
                options.instruction or None,
                options.repeat,
                _progress,
                benchmark.hands_free() if options.hands_free else None,
            )
    except AudioError as error:
        raise BadInput(str(error)) from error
    print(text, json.dumps(result, ensure_ascii=False), sep="\n\n")
    return DONE


def diagnose(options: argparse.Namespace) -> int:
    """Look, without preparing anything: inside the `.venv` when there is one, in this Python otherwise."""
    found = environment.Environment()
    if not found.usable_here(["runtime"]) and found.prepared(["runtime"]):
        found.enter(ROOT / "launch.py", options.given)
    return doctor.report(found, options.host, bool(options.certificate))


def test(arguments: list[str]) -> int:
    """Run pytest, installing it the first time."""
    environment.ensure(["runtime", "test"], ROOT / "launch.py", ["test", *arguments])
    advice = chromium_advice()
    if advice:
        print(f"The tests of the page need Chromium: {advice}", file=sys.stderr)
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)


def load_lanes(options: argparse.Namespace) -> "dict[str, Lane]":
    """The lanes of `--lane`, in the order they answer, with the models that were asked for."""
    from assistant.lanes import loading as lanes
    from assistant.model.checkpoint import CheckpointError
    from assistant.model.weights import WeightsError

    named = {name: getattr(options, name) for name in MODEL_OPTIONS if hasattr(options, name)}
    wanted = tuple(name for name in LANES if getattr(options, "lane", "both") in ("both", typed(name)))
    try:
        return lanes.load_lanes(lanes.ModelOptions(lanes=wanted, **named))
    except (CheckpointError, WeightsError) as error:
        if named:
            raise BadInput(str(error)) from error
        raise


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on; raises BadInput when the next 100 are taken."""
    for port in range(first, min(first + 100, 65536)):
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise BadInput(f"{host} is not an address of this machine: {error}. Use --host 127.0.0.1.") from error
        with socket.socket(addresses[0][0], socket.SOCK_STREAM) as listener:
            if os.name != "nt":  # there it would let two programs share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(addresses[0][4])
                return port
    raise BadInput(f"No free port on {host} from {first} on. Give another with --port.")


def _progress(message: str) -> None:
    print(printable(message), file=sys.stderr, flush=True)


def _local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
