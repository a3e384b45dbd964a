"""PortAudio through `sounddevice`, imported only when used: which devices there are, and a stream on one of them."""

from collections.abc import Callable
from typing import Any, Literal

from assistant.system_packages import install_command

BLOCK = 0.032  # seconds of sound handed over at a time

Device = int | str | None  # number or part of a name, as `--list-devices` shows them; None is the system's choice


class SoundDeviceError(RuntimeError):
    """No sound can go in or out; the message says why and what to do."""


def sound_library(refresh: bool = False) -> Any:
    """The `sounddevice` module; `refresh` looks for devices again that were plugged in since.

    Raises
    ------
    SoundDeviceError
        It, or PortAudio, is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise SoundDeviceError("The package sounddevice is missing. Run python launch.py doctor.") from error
    except OSError as error:
        raise SoundDeviceError(f"PortAudio is missing: {install_command('portaudio')}.") from error
    if refresh:  # the only way: PortAudio lists devices once, when it starts
        sounddevice._terminate()
        sounddevice._initialize()
    return sounddevice


def devices_in_words() -> str:
    """Every microphone and loudspeaker, one a line: number, name, what it can do. Raises SoundDeviceError."""
    library = sound_library()
    lines = []
    for number, device in enumerate(library.query_devices()):
        can = [
            f"{what} ({device[f'max_{way}_channels']} channels)"
            for way, what in (("input", "microphone"), ("output", "loudspeaker"))
            if device[f"max_{way}_channels"] > 0
        ]
        lines.append(f"{number:3}  {device['name']}: {', '.join(can)}, {device['default_samplerate']:.0f} Hz")
    return "\n".join(lines) or "No sound devices were found. Plug one in and try again."


def open_stream(
    way: Literal["input", "output"], device: Device, rate: int, callback: Callable[..., None], refresh: bool = False
) -> tuple[Any, int]:
    """A started stream of float32 and the rate it runs at: `rate` if the device takes it, else the device's own.

    It has one channel where the device allows that, else the device's number of channels.

    Raises
    ------
    SoundDeviceError
        There is no such device, or it cannot be opened.
    """
    library = sound_library(refresh)
    what = "microphone" if way == "input" else "loudspeaker"
    try:
        found = library.query_devices(device, way)
    except (library.PortAudioError, ValueError) as error:
        if device is None:
            raise SoundDeviceError(f"No {what} was found. Plug one in.") from error
        raise SoundDeviceError(f"There is no {what} {device!r}. See: python launch.py talk --list-devices") from error
    own, channels = int(found["default_samplerate"]), int(found[f"max_{way}_channels"])
    if channels < 1:
        raise SoundDeviceError(f"{found['name']} is no {what}. See: python launch.py talk --list-devices")
    kind = library.InputStream if way == "input" else library.OutputStream
    problem: Exception | None = None
    for hertz, count in dict.fromkeys([(rate, 1), (own, 1), (own, channels)]):
        try:
            block = int(BLOCK * hertz)
            stream = kind(
                samplerate=hertz, channels=count, blocksize=block, device=device, dtype="float32", callback=callback
            )
            stream.start()
        except library.PortAudioError as error:
            problem = error
        else:
            return stream, hertz
    raise SoundDeviceError(f"The {what} {found['name']} cannot be opened ({problem}). Close what uses it.")
