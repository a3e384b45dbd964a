"""What is learnt of each recording: its words, or the LLM's own reply to them."""
