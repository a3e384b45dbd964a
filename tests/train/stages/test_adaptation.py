"""Stage 1 as a command: a killed run goes on, two processes do the work of one, bad samples are listed."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from assistant.files import ROOT
from assistant.model import checkpoint
from assistant.model.checkpoint import read_config, read_connector
from tests.train.stages.test_ctc import RARE, SENTENCES, VERBS, WIDTH, word_tokenizer
from train.data.features import FeatureCache
from train.data.manifest import held_out
from train.stages import adaptation

STEPS, SAVE = 150, 50
RECIPE = """
features = ["{features}"]
llm = "{llm}"
whisper = "{whisper}"

[connector]
layers = 1

[loop]
steps = {steps}
frames_per_batch = 250
save_every = {save}
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def unseen(count: int) -> list[str]:
    """Sentences of the same words that are kept for validation."""
    candidates = (f"{sentence} please {n}" for n, sentence in itertools.product(range(2000), SENTENCES))
    return list(itertools.islice(filter(held_out, candidates), count))


@pytest.fixture
def cache(tmp_path: Path, tiny_whisper_folder: Path) -> Path:
    """Forty cached utterances of random features, two of them for validation; `llm` and `whisper` beside it."""
    word_tokenizer().save_pretrained(tmp_path / "llm")
    (tmp_path / "whisper").symlink_to(tiny_whisper_folder)
    texts = [text for text in SENTENCES * 2 if not held_out(text)][:38] + unseen(2)
    return write_cache(tmp_path / "features", [(text, None) for text in texts])


def write_cache(folder: Path, samples: list[tuple[str, int | None]]) -> Path:
    """Texts with a number of frames (None: 30 to 60), as `train.data.features` leaves them, the features random."""
    folder.mkdir()
    rng, lines, start = np.random.default_rng(1), [], 0
    for text, frames in samples:
        frames = frames or int(rng.integers(30, 60))
        lines.append({"start": start, "frames": frames, "text": text, "source": "test"})
        start += frames
    np.save(folder / "0-0000.npy", rng.standard_normal((start, WIDTH)).astype(np.float16))
    (folder / "0-0000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def options(cache: Path, out: Path, *changes: str, steps: int = STEPS, save: int = SAVE) -> list[str]:
    recipe = cache.parent / "recipe.toml"
    models = {"llm": cache.parent / "llm", "whisper": cache.parent / "whisper"}
    recipe.write_text(RECIPE.format(features=cache, **models, steps=steps, save=save))
    return [str(recipe), "--out", str(out), *(part for change in changes for part in ("--set", change))]


def train(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptation", *arguments])
    adaptation.main()


def kill_after_first_checkpoint(arguments: list[str], out: Path) -> int:
    """Run the command in a process of its own and kill it; returns the step of the state it left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "train.stages.adaptation", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 120
    while not (out / "state.safetensors").exists():  # written after the checkpoint
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.002)
    process.kill()
    process.communicate()
    with safe_open(out / "state.safetensors", "pt") as state:
        return int(state.metadata()["step"])


def curve(out: Path) -> dict[int, dict[str, float]]:
    """Losses and word error rates by step; every step stands there once."""
    steps: dict[int, dict[str, float]] = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        entry.pop("samples_per_s", None)
        known = steps.setdefault(entry.pop("step"), {})
        assert not known.keys() & entry.keys(), "a step was logged twice"
        known.update(entry)
    return steps


@pytest.mark.thorough
def test_killed_and_resumed_is_uninterrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    step = kill_after_first_checkpoint(options(cache, tmp_path / "killed"), tmp_path / "killed")
    assert 0 < step < STEPS, "the process was not killed in the middle"
    train(monkeypatch, options(cache, tmp_path / "killed"))
    train(monkeypatch, options(cache, tmp_path / "whole"))

    whole, resumed = curve(tmp_path / "whole"), curve(tmp_path / "killed")
    assert list(whole) == list(resumed) == list(range(25, STEPS + 1, 25))
    if "validation_wer" not in resumed[step]:  # killed while it read
        whole[step].pop("validation_wer")
    for done, losses in whole.items():
        assert resumed[done] == pytest.approx(losses, abs=1e-3), f"step {done}"
    assert whole[STEPS]["loss"] < 0.9 * whole[25]["loss"]  # it learns, so equal curves say something
    assert "validation_wer" in whole[STEPS]
    assert list((tmp_path / "killed" / "tensorboard").iterdir())
    assert same_connector(tmp_path / "whole", tmp_path / "killed")


def same_connector(one: Path, other: Path, tolerance: float = 2e-3) -> bool:
    states = []
    for out in (one, other):
        config = read_config(out / "checkpoint")
        assert config.llm is config.connector.llm_width is None
        states.append(read_connector(out / "checkpoint", config).state_dict())
    return all(torch.allclose(states[1][name], value, atol=tolerance) for name, value in states[0].items())


@pytest.mark.thorough
def test_two_processes_do_the_work_of_one_that_accumulates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    # On CPUs torchrun starts the processes, as `accelerate launch` asks for MPI there.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = options(cache, tmp_path / "two", steps=30, save=15)
    command = [*launch, "-m", "train.stages.adaptation", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    alone = options(cache, tmp_path / "one", "loop.accumulate=2", steps=30, save=15)
    train(monkeypatch, alone)
    two, one = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert list(two) == list(one) == [15, 25, 30]
    for done_steps, losses in one.items():
        assert two[done_steps] == pytest.approx(losses, abs=2e-3), f"step {done_steps}"
    assert same_connector(tmp_path / "one", tmp_path / "two")


def test_a_finished_run_adds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    arguments = options(cache, tmp_path / "run", steps=25)
    train(monkeypatch, arguments)
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    train(monkeypatch, arguments)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_a_checkpoint_is_gone_on_from_and_other_words_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    train(monkeypatch, options(cache, tmp_path / "first", steps=5))
    more = write_cache(
        tmp_path / "more", [(f"{word} the {thing}", 60) for word in RARE for thing in ("gate", "door")] * 3
    )
    start = f'start="{tmp_path / "first" / "checkpoint"}"'
    changes = [start, f'features=["{more}"]', 'whisper="another"']  # the rows are of the Whisper that the layers know
    train(monkeypatch, options(cache, tmp_path / "second", *changes, steps=1))
    folders = [tmp_path / name / "checkpoint" for name in ("first", "second")]
    first, second = (read_connector(folder, read_config(folder)).state_dict() for folder in folders)
    assert not first["head.words_digest"].equal(second["head.words_digest"])
    for name in first.keys() - {"head.words_digest", "head.matrix.weight"}:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=2e-2)
    assert not first["head.blank.weight"].equal(second["head.blank.weight"])


def test_a_run_that_goes_on_may_change_what_it_sees_but_not_the_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    train(monkeypatch, options(cache, tmp_path / "first", steps=5))
    start = f'start="{tmp_path / "first" / "checkpoint"}"'
    train(monkeypatch, options(cache, tmp_path / "second", start, "connector.margin=4", steps=1))
    assert read_config(tmp_path / "second" / "checkpoint").connector.margin == 4
    with pytest.raises(SystemExit, match="not of the shape"):
        train(monkeypatch, options(cache, tmp_path / "third", start, "connector.layers=2", steps=1))


def test_checkpoints_to_be_averaged_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    train(monkeypatch, options(cache, tmp_path / "run", "loop.keep_every=2", steps=5))
    kept = sorted(path.name for path in (tmp_path / "run").glob("checkpoint*"))
    assert kept == ["checkpoint", "checkpoint-2", "checkpoint-4"]
    assert read_config(tmp_path / "run" / "checkpoint-2") == read_config(tmp_path / "run" / "checkpoint")


def test_other_data_than_a_run_began_with_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    """Data with other rare words give another head, be it of the same size."""
    first, second = (write_cache(tmp_path / word, [(f"{verb} the {word}", 50) for verb in VERBS] * 3) for word in RARE)
    train(monkeypatch, options(first, tmp_path / "run", steps=5))
    for other in (cache, second):
        with pytest.raises(SystemExit, match=r"another model.*words.*Give another --out"):
            train(monkeypatch, options(other, tmp_path / "run", steps=10))


def test_samples_that_cannot_be_learnt_from_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    long, fast = "open the gate", " ".join(["close the window"] * 5)
    more = write_cache(tmp_path / "odd", [(long, 2000), (fast, 30), ("", 60)])
    train(monkeypatch, options(cache, tmp_path / "run", f'features=["{cache}", "{more}"]', steps=5))
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [(entry["text"], entry["reason"]) for entry in listed] == [
        (long, "longer than 35 s (40 s)"),
        (fast, "15 words do not fit into 0.6 s"),
    ]


def test_validation_sentences_are_never_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    original, drawn = FeatureCache.__getitem__, []
    monkeypatch.setattr(FeatureCache, "__getitem__", lambda self, i: drawn.append(i) or original(self, i))
    train(monkeypatch, options(cache, tmp_path / "run", steps=5))
    texts = [entry["text"] for entry in FeatureCache([cache]).entries]
    kept = [index for index in drawn if held_out(texts[index])]
    assert kept == [38, 39]  # read once, for validation
    assert len(drawn) > 20


@pytest.mark.parametrize(("missing", "said"), [("empty", "holds no features"), ("nowhere", "is not there")])
def test_a_folder_without_features_ends_the_run_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, missing: str, said: str
) -> None:
    """Even beside a folder that holds some: nothing trains on less than it was told."""
    (tmp_path / "empty").mkdir()
    folder = tmp_path / missing
    with pytest.raises(SystemExit, match=rf"{folder} {said}.*python -m train\.data\.features MANIFEST --out {folder}"):
        train(monkeypatch, options(cache, tmp_path / "run", f'features=["{cache}", "{folder}"]'))
    assert not (tmp_path / "run").exists()


# What goes wrong --------------------------------------------------------------------------------------------------


def spoil(cache: Path, value: float, rows: slice = slice(46, 88)) -> None:
    features = np.load(cache / "0-0000.npy")
    features[rows, 3] = value
    np.save(cache / "0-0000.npy", features)


def finite(out: Path) -> bool:
    tensors = [load_file(path) for path in (out / "state.safetensors", out / "checkpoint" / "connector.safetensors")]
    return all(value.float().isfinite().all() for state in tensors for value in state.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_left_out_and_its_samples_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, value: float
) -> None:
    spoil(cache, value)
    train(monkeypatch, options(cache, tmp_path / "run", "loop.log_every=1", steps=12, save=4))
    broken = next(e for e in FeatureCache([cache]).entries if e["start"] <= 70 < e["start"] + e["frames"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    left_out = [line for line in lines if "left_out" in line]
    assert 1 <= len(left_out) < 10 and finite(tmp_path / "run")
    for line in left_out:
        assert broken["text"] in line["left_out"][0] and "NaN or infinite" in line["left_out"][0]


def test_several_in_a_row_end_the_run_and_the_last_good_checkpoint_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    train(monkeypatch, options(cache, tmp_path / "run", steps=4, save=2))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    spoil(cache, float("nan"), slice(None))
    with pytest.raises(SystemExit, match=r"ends at step 9: .* of 5 steps in a row .*last good checkpoint") as ended:
        train(monkeypatch, options(cache, tmp_path / "run", steps=40, save=50))
    assert ended.value.code not in (0, None)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")} == before
    with pytest.raises(SystemExit, match="Nothing was saved"):
        train(monkeypatch, options(cache, tmp_path / "another", steps=3, save=50))


def test_a_gradient_that_is_not_finite_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    """The loss is finite; and a step that is left out leaves weights and moments as the step before had them."""
    train(monkeypatch, options(cache, tmp_path / "run", steps=2, save=2))
    before = load_file(tmp_path / "run" / "state.safetensors")
    original, calls = torch.nn.utils.clip_grad_norm_, []

    def spoilt(parameters: object, *more: object, **options: object) -> torch.Tensor:
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        calls.append(parameters[0].grad.fill_(float("inf")))
        return original(parameters, *more, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoilt)
    train(monkeypatch, options(cache, tmp_path / "run", steps=4, save=4))
    after = load_file(tmp_path / "run" / "state.safetensors")
    assert len(calls) == 2 and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("file", ["state.safetensors", "checkpoint/connector.safetensors"])
def test_a_full_disk_is_said_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, file: str, told: bool
) -> None:
    """Even when the library that writes does not say that it could not."""
    out, original = tmp_path / "run", checkpoint.save_file
    train(monkeypatch, options(cache, out, steps=2, save=2))
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}

    def full(tensors: object, path: Path, about: object = None) -> None:
        original(tensors, path, about)
        if Path(file).name in path.name:
            path.write_bytes(path.read_bytes()[:-50])
            if told:
                raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SystemExit, match=r"No space left.*make room" if told else r"safetensors cannot be written"):
        train(monkeypatch, options(cache, out, steps=4, save=2))
    assert not list(out.rglob("*.partial"))
    state = out / "state.safetensors"
    assert state.read_bytes() == before[state]
    if file != "state.safetensors":
        assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before
    monkeypatch.setattr(checkpoint, "save_file", original)
    with (out / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')  # and what a kill leaves of a line
    train(monkeypatch, options(cache, out, steps=4, save=2))
    assert finite(out) and max(curve(out)) == 4


@pytest.mark.parametrize("damage", ["cut off", "empty", "another file", "nan"])
def test_a_damaged_state_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, damage: str
) -> None:
    train(monkeypatch, options(cache, tmp_path / "run", steps=2))
    state = tmp_path / "run" / "state.safetensors"
    if damage == "cut off":
        state.write_bytes(state.read_bytes()[:-100])
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "another file":
        save_file({"a": torch.ones(1)}, state)
    else:
        tensors = load_file(state)
        next(value for value in tensors.values() if value.ndim and value.is_floating_point()).fill_(float("nan"))
        save_file(tensors, state, {"step": "2"})
    with pytest.raises(SystemExit, match=r"state\.safetensors cannot be gone on from.*delete it to begin anew"):
        train(monkeypatch, options(cache, tmp_path / "run", steps=4))
