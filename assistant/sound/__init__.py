"""Sound in and out of this machine: files, microphones, loudspeakers, and where an utterance begins and ends."""
