"""What a run tells while it trains: figures and what was left out, as JSON lines and for TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assistant.files import read_log, write_json_lines

SHOWN = 5  # samples of a step that was left out; the file has all of them


class Log:
    """Figures of a run, as JSON lines and for TensorBoard; what was logged after the last checkpoint is dropped."""

    def __init__(self, out: Path, start: int, skipped: list[dict[str, str]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / "log.jsonl"
        known = list(read_log(self._path))
        write_json_lines(self._path, (figures for figures in known if figures.get("step", 0) <= start))
        write_json_lines(out / "skipped.jsonl", skipped)
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, figures: dict[str, float], **more: float) -> None:
        """Log figures at a number of finished steps; shown above the progress bar, too."""
        figures = figures | more
        self._append(step, {name: round(value, 4) if math.isfinite(value) else None for name, value in figures.items()})
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))

    def leave_out(self, step: int, names: list[str]) -> None:
        """Log that a step was left out, and which samples are to blame for it."""
        self._append(step, {"left_out": names})
        more = f" and {len(names) - SHOWN} more ({self._path})" if len(names) > SHOWN else ""
        shown = "; ".join(names[:SHOWN])
        tqdm.write(f"step {step} is left out: its loss or its gradient is not finite. Its samples: {shown}{more}")

    def _append(self, step: int, entries: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entries}, ensure_ascii=False) + "\n")
