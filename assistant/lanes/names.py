"""What the lanes are called, in the order in which they are shown. Standard library only."""

END_TO_END = "end_to_end"
CASCADE = "cascade"
LANES = (END_TO_END, CASCADE)
EARLY = END_TO_END  # the lane that hears early, hands-free
HEARD_AS = {END_TO_END: "reading", CASCADE: "transcript"}  # what each lane calls what it heard


def typed(lane: str) -> str:
    """A lane's name as people type and read it: `end-to-end`."""
    return lane.replace("_", "-")
