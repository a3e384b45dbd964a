"""The operating system's voice as a process: one request in JSON per line in, one answer per line out.

A request holds `text`, `path` (where the sound goes), `speed` and `chinese`; an answer holds `problem`, null if none.
"""

import json
import sys
from typing import Any

from assistant.system_packages import install_command


def main() -> None:
    """Speak into files until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # pyttsx3 prints
    engine, problem = _engine()
    for line in sys.stdin:
        if engine is not None:
            try:
                _speak(engine, **json.loads(line))
            except Exception as error:  # engines raise what they like; the process that asked must hear of it
                problem = str(error) or type(error).__name__
        print(json.dumps({"problem": problem}), file=answers, flush=True)


def _engine() -> tuple[Any, str | None]:
    try:
        import pyttsx3

        return pyttsx3.init(), None
    except ImportError:
        return None, f"pyttsx3 is missing: {sys.executable} -m pip install pyttsx3"
    except Exception as error:  # a missing library of the system is an error of many kinds
        if sys.platform.startswith("linux"):
            return None, f"espeak-ng is missing: {install_command('espeak-ng')}"
        return None, str(error) or type(error).__name__


def _speak(engine: Any, text: str, path: str, speed: float, chinese: bool) -> None:
    engine.setProperty("rate", int(180 * speed))  # words a minute; an unhurried reader's
    if chinese:
        known = [voice.id for voice in engine.getProperty("voices") if "cmn" in voice.id or "zh" in voice.id.lower()]
        if not known:
            raise RuntimeError("it knows no Chinese")
        engine.setProperty("voice", known[0])
    engine.save_to_file(text, path)
    engine.runAndWait()


if __name__ == "__main__":
    main()
