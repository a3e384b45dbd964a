"""What `launch.py` does in a terminal, and the environment that it does it in."""
