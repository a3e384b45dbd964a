"""What is loaded for the lanes, and that one thing is loaded after the other."""

import time

import pytest
import torch

from assistant.lanes import loading


class Enough(Exception):
    """Whisper is being loaded: what the test waits for."""


def test_whisper_is_not_built_while_transformers_builds_an_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers sets torch's default type for the whole process meanwhile: Whisper once came out half float16."""

    def load_llm(*_: object) -> object:
        torch.set_default_dtype(torch.float16)
        time.sleep(0.2)
        torch.set_default_dtype(torch.float32)
        return type("Stand-in", (), {})()

    def load_whisper(*_: object) -> object:
        assert torch.get_default_dtype() == torch.float32
        raise Enough

    monkeypatch.setattr(loading, "load_llm", load_llm)
    monkeypatch.setattr(loading, "load_whisper", load_whisper)
    with pytest.raises(Enough):
        loading.load_lanes()
