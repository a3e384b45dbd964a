"""What one lane and one person have said to each other: turns of speech and text, and when the oldest are forgotten."""

from dataclasses import dataclass, field

from assistant.latency import Latency
from assistant.model.prompt import Memory, Message
from assistant.sound.audio import Utterance


@dataclass(frozen=True, eq=False)
class Turn:
    """What a person says at once: any number of clips, text, or both; text beside clips is about them."""

    clips: tuple[Utterance, ...] = ()
    text: str = ""

    @classmethod
    def spoken(cls, clip: Utterance, instruction: str | None = None) -> "Turn":
        """One clip, alone or with what to do with it."""
        return cls((clip,), (instruction or "").strip())

    @property
    def duration(self) -> float:
        """Seconds of speech."""
        return sum(clip.duration for clip in self.clips)

    @property
    def endpoint(self) -> float | None:
        """How long after the end of speech the last clip was closed, in milliseconds."""
        return self.clips[-1].endpoint if self.clips else None

    def same(self, other: "Turn") -> bool:
        """Whether both hold the very same recordings and words."""
        clips = [clip.samples for clip in self.clips], [clip.samples for clip in other.clips]
        return (
            self.text.strip() == other.text.strip()
            and len(clips[0]) == len(clips[1])
            and all(mine is theirs for mine, theirs in zip(*clips, strict=True))
        )


@dataclass(eq=False)
class Said:
    """One exchange as a lane's LLM knows it: the message it was given, and its reply as far as it was said.

    `heard` is what the lane heard in words, `latency` is there once the reply is over.
    """

    message: Message
    heard: str | None
    reply: str = ""
    latency: Latency | None = None


@dataclass
class Dialogue:
    """One lane's side of one conversation, oldest exchange first, with the LLM's memory of it."""

    exchanges: list[Said] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    def messages(self) -> list[Message]:
        """What the LLM is told of the past. Roles alternate even after a silent reply: many chat templates insist."""
        return [message for said in self.exchanges for message in (said.message, Message("assistant", [said.reply]))]

    def forget_older_half(self) -> None:
        """Make room. Half at once: the rest must be read again then, and that should be rare."""
        del self.exchanges[: (len(self.exchanges) + 1) // 2]
