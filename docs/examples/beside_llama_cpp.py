"""Tokens a second of this project's decoder beside llama.cpp's: the same GGUF file, prompt and machine, in turn.

pip install xllamacpp   # llama.cpp as a Python package; Earshot itself does not need it
.venv/bin/python -m docs.examples.beside_llama_cpp
"""

import argparse
import json
import statistics
import sys
from importlib.util import find_spec
from typing import Any

import torch

from assistant.latency import StageClock, hardware
from assistant.model.llm import LLM, load_llm
from assistant.model.prompt import Message, Prompt
from assistant.model.weights import WeightsError, original, registry

REQUEST = "Tell me a long story about a peaceful night."
TOKENS = 128  # of a reply
Times = dict[str, float]  # tokens_per_second, and milliseconds of prefill


def main() -> int:
    """Print every round, and the medians as one JSON object on the last line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--llm", default="qwen2.5-coder-0.5b-instruct", help="an LLM of assets/models.toml")
    options.add_argument("--rounds", type=int, default=5, help="replies of each (default: 5, and one to warm up)")
    wanted = options.parse_args()
    known = [name for name, model in registry().items() if model.format == "gguf"]
    if wanted.llm not in known:
        print(f"{wanted.llm} is no GGUF file of assets/models.toml. Known: {', '.join(known)}.", file=sys.stderr)
        return 2
    if find_spec("xllamacpp") is None:
        print("llama.cpp is missing. Get it with: pip install xllamacpp", file=sys.stderr)
        return 2
    try:
        llm = load_llm(wanted.llm)
        with original(wanted.llm) as file:
            rounds = measure(llm, str(file), wanted.rounds)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 2
    result = {"hardware": hardware(), "threads": torch.get_num_threads(), "llm": wanted.llm, "precision": llm.precision}
    for name in ("tokens_per_second", "prefill"):
        ours, theirs = (statistics.median(one[side][name] for one in rounds) for side in (0, 1))
        ratio = statistics.median(one[0][name] / one[1][name] for one in rounds)
        result[name] = {"earshot": round(ours, 1), "llama.cpp": round(theirs, 1), "ratio": round(ratio, 2)}
    print(json.dumps(result))
    return 0


def measure(llm: LLM, file: str, rounds: int) -> list[tuple[Times, Times]]:
    """Pairs of what each took: tokens a second, and the prefill of a prompt never seen before in milliseconds."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.verbosity = file, 1024, 1, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(settings)
    done = []
    for turn in range(rounds + 1):
        prompt = llm.prompt([Message("user", [f"{REQUEST} Number {turn}."])])

        if turn % 2:
            ours, theirs = by_earshot(llm, prompt), by_llama_cpp(server, prompt)
        else:
            theirs, ours = by_llama_cpp(server, prompt), by_earshot(llm, prompt)
        if turn:
            done.append((ours, theirs))
            speeds = f"{ours['tokens_per_second']:.1f} and llama.cpp {theirs['tokens_per_second']:.1f} tokens a second"
            print(f"{turn}/{rounds}  Earshot {speeds}", flush=True)
    return done


def by_earshot(llm: LLM, prompt: Prompt) -> Times:
    """One reply; the start that all prompts share is read anew, as llama.cpp reads it."""
    llm._prefixes.clear()
    clock = StageClock(llm.device)
    for _ in llm.stream(prompt, clock, TOKENS):
        pass
    latency = clock.finish(0)
    return {"tokens_per_second": latency.tokens_per_second or 0, "prefill": latency.prefill or 0}


def by_llama_cpp(server: Any, prompt: Prompt) -> Times:
    """One reply to the same token ids."""
    asked = {"prompt": prompt.ids.tolist(), "n_predict": TOKENS, "temperature": 0, "cache_prompt": False}
    times = server.handle_completions(asked)["timings"]
    return {"tokens_per_second": times["predicted_per_second"], "prefill": times["prompt_ms"]}


if __name__ == "__main__":
    sys.exit(main())
