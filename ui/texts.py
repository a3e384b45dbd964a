"""Every word the page shows, in English and in Chinese; `Chinese` overrides each attribute of `Texts`."""

import re
from collections.abc import Mapping

from assistant.latency import TERMS


class Texts:
    """The page in English. `{…}` are filled in by whoever shows the text."""

    code = "en"
    own_name = "English"

    title = "Earshot"
    tagline = "Say something. Two assistants answer the same words: one listens, the other reads a transcript."
    language = "Language"

    recording = "Your voice"
    talk = "Talk"
    keys = "Space: hold to talk, or tap to start and to stop. Esc: stop the reply."
    instruction = "What to do with it (optional)"
    instruction_hint = "Leave empty to be answered, or write an instruction"
    presets = "Or pick a task"
    samples = "No microphone at hand? Try a clip"
    ask = "Ask again"
    stop = "Stop"
    names: Mapping[str, str] = {}  # English titles of presets and clips -> this language

    lanes: Mapping[str, str] = {"end_to_end": "End-to-end", "cascade": "Cascade"}
    lane_how: Mapping[str, str] = {
        "end_to_end": "Sound goes straight into the language model.",
        "cascade": "Sound becomes a transcript; the language model reads it.",
    }
    heard = "Heard"
    reply = "Reply"
    no_reading = "This model keeps no readable trace of what it heard."
    empty_reply = "The reply is empty."
    same_words = "Both lanes heard the same words."
    words_differ = "{count} of {total} words differ from what the other lane heard; they are underlined."
    confidence = "{percent} % sure"
    confidence_mean = "Confidence: {percent} % on average."

    loading = "The models are loading: {seconds} s so far, usually under half a minute. You can already speak."
    ready = "Press Talk and speak. Both lanes answer when you stop."
    ahead = "The machine answers one visitor at a time: {count} before you."
    crowded = "Too many visitors are waiting. Please try again in a minute."
    answering: Mapping[str, str] = {
        "end_to_end": "The end-to-end lane is answering…",
        "cascade": "The cascade is answering…",
    }
    answering_together = "Both lanes are answering…"
    done = "Both lanes have answered."
    stopped = "Stopped."
    no_recording = "There is nothing to answer yet. Record something, upload a file or pick a clip."
    unexpected = "Something went wrong on this side, not yours. Please try again; the details are in the terminal."
    lost = "The connection to Earshot is lost. This page comes back by itself when Earshot runs again."
    errors: tuple[tuple[str, str], ...] = ()  # what `assistant` says, as patterns -> this language

    timing = "Where the time went"
    timing_how = "Milliseconds on one axis for both lanes; zero is the moment the whole utterance is in memory."
    measured_on = "Measured on {machine}."
    table = "All figures, and what each term means"
    not_timed = "not timed yet"
    terms: Mapping[str, str] = TERMS | {"decode": "the rest: writing the reply, one token after the other"}
    term_names: Mapping[str, str] = {term: term.replace("_", " ") for term in (*TERMS, "decode")}
    race = "How the lanes run"
    race_fair = "One after the other (fair)"
    race_together = "Together"
    race_how = (
        "One after the other, each lane has the machine to itself, and who begins alternates from turn to turn. "
        "Together, both are started at once and share the machine: those figures are not comparable, and the "
        "comparison below leaves them out."
    )
    not_comparable = "The lanes ran together: these figures are not comparable."
    began = "{lane} began."

    comparison = "Your session so far"
    comparison_empty = "Once both lanes have answered you, their medians and the difference between them stand here."
    comparison_count = "Turns compared: {count}; left out: {left_out} (run together, or not heard)."
    turn = "Turn {number}"
    turns = "Every turn, with its own picture"
    clip_length = "clip length"
    all_lengths = "all"
    median_p95 = "median / p95 in milliseconds"
    ratio = "ratio"
    ratio_how = (
        "The ratio is end-to-end over cascade, the median of the turns' own ratios; below 1, end-to-end is sooner."
    )
    plot = "First token by clip length: {points}."
    plot_point = "{lane}, {duration} s: {value} ms"
    subjects: Mapping[str, str] = {"end_to_end": "The end-to-end lane", "cascade": "The cascade"}
    later = "{slow}'s first word came {difference} ms later on average."
    level = "Both lanes' first words came at the same time on average."
    spent = "{lane} spent {parts}."
    part: Mapping[str, str] = {
        "features": "{value} ms more on the spectrogram",
        "encode": "{value} ms more encoding",
        "connect": "{value} ms in its connector",
        "transcribe": "{value} ms transcribing",
        "prefill": "{value} ms more on the prompt",
        "rest": "{value} ms more on the rest",
    }
    joined = (", ", " and ")

    export = "Take your session with you"
    export_json = "JSON"
    export_csv = "CSV"
    export_zip = "All, with audio (zip)"
    nothing_to_export = "There is nothing to export yet: speak first."

    spoken = "Speak the reply of"
    spoken_choices: Mapping[str, str] = {"end_to_end": "End-to-end", "cascade": "Cascade", "off": "Off"}
    spoken_idle = "The reply you pick is read aloud once both lanes are done, so that speaking disturbs no measurement."
    speaking = "Preparing the voice…"
    spoken_off = "Spoken replies are off."
    spoken_player = "Spoken reply"
    nothing_to_say = "There are no words in this reply that could be spoken."
    no_voice = (
        "No voice is installed here, so replies stay written. Run “python launch.py doctor” to see what is missing."
    )

    # Why the browser gives no microphone, keyed by what assets/page.js finds out.
    microphone: Mapping[str, str] = {
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

    def name(self, title: str) -> str:
        """The title of a preset or clip in this language."""
        return self.names.get(title, title)

    def error(self, message: str) -> str:
        """What `assistant` says about a recording, in this language; as it is where nobody has translated it."""
        for pattern, translation in self.errors:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                return found.expand(translation)
        return message


class Chinese(Texts):
    """The page in Chinese."""

    code = "zh"
    own_name = "中文"

    title = "Earshot"
    tagline = "说句话，两位助手会回答同一句话：一位直接听声音，另一位读文字稿。"
    language = "语言"

    recording = "你的声音"
    talk = "说话"
    keys = "空格键：按住说话，或按一下开始、再按一下结束。Esc：停止回答。"
    instruction = "要怎么处理这段话（可不填）"
    instruction_hint = "留空则直接回答，也可以写一条指令"
    presets = "或选一个任务"
    samples = "手边没有麦克风？试试示例录音"
    ask = "再问一次"
    stop = "停止"
    names: Mapping[str, str] = {
        "Answer what was said": "回答所说的话",
        "Repeat": "复述",
        "Translate into Chinese": "译成中文",
        "Sentiment": "情感",
        "Keywords": "关键词",
        "Intent": "意图",
        "A question": "一个问题",
        "Kennedy, 1961": "肯尼迪，1961",
        "A restaurant review": "餐馆点评",
        "Today is a good day": "今天是个好日子",
        "A telephone prompt": "电话提示音",
        "An apology": "道歉",
        "A conference line": "会议热线",
        "A riddle from a book": "书里的谜语",
        "A novel, read aloud": "朗读小说",
        "Newgate prison": "纽盖特监狱",
        "On typography": "谈排印",
        "A request": "一个请求",
    }

    lanes: Mapping[str, str] = {"end_to_end": "端到端", "cascade": "级联"}
    lane_how: Mapping[str, str] = {
        "end_to_end": "声音直接进入语言模型。",
        "cascade": "声音先转成文字，语言模型再读文字。",
    }
    heard = "听到的"
    reply = "回答"
    no_reading = "这个模型不留下可读的听写痕迹。"
    empty_reply = "回答是空的。"
    same_words = "两条通道听到的词相同。"
    words_differ = "{total} 个词中有 {count} 个与另一条通道听到的不同，已加下划线。"
    confidence = "把握 {percent} %"
    confidence_mean = "平均把握：{percent} %。"

    loading = "模型正在加载：已过 {seconds} 秒，通常不到半分钟。现在就可以开始说话。"
    ready = "按“说话”并开口。说完后两条通道都会回答。"
    ahead = "机器一次只回答一位访客：你前面还有 {count} 位。"
    crowded = "等待的访客太多了，请过一分钟再试。"
    answering: Mapping[str, str] = {"end_to_end": "端到端通道正在回答……", "cascade": "级联通道正在回答……"}
    answering_together = "两条通道正在回答……"
    done = "两条通道都已回答。"
    stopped = "已停止。"
    no_recording = "还没有可以回答的内容。请录音、上传文件或选一段示例。"
    unexpected = "是我们这边出了问题，不是你的。请再试一次；详情见终端。"
    lost = "与 Earshot 的连接已断开。Earshot 重新运行后，本页会自动恢复。"
    errors: tuple[tuple[str, str], ...] = (
        (r"(.+) is empty \(0 bytes\)\..*", r"\1 是空文件（0 字节）。请重新录音。"),
        (r"(.+) is (\d+) MB; at most (\d+) MB .*", r"\1 有 \2 MB；最多只能读取 \3 MB。"),
        (
            r"(.+) is not audio that can be read\..*",
            r"\1 不是可读的音频。请用 WAV、FLAC、MP3、Ogg、M4A 或 WebM，或重新录音。",
        ),
        (r"(.+) does not exist or is not a file\..*", r"\1 不存在，或不是文件。请重新录音或上传。"),
        (r"(.+) has no usable channels or sample rate\..*", r"\1 没有可用的声道或采样率。请重新录音。"),
        (r"(.+) holds samples that are not numbers .*", r"\1 含有不是数字的采样（NaN 或无穷大）。请重新导出。"),
        (r"(.+) is too short: ([\d.]+) s\..* ([\d.]+) s\.", r"\1 太短：\2 秒。请至少说 \3 秒。"),
        (r"(.+) is too long: (\d+) s\. At most (\d+) s;.*", r"\1 太长：\2 秒。最多 \3 秒；请分成几段再试。"),
        (r"Nothing was heard: (.+) is silent\..*", r"什么也没听到：\1 没有声音。请检查麦克风是否选对，并大声一点。"),
        (r"No words were heard\..*", r"没有听到任何词。请大声一点或靠近麦克风，再试一次。"),
        (r"The packaged voice speaks English only;.*", r"自带的语音只会说英语；这条回答只显示，不朗读。"),
        (r"The voice cannot be loaded:.*", r"语音无法加载。请运行 python launch.py doctor 查看缺少什么。"),
    )

    timing = "时间花在哪里"
    timing_how = "单位毫秒，两条通道共用一条时间轴；零点是整段话进入内存的时刻。"
    measured_on = "测量环境：{machine}。"
    table = "全部数字，以及每一项的含义"
    not_timed = "尚未计时"
    terms: Mapping[str, str] = {
        "features": "重采样到 16 kHz 并计算对数梅尔谱",
        "encode": "Whisper 编码器",
        "connect": "Q-Former 连接器（仅端到端）",
        "transcribe": "Whisper 解码成文字（仅级联）",
        "prefill": "提示进入语言模型，直到得到第一组 logits",
        "first_token": "从零点到第一个文字可以显示",
        "first_audio": "从零点到朗读的第一个可闻采样，含开头静音",
        "total": "从零点到回答完成",
        "reply_tokens": "回答的 token 数",
        "tokens_per_second": "第一个 token 之后的解码速度",
        "rtf": "总时间除以语音时长，越小越好",
        "endpoint": "从说完到判定说完；不计入其他各项",
        "decode": "其余时间：逐个 token 写出回答",
    }
    term_names: Mapping[str, str] = {
        "features": "特征",
        "encode": "编码",
        "connect": "连接",
        "transcribe": "转写",
        "prefill": "预填充",
        "first_token": "首个 token",
        "first_audio": "首个声音",
        "total": "总计",
        "reply_tokens": "回答 token 数",
        "tokens_per_second": "每秒 token 数",
        "rtf": "实时率",
        "endpoint": "端点",
        "decode": "解码",
    }
    race = "两条通道如何运行"
    race_fair = "先后运行（公平）"
    race_together = "同时运行"
    race_how = "先后运行时，每条通道独占机器，先后逐轮交替；同时运行时，数字不可比较，也不计入下面的比较。"
    not_comparable = "两条通道是同时运行的：这些数字不可比较。"
    began = "{lane}先开始。"

    comparison = "本次会话至今"
    comparison_empty = "两条通道都回答过之后，这里会显示中位数和两者的差别。"
    comparison_count = "已比较 {count} 轮；未计入 {left_out} 轮（同时运行或没听清）。"
    turn = "第 {number} 轮"
    turns = "每一轮及其时间图"
    clip_length = "语音时长"
    all_lengths = "全部"
    median_p95 = "中位数 / p95，毫秒"
    ratio = "比值"
    ratio_how = "比值是端到端除以级联，取各轮比值的中位数；小于 1 表示端到端更早。"
    plot = "首个 token 与语音时长：{points}。"
    plot_point = "{lane}，{duration} 秒：{value} 毫秒"
    subjects: Mapping[str, str] = {"end_to_end": "端到端通道", "cascade": "级联通道"}
    later = "平均而言，{slow}的第一个词晚 {difference} 毫秒。"
    level = "平均而言，两条通道的第一个词同时到达。"
    spent = "{lane}{parts}。"
    part: Mapping[str, str] = {
        "features": "在频谱上多花了 {value} 毫秒",
        "encode": "在编码上多花了 {value} 毫秒",
        "connect": "在连接器上花了 {value} 毫秒",
        "transcribe": "在转写上花了 {value} 毫秒",
        "prefill": "在提示上多花了 {value} 毫秒",
        "rest": "在其余步骤上多花了 {value} 毫秒",
    }
    joined = ("，", "，")

    export = "带走本次会话"
    export_json = "JSON 文件"
    export_csv = "CSV 文件"
    export_zip = "全部，含录音（zip）"
    nothing_to_export = "还没有可导出的内容：请先说话。"

    spoken = "朗读哪一方的回答"
    spoken_choices: Mapping[str, str] = {"end_to_end": "端到端", "cascade": "级联", "off": "不朗读"}
    spoken_idle = "两条通道都答完后才朗读你选的回答，以免影响测量。"
    speaking = "正在准备语音……"
    spoken_off = "朗读已关闭。"
    spoken_player = "朗读的回答"
    nothing_to_say = "这条回答里没有可以朗读的词。"
    no_voice = "这里没有安装语音，回答只以文字显示。运行 “python launch.py doctor” 查看缺少什么。"

    microphone: Mapping[str, str] = {
        "insecure": (
            "浏览器只把麦克风交给安全打开的页面，而本页是从另一台机器经普通 http 打开的。"
            "请运行 <code>ssh -L {port}:127.0.0.1:{port} your-server</code> 后打开 "
            "<code>http://127.0.0.1:{port}</code>，或用 https 提供本页。上传文件不受影响。"
        ),
        "denied": "本页的麦克风被禁止了。请点地址旁的图标允许，然后刷新；也可以改为上传文件。",
        "missing": "没有找到麦克风。请接上一个并刷新，或改为上传文件。",
        "busy": "麦克风打不开：可能有其他程序正在使用。请关闭它再试，或改为上传文件。",
    }


ENGLISH, CHINESE = Texts(), Chinese()
TEXTS: dict[str, Texts] = {texts.code: texts for texts in (ENGLISH, CHINESE)}
