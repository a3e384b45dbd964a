"""What makes the speech-LLM: synthetic speech, feature caches, training and evaluation. Knows `assistant`, not `ui`."""
