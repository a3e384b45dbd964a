"""Transcripts for untranscribed speech, written by Whisper itself.

    python -m train.pseudo_label ../shared/data/speech/train/librispeech_251_speakers/manifest.jsonl --out runs/pseudo

Entries that have a text keep it. Whisper's doubtful transcripts (low mean log-probability, or so repetitive that they
compress well) are dropped and counted.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from whisper import DecodingOptions, decode, pad_or_trim
from whisper.audio import N_FRAMES

from assistant.audio import AudioError, load_utterance
from assistant.speech_encoder import load_whisper, speech_mels
from train.manifest import read_manifest, refuse_held_out, write_manifest

MIN_LOG_PROBABILITY = -0.7  # mean of the tokens; below it Whisper is guessing
MAX_COMPRESSION = 2.4  # zlib ratio; Whisper's own limit for a transcript that repeats itself


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--whisper", default="whisper-base")
    parser.add_argument("--language", default="en")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    refuse_held_out([arguments.manifest])
    torch.set_num_threads(arguments.threads)
    model = load_whisper(arguments.whisper)
    options = DecodingOptions(language=arguments.language, without_timestamps=True, fp16=False)
    kept: list[dict[str, Any]] = []
    dropped: list[str] = []
    for entry in tqdm(list(read_manifest(arguments.manifest)), desc="Transcribing", unit=" clips"):
        if entry["text"] is None:
            try:
                mels = speech_mels(load_utterance(entry["audio"]).resampled(), model.dims.n_mels)
            except AudioError as error:
                dropped.append(str(error))
                continue
            results = [decode(model, pad_or_trim(mel, N_FRAMES), options) for mel in mels]
            if any(r.avg_logprob < MIN_LOG_PROBABILITY or r.compression_ratio > MAX_COMPRESSION for r in results):
                dropped.append(f"{entry['audio']} has a doubtful transcript.")
                continue
            text = " ".join(result.text.strip() for result in results)
            entry = {**entry, "text": text, "source": f"{entry['source']}-pseudo"}
        kept.append(entry)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_manifest(arguments.out / "manifest.jsonl", kept)
    print("\n".join([f"{len(kept)} transcripts, {len(dropped)} clips dropped.", *(f"  {why}" for why in dropped[:20])]))


if __name__ == "__main__":
    main()
