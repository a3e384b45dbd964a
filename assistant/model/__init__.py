"""The speech-LLM and what it is made of: encoder, connector, LLM, prompts, checkpoints and weights."""
