"""Transcripts for untranscribed speech, written by Whisper itself.

    python -m train.labels.pseudo_label ../shared/data/speech/train/librispeech_251_speakers --out runs/pseudo

Entries that have a text keep it. Whisper's doubtful transcripts (low mean log-probability, so repetitive that they
compress well, or far too short for their clip) are dropped and counted.
"""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from whisper import transcribe

from assistant.model.speech_encoder import load_whisper
from assistant.sound.audio import SAMPLE_RATE, AudioError, load_utterance
from train.command_line import command_line, told
from train.data.manifest import read_manifest, refuse_held_out, write_manifest
from train.data.spoken_form import spoken_form

MIN_LOG_PROBABILITY = -0.7  # mean of the tokens; below it Whisper is guessing
MAX_COMPRESSION = 2.4  # zlib ratio; Whisper's own limit for a transcript that repeats itself
MIN_WORDS = 0.6  # a second; below it Whisper has stopped early, and the rest of the clip would be learnt as silence


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--whisper", default="whisper-base")
    parser.add_argument("--language", default="en")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    refuse_held_out([arguments.manifest])
    torch.set_num_threads(arguments.threads)
    model = load_whisper(arguments.whisper)
    kept: list[dict[str, Any]] = []
    dropped: list[str] = []
    for entry in tqdm(list(read_manifest(arguments.manifest)), desc="Transcribing", unit=" clips"):
        if entry["text"] is None:
            try:
                samples = load_utterance(entry["audio"]).resampled()
            except AudioError as error:
                dropped.append(str(error))
                continue
            # With timestamps, as without them Whisper takes the pause after "Chapter 2." for the end of the clip.
            result = transcribe(
                model,
                samples,
                language=arguments.language,
                temperature=0.0,
                condition_on_previous_text=False,
                fp16=False,
            )
            text, segments = result["text"].strip(), result["segments"]
            if any(
                s["avg_logprob"] < MIN_LOG_PROBABILITY or s["compression_ratio"] > MAX_COMPRESSION for s in segments
            ):
                dropped.append(f"{entry['audio']} has a doubtful transcript.")
                continue
            seconds = len(samples) / SAMPLE_RATE
            if len(spoken_form(text).split()) < MIN_WORDS * seconds:
                dropped.append(f'{entry["audio"]}: in {seconds:.1f} s only "{text}" was heard.')
                continue
            entry = {**entry, "text": text, "source": f"{entry['source']}-pseudo"}
        kept.append(entry)
    write_manifest(arguments.out / "manifest.jsonl", kept)
    print("\n".join([f"{len(kept)} transcripts, {len(dropped)} clips dropped.", *(f"  {why}" for why in dropped[:20])]))


if __name__ == "__main__":
    main()
