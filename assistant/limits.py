"""What Earshot takes, and how long it keeps it: all limits that a person can meet. docs/reliability.md tells why."""

# Recordings
MIN_DURATION = 0.3  # seconds; shorter than any word worth answering
MAX_DURATION = 120.0  # seconds; a longer monologue would not leave a laptop room for a prompt reply
MAX_FILE_SIZE = 200 * 2**20  # bytes; two minutes of 8-channel 96 kHz float fit
MAX_UPLOAD = 50 * 2**20  # bytes, to the page; two minutes of the best microphone are 46 MB
MIN_RATE, MAX_RATE = 1_000, 384_000  # Hz; beyond, two minutes no longer fit into the memory of a small machine
SILENCE_PEAK = 1e-3  # full scale is 1.0; -60 dBFS is below the noise of any working microphone

# Conversations
MAX_REPLY = 256  # tokens
CONTEXT = 2048  # tokens of a conversation, its next reply included: 50 MB of keys and values with the default LLM
MEMORIES = 4  # conversations and lanes whose keys and values are kept at a time: two visitors; others are read again
MAX_EXCHANGES = 100  # kept to look back at and ask about again
MAX_SPEECH = 600.0  # seconds of recordings kept for it: 38 MB

# Visitors of the page
MAX_VISITORS = 100  # remembered at a time; the one who has been quiet for longest is forgotten first
MAX_EARS = 24  # of them hands-free: each holds one of the server's threads
MAX_WAITING = 24  # whose turn may wait for the machine
MAX_ROUNDS = 200  # kept of one visitor; a page left open for days must not fill the memory
GRACE = 60.0  # seconds a visitor may be away, as when a phone changes networks, before they are forgotten
KEEP = 600.0  # seconds after which files that visitors brought are deleted
