"""Talking with the page: hands-free, being heard early, interrupting, many turns, and each visitor for themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from assistant.files import SAMPLES
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from ui.layout import read_presets, read_samples
from ui.texts import CHINESE, ENGLISH

if TYPE_CHECKING:
    from tests.browser.conftest import Server

LANES = ("end_to_end", "cascade")
REPEAT = dict(read_presets())["Repeat"]
Open = Callable[[np.ndarray, str], Page]


def clips(count: int) -> list[np.ndarray]:
    """Bundled clips of a real length, the shortest first, at 16 kHz."""
    found = [load_utterance(entry["audio"]) for entry in read_samples(SAMPLES)]
    spoken = sorted((one for one in found if one.duration >= 1.5), key=lambda one: one.duration)
    return [one.resampled() for one in spoken[:count]]


def quiet(seconds: float) -> np.ndarray:
    """The noise of a room, far below speech."""
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture
def hearing(chromium: Callable[..., Browser], tmp_path: Path) -> Iterator[Open]:
    """Opens the page in a browser whose microphone plays the given samples, once, from when it is opened."""
    browsers: list[Browser] = []

    def start(sound: np.ndarray, url: str) -> Page:
        path = tmp_path / f"{len(browsers)}.wav"
        soundfile.write(path, np.concatenate([sound, quiet(60)]), SAMPLE_RATE, subtype="PCM_16")
        browser = chromium(
            "use-fake-device-for-media-stream",
            "use-fake-ui-for-media-stream",
            f"use-file-for-fake-audio-capture={path}%noloop",
        )
        browsers.append(browser)
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("html[data-line]", state="attached")
        return page

    yield start
    for browser in browsers:
        browser.close()


def state(page: Page, wanted: str) -> None:
    """Wait until the live line is in a state."""
    expect(page.locator("html")).to_have_attribute("data-live", wanted)


def turns(page: Page, count: int) -> None:
    """Wait until so many turns are in the conversation, and the last one is answered."""
    expect(page.locator("#thread li")).to_have_count(count)
    expect(page.locator("#status")).to_have_text(ENGLISH.done)


def choose(page: Page, control: str, label: str) -> None:
    """Pick one of a control's choices."""
    page.locator(f"#{control}").get_by_label(label, exact=True).check()


def write(page: Page, words: str) -> None:
    """Send a written turn."""
    page.get_by_label(ENGLISH.message).fill(words)
    page.get_by_role("button", name=ENGLISH.send, exact=True).click()


def reply(page: Page, lane: str) -> str:
    """What a lane replied last."""
    return page.locator(f"#lane-{lane} .reply").inner_text()


def test_two_utterances_are_answered_hands_free_and_heard_early(server: Server, hearing: Open) -> None:
    lane = server.lanes["end_to_end"]
    before = len(lane.early)  # type: ignore[attr-defined]
    first, second = clips(2)
    page = hearing(np.concatenate([quiet(1), first, quiet(5), second]), server.url)
    choose(page, "voice", ENGLISH.voices["silent"])
    page.locator("#hands-free input").check()
    state(page, "listening")
    state(page, "hearing")
    expect(page.locator("#ear .hearing")).to_be_visible()
    turns(page, 1)
    expect(page.locator("#timing")).to_contain_text("endpoint")
    expect(page.locator("#timing .waited")).to_have_count(2)
    turns(page, 2)
    state(page, "listening")
    heard = [float(text.split()[3]) for text in page.locator("#thread .which").all_inner_texts()]
    for seconds, clip in zip(reversed(heard), (first, second), strict=True):
        assert abs(seconds - len(clip) / SAMPLE_RATE) < 1
    assert lane.early[before:] == [True, True]  # type: ignore[attr-defined]
    assert not any(server.lanes["cascade"].early)  # type: ignore[attr-defined]
    page.locator("#hands-free input").uncheck()
    state(page, "off")


def test_silence_and_a_cough_are_not_answered(server: Server, hearing: Open) -> None:
    noise = np.random.default_rng(1)
    cough = noise.normal(0, 0.3, SAMPLE_RATE // 8).astype(np.float32) * np.hanning(SAMPLE_RATE // 8).astype(np.float32)
    page = hearing(np.concatenate([quiet(2), cough, quiet(2), cough]), server.url)
    page.locator("#hands-free input").check()
    state(page, "listening")
    page.wait_for_timeout(6000)
    state(page, "listening")
    expect(page.locator("#thread li")).to_have_count(0)


def test_what_is_changed_while_listening_holds_for_the_next_utterance(server: Server, hearing: Open) -> None:
    page = hearing(np.concatenate([quiet(2), clips(1)[0]]), server.url)
    page.locator("#hands-free input").check()
    state(page, "listening")
    page.get_by_role("button", name="Repeat", exact=True).click()
    turns(page, 1)
    assert f"told {REPEAT} about" in reply(page, "cascade")


@pytest.mark.parametrize("how", ["stop", "escape", "speech"])
def test_an_interruption_silences_both_lanes_at_once(server: Server, hearing: Open, how: str) -> None:
    first, second = clips(2)
    page = hearing(np.concatenate([quiet(1), first, quiet(4), second]), server.url)
    choose(page, "voice", ENGLISH.voices["silent"])
    page.get_by_label(ENGLISH.instruction).fill("slowly")
    if how == "speech":
        page.locator("#barge-in input").check()
    page.locator("#hands-free input").check()
    expect(page.locator("#lane-end_to_end .reply")).to_contain_text("told slowly")
    page.get_by_label(ENGLISH.instruction).fill("history")
    if how == "stop":
        page.click("#stop")
    elif how == "escape":
        page.keyboard.press("Escape")
    assert server.lanes["end_to_end"].closed.wait(15)  # type: ignore[attr-defined]
    if how != "speech":
        expect(page.locator("#status")).to_have_text(ENGLISH.stopped)
        expect(page.locator("#thread li")).to_contain_text(ENGLISH.interrupted)
        assert page.locator("html").get_attribute("data-live") != "speaking"
    expect(page.locator("#lane-end_to_end .reply")).to_contain_text("told slowly", timeout=15_000)
    expect(page.locator("#thread li")).to_have_count(2)
    expect(page.locator("#lane-end_to_end .reply")).to_contain_text("told slowly")  # what was said is remembered
    expect(page.locator("#lane-cascade .reply")).to_have_text("nothing")  # it never came to speak


def test_a_reply_cut_short_is_remembered_as_far_as_it_was_heard(server: Server, visitor: Callable[..., Page]) -> None:
    page = visitor(server.url)
    write(page, "sentences")
    state(page, "speaking")
    page.wait_for_timeout(1400)  # each sentence is hummed for a second
    page.keyboard.press("Escape")
    expect(page.locator("html")).not_to_have_attribute("data-live", "speaking")
    write(page, "history")
    turns(page, 2)
    remembered = reply(page, "end_to_end")
    assert remembered.startswith("The first sentence is here.") and "A third one" not in remembered
    assert "A third one ends it all." in reply(page, "cascade")


def test_the_microphone_is_closed_while_a_reply_is_spoken(server: Server, hearing: Open) -> None:
    first, second = clips(2)
    page = hearing(np.concatenate([quiet(1), first, quiet(1.2), second]), server.url)
    page.get_by_label(ENGLISH.instruction).fill("sentences")
    page.locator("#hands-free input").check()
    state(page, "speaking")
    turns(page, 1)
    state(page, "listening")
    page.wait_for_timeout(2000)
    expect(page.locator("#thread li")).to_have_count(1)


def test_three_spoken_turns_in_a_row_and_written_ones_between(server: Server, visitor: Callable[..., Page]) -> None:
    page = visitor(server.url)
    for number in (1, 2, 3):
        page.locator("#talk").click()
        expect(page.locator("#recording .stop-button")).to_be_visible()
        page.wait_for_timeout(1200)
        page.locator("#talk").click()
        turns(page, 2 * number - 1)
        assert re.match(r"cascade was told None about [1-9]\.\d\d seconds", reply(page, "cascade"))
        write(page, f"a word, number {number}")
        turns(page, 2 * number)
        assert reply(page, "end_to_end") == f"end_to_end was told a word, number {number} about None"
        expect(page.get_by_label(ENGLISH.message)).to_have_value("")
    write(page, "history")
    turns(page, 7)
    assert reply(page, "cascade").count("cascade was told") == 6 and "end_to_end" not in reply(page, "cascade")
    expect(page.locator("#thread li").last.locator(".replies .cascade .past")).to_contain_text("cascade was told None")
    expect(page.locator("#comparison")).to_contain_text("Turns compared: 3; left out: 4")


def test_a_past_clip_is_asked_about_again_heard_again_and_the_last_turn_changed(
    server: Server, visitor: Callable[..., Page]
) -> None:
    page = visitor(server.url)
    page.get_by_role("button", name="Two seconds").click()
    turns(page, 1)
    write(page, "between")
    turns(page, 2)
    page.locator("#thread li").last.get_by_role("button", name="Repeat", exact=True).click()
    turns(page, 3)
    assert reply(page, "cascade") == f"cascade was told {REPEAT} about 2.00 seconds"
    source = page.locator("#thread audio").first.get_attribute("src")
    clip = httpx.get(f"{server.url}{source}")
    assert clip.status_code == 200 and clip.headers["content-type"] == "audio/wav"
    assert httpx.get(f"{server.url}live/another-key/0.wav").status_code == 404

    page.get_by_role("button", name=ENGLISH.edit, exact=True).click()
    expect(page.get_by_label(ENGLISH.instruction)).to_have_value(REPEAT)
    page.get_by_label(ENGLISH.instruction).fill("changed")
    page.locator("#ask").click()
    expect(page.locator("#lane-cascade .reply")).to_have_text("cascade was told changed about 2.00 seconds")
    turns(page, 3)
    write(page, "history")
    turns(page, 4)
    assert "told changed" in reply(page, "cascade") and REPEAT not in reply(page, "cascade")

    page.get_by_role("button", name=ENGLISH.clear, exact=True).click()
    expect(page.locator("#thread li")).to_have_count(0)
    expect(page.locator("#lane-cascade .reply")).to_be_empty()
    write(page, "history")
    turns(page, 1)
    assert reply(page, "cascade") == "nothing"
    page.get_by_role("button", name=ENGLISH.edit, exact=True).click()
    write(page, "history, changed")
    expect(page.locator("#lane-cascade .reply")).to_have_text("cascade was told history, changed about None")
    turns(page, 1)


def test_several_clips_are_answered_as_one_turn(server: Server, visitor: Callable[..., Page]) -> None:
    page = visitor(server.url)
    add = page.get_by_role("button", name=ENGLISH.add, exact=True)
    add.click()
    expect(page.locator("#status")).to_have_text(ENGLISH.nothing_to_add)
    for _ in range(2):
        page.get_by_role("button", name="Two seconds").click()
        turns(page, 1)
        add.click()
        expect(page.locator("#status")).to_have_text(ENGLISH.adding)
    page.get_by_role("button", name="Two seconds").click()
    expect(page.locator("#lane-cascade .reply")).to_contain_text("6.00 seconds")
    turns(page, 1)
    source = page.locator("#thread audio").get_attribute("src")
    assert len(httpx.get(f"{server.url}{source}").content) > 6 * SAMPLE_RATE * 2
    page.get_by_role("button", name="Two seconds").click()  # nothing is added unless it is asked for again
    turns(page, 2)
    assert "2.00 seconds" in reply(page, "cascade")


def test_nothing_to_send_is_said_in_the_visitors_language(server: Server, visitor: Callable[..., Page]) -> None:
    page = visitor(server.url, locale="zh-CN")
    expect(page.locator("#send")).to_have_text(CHINESE.send)
    page.locator("#send").click()
    expect(page.locator("#status")).to_have_text("没有可以回答的内容。请说话或写点什么。")


def test_conversations_stay_apart(server: Server, visitor: Callable[..., Page]) -> None:
    one, other = visitor(server.url), visitor(server.url)
    write(one, "my marzipan")
    turns(one, 1)
    write(other, "history")
    turns(other, 1)
    assert reply(other, "cascade") == "nothing" and "marzipan" not in other.content()
    keys = [page.evaluate("earshot.key") for page in (one, other)]
    assert len(keys[0]) >= 22 and keys[0] != keys[1] and keys[0] not in other.content()


def test_a_refused_microphone_turns_hands_free_off(server: Server, visitor: Callable[..., Page]) -> None:
    page = visitor(
        server.url,
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); };",
    )
    page.locator("#hands-free input").click()
    expect(page.locator("#microphone-notes .denied")).to_be_visible()
    expect(page.locator("#hands-free input")).not_to_be_checked()
    state(page, "off")


def test_the_real_lanes_answer_hands_free(real_server: Server, hearing: Open) -> None:
    page = hearing(np.concatenate([quiet(1), clips(3)[2]]), real_server.url)
    page.locator("#hands-free input").check()
    expect(page.locator("#thread li")).to_have_count(1, timeout=60_000)
    expect(page.locator("#status")).to_have_text(ENGLISH.done, timeout=120_000)
    for lane in LANES:
        expect(page.locator(f"#lane-{lane} .reply")).to_have_text(re.compile(r"\w"))
    expect(page.locator("#timing .waited")).to_have_count(2)
    page.wait_for_function("Number(document.documentElement.dataset.spoken) >= 1")
    print(page.locator("#timing .waterfall-head").all_inner_texts())
