"""Mandarin text as the sounds that Kokoro-82M was taught to speak: IPA, the tone as an arrow behind the vowel."""

import re

from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials

from train.data.spoken_form import CHINESE

TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


def _table(pairs: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in pairs.split())


INITIALS = _table("b:p p:pʰ m:m f:f d:t t:tʰ n:n l:l g:k k:kʰ h:x j:ʨ q:ʨʰ x:ɕ zh:ꭧ ch:ꭧʰ sh:ʂ r:ɻ z:ʦ c:ʦʰ s:s")
FINALS = _table(  # - is where the tone stands
    "a:a- o:ɔ- e:ɤ- ê:ɛ- er:ɚ- ai:ai- ei:ei- ao:au- ou:ou- an:a-n en:ə-n ang:a-ŋ eng:ə-ŋ ong:ʊ-ŋ "
    "i:i- ia:ja- ie:je- iao:jau- iou:jou- ian:jɛ-n in:i-n iang:ja-ŋ ing:i-ŋ iong:jʊ-ŋ "
    "u:u- ua:wa- uo:wo- uai:wai- uei:wei- uan:wa-n uen:wə-n uang:wa-ŋ ueng:wə-ŋ v:y- ve:ɥe- van:ɥɛ-n vn:y-n"
)
PUNCTUATION = str.maketrans({"，": ", ", "、": ", ", "。": ". ", "！": "! ", "？": "? ", "：": ": ", "；": "; "})


def sounds(text: str) -> str:
    """Chinese text, numbers spelt -> its sounds; what is neither Chinese nor a mark is left out."""
    parts = re.findall(rf"{CHINESE.pattern}+|[，、。！？：；,.!?:;]+", text)
    return "".join(_said(part) if CHINESE.match(part) else part.translate(PUNCTUATION) for part in parts).strip()


def _said(characters: str) -> str:
    # A character of several readings has that of the phrase it stands in: 行 in 银行 is háng.
    return "".join(map(_syllable, lazy_pinyin(characters, Style.TONE3, neutral_tone_with_five=True)))


def _syllable(pinyin: str) -> str:
    """A syllable such as `zhang1`; nothing for one that Mandarin does not have."""
    initial, final = to_initials(pinyin), to_finals(pinyin, v_to_u=False)
    if initial in ("zh", "ch", "sh", "r", "z", "c", "s") and final == "i":
        vowel = "ɨ-"  # the buzz of 是 and 四
    elif initial in ("b", "p", "m", "f") and final == "o":
        vowel = FINALS["uo"]  # 我 and 波 rhyme
    else:
        vowel = FINALS.get(final, "")
    return INITIALS.get(initial, "") + vowel.replace("-", TONES.get(pinyin[-1:], ""))
