"""Every word the page shows, in one place."""

TITLE = "Earshot"
TAGLINE = "Say something. Two assistants answer the same words: one listens, the other reads a transcript."

RECORDING = "Your voice"
INSTRUCTION = "What to do with it (optional)"
INSTRUCTION_HINT = "Leave empty to be answered, or write an instruction"
PRESETS = "Or pick a task"
SAMPLES = "No microphone at hand? Try a clip"
ASK = "Ask"
STOP = "Stop"

LANES = {"end_to_end": "End-to-end", "cascade": "Cascade"}
LANE_HOW = {
    "end_to_end": "Sound goes straight into the language model.",
    "cascade": "Sound becomes a transcript; the language model reads it.",
}
HEARD = "Heard"
REPLY = "Reply"
NO_READING = "This model keeps no readable trace of what it heard."
EMPTY_REPLY = "The reply is empty."

READY = "Press record and speak. Both lanes answer when you stop."
WAITING = "Waiting for the machine: it answers one utterance at a time…"
ANSWERING = {
    "end_to_end": "The end-to-end lane is answering; the cascade follows…",
    "cascade": "The cascade is answering…",
}
DONE = "Both lanes have answered."
STOPPED = "Stopped."
NO_RECORDING = "There is nothing to answer yet. Record something, upload a file or pick a clip."
UNEXPECTED = "Something went wrong on this side, not yours. Please try again; the details are in the terminal."

TIMING = "Where the time went"
TIMING_HOW = "The lanes run one after the other, end-to-end first, so that neither slows the other down."
MEASURED_ON = "Measured on"
TABLE = "All figures, and what each term means"
MILLISECONDS = "Milliseconds, from the moment the whole utterance is in memory."
NOT_TIMED = "not timed yet"
DECODE = "the rest: writing the reply, one token after the other"

SPOKEN = "Speak the reply of"
SPOKEN_CHOICES = [("End-to-end", "end_to_end"), ("Cascade", "cascade"), ("Off", "off")]
SPOKEN_IDLE = "The reply you pick is read aloud once both lanes are done, so that speaking disturbs no measurement."
SPEAKING = "Preparing the voice…"
SPOKEN_OFF = "Spoken replies are off."
SPOKEN_PLAYER = "Spoken reply"
NOTHING_TO_SAY = "There are no words in this reply that could be spoken."
NO_VOICE = "No voice is installed here, so replies stay written. Run “python launch.py doctor” to see what is missing."

# Why the browser gives no microphone, keyed by what the script in `fragments.py` finds out.
MICROPHONE = {
    "insecure": (
        "The browser gives the microphone only to pages opened securely, and this one came over plain http from "
        "another machine. Either run <code>ssh -L {port}:127.0.0.1:{port} your-server</code> and open "
        "<code>http://127.0.0.1:{port}</code>, or serve the page over https. Uploading a file works as it is."
    ),
    "denied": (
        "The microphone is blocked for this page. Allow it with the icon beside the address, then reload; "
        "or upload a file instead."
    ),
    "missing": "No microphone was found. Connect one and reload, or upload a file instead.",
    "busy": (
        "The microphone could not be opened: another program may be using it. "
        "Close that and try again, or upload a file instead."
    ),
}
