"""Words read in pieces reach the LLM in its own spelling, on the real tokenizer."""

import torch

from assistant.lanes.end_to_end import EndToEndLane
from assistant.lanes.lane import Lane
from assistant.model.heads import Speech
from assistant.model.llm import LLM
from assistant.model.spelling import respelt

SENTENCE = " the neighbourhood was perplexed"


def llm_of(lanes: dict[str, Lane]) -> LLM:
    lane = lanes["end_to_end"]
    assert isinstance(lane, EndToEndLane)
    return lane.model.llm


def as_read(llm: LLM, pieces: list[str]) -> Speech:
    """Speech read in these pieces, with vectors that are nobody's and a falling confidence."""
    tokens = torch.tensor([llm.tokenizer.convert_tokens_to_ids(piece) for piece in pieces])
    return Speech(torch.randn(len(tokens), llm.embeddings.shape[1]), tokens, torch.linspace(0.9, 0.5, len(tokens)))


def test_pieces_become_the_llm_s_own_tokens(lanes: dict[str, Lane]) -> None:
    llm = llm_of(lanes)
    read = as_read(llm, ["Ġthe", "Ġneighb", "our", "hood", "Ġwas", "Ġper", "plex", "ed"])
    speech = respelt(read, llm)
    canonical = llm.tokenizer(SENTENCE).input_ids
    assert speech.tokens is not None and read.confidence is not None and speech.confidence is not None
    assert speech.tokens.tolist() == canonical
    assert llm.tokenizer.decode(speech.tokens) == SENTENCE
    names = llm.tokenizer.convert_ids_to_tokens(canonical)
    put_together = names.index("Ġneighbourhood")
    assert torch.equal(speech.vectors[put_together], llm.embeddings[canonical[put_together]])
    assert speech.confidence[put_together] == read.confidence[3]  # the least sure of its pieces


def test_what_was_read_as_one_token_keeps_its_vector(lanes: dict[str, Lane]) -> None:
    llm = llm_of(lanes)
    read = as_read(llm, ["Ġthe", "Ġneighb", "our", "hood", "Ġwas"])
    speech = respelt(read, llm)
    assert torch.equal(speech.vectors[0], read.vectors[0])
    assert torch.equal(speech.vectors[-1], read.vectors[-1])


def test_what_is_spelt_well_or_holds_no_tokens_stays(lanes: dict[str, Lane]) -> None:
    llm = llm_of(lanes)
    read = as_read(llm, ["Ġthe", "Ġneighbourhood"])
    assert respelt(read, llm) is read
    nothing = as_read(llm, [])
    assert respelt(nothing, llm) is nothing
    silent = Speech(torch.randn(3, 4))
    assert respelt(silent, llm) is silent


def test_half_a_character_stays_as_it_was_read(lanes: dict[str, Lane]) -> None:
    llm = llm_of(lanes)
    first_byte = llm.tokenizer.convert_ids_to_tokens(llm.tokenizer("é").input_ids)[0][0]
    read = as_read(llm, ["Ġthe", first_byte, "Ġwas"])
    assert respelt(read, llm) is read


def test_a_word_is_as_sure_as_its_least_sure_piece(lanes: dict[str, Lane]) -> None:
    lane = lanes["end_to_end"]
    assert isinstance(lane, EndToEndLane)
    read = as_read(lane.model.llm, ["the", "Ġneighb", "our", "hood", "Ġ", "was"])
    text, sure = lane.model.reading(read)
    assert text == "the neighbourhood was" and read.confidence is not None
    assert sure == tuple(read.confidence[[0, 3, 5]].tolist())
