"""Sound that is made: speech in many voices, and noise in which nobody speaks."""
