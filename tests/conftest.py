"""Small stand-ins for the models, and the real ones, loaded once for all tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from whisper.model import ModelDimensions, Whisper

from assistant.files import ROOT
from assistant.lanes.lane import Lane
from assistant.lanes.loading import load_lanes
from assistant.model import speech_encoder, stored_llm, weights
from assistant.model.checkpoint import CheckpointConfig, write_checkpoint
from assistant.model.connector import Connector, ConnectorConfig, build_connector
from assistant.model.llm import LLM, load_llm
from assistant.model.spelling import Writer

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WIDTH = 32  # of the tiny LLM


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat LLM of two layers whose tokens are single bytes, as transformers saves it."""
    folder = tmp_path_factory.mktemp("tiny-llm")
    special = ["<pad>", "</s>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(special + letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_llm(tiny_llm_folder: Path) -> LLM:
    """The random chat LLM in float32."""
    return load_llm(str(tiny_llm_folder), "float32")


@pytest.fixture(scope="session")
def tiny_whisper() -> Whisper:
    """A random Whisper of width 64 with the real vocabulary and 30 s of positions."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 64, 1, 2, 51865, 448, 64, 1, 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_whisper_folder(tiny_whisper: Whisper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Whisper as a converted folder."""
    folder = tmp_path_factory.mktemp("tiny-whisper")
    state = {name: value.half().clone() for name, value in tiny_whisper.state_dict().items() if "mask" not in name}
    save_file(state, folder / "model.safetensors")
    return folder


def listening_to_signals() -> None:
    """For a child process, before it begins: `nohup`, or a shell's `&`, passes on that signals are ignored."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


LISTENING = {} if os.name == "nt" else {"preexec_fn": listening_to_signals}


@pytest.fixture(params=["vocabulary", "residual", "linear", "linear_adaptor"])
def connector(request: pytest.FixtureRequest) -> Connector:
    """A random connector of each kind, from width 64 to the tiny LLM's."""
    return tiny_connector(request.param)


WORDS = tuple(f" {chr(97 + number)}" for number in range(20))  # of the tiny connector


class Bytes:
    """A tokenizer, as far as a connector asks it, with a token for each letter; word i is token 97 + i alone."""

    def __call__(self, texts: list[str], add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[list(text.replace(" ", "").encode()) for text in texts])

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [chr(token) for token in ids]


def tiny_writer(llm_width: int = WIDTH) -> Writer:
    """An LLM as far as a connector knows one: a token for each letter, with random embeddings."""
    return Writer(Bytes(), torch.nn.Embedding(258, llm_width).requires_grad_(False))  # type: ignore[arg-type]


def tiny_connector(kind: str, llm_width: int = WIDTH) -> Connector:
    """A random connector: `vocabulary`, `residual` and `linear` are projections of the Q-Former."""
    torch.manual_seed(1)
    config = ConnectorConfig(
        encoder_width=64,
        llm_width=llm_width,
        kind="linear_adaptor" if kind == "linear_adaptor" else "q_former",
        projection="vocabulary" if kind in ("vocabulary", "residual") else "linear",
        residual=kind == "residual",
        layers=1,
    )
    built = build_connector(config, WORDS, tiny_writer(llm_width))
    if built.vocabulary:
        torch.nn.init.normal_(built.head.matrix.weight, std=2.0)  # confident enough to read more than blanks
    if kind == "residual":
        torch.nn.init.normal_(built.head.residual.weight)
    return built.eval().requires_grad_(False)


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, tiny_whisper_folder: Path) -> Path:
    """A checkpoint folder with the random vocabulary connector."""
    connector = tiny_connector("vocabulary")
    config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), "tiny-llm")
    write_checkpoint(tmp_path / "tiny", config, connector.learnt(), connector.words)
    return tmp_path / "tiny"


@pytest.fixture(scope="session")
def lanes() -> Iterator[dict[str, Lane]]:
    """Both lanes on the real weights, as the page loads them."""
    yield load_lanes()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`fast` is what needs neither the real weights nor a browser, nor much time: `python launch.py test -m fast`."""
    for item in items:
        slower = "lanes" in getattr(item, "fixturenames", ()) or (ROOT / "tests" / "browser") in item.path.parents
        if not slower and not any(item.get_closest_marker(mark) for mark in ("weights", "thorough", "slow")):
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def no_weights_where_it_is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast test that asks for real weights fails, so that it gets its mark."""
    if request.node.get_closest_marker("fast"):

        def refuse(name: object, *_: object) -> Path:
            raise AssertionError(f"{name} in a fast test: mark it with pytest.mark.weights")

        for module in (speech_encoder, weights):
            monkeypatch.setattr(module, "locate", refuse)
        monkeypatch.setattr(stored_llm, "kept", refuse)
