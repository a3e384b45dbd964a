"""What learns, from what loss, in which steps."""
