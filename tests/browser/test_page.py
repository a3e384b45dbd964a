"""What a visitor sees, in a real browser: speaking, bad recordings, other visitors, no microphone, small screens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from assistant.sound.audio import SAMPLE_RATE
from ui.layout import read_presets
from ui.texts import ENGLISH

if TYPE_CHECKING:
    from tests.browser.conftest import Server

Visit = Callable[..., Page]
LANES = ("end_to_end", "cascade")


def record(page: Page, seconds: float) -> None:
    """Press record, wait, press stop."""
    page.click("#recording .record-button")
    expect(page.locator("#recording .stop-button")).to_be_visible()
    page.wait_for_timeout(seconds * 1000)
    page.click("#recording .stop-button")


def upload(page: Page, path: Path) -> None:
    """Choose a file, as the file dialogue would."""
    if page.get_by_label("Clear").count():
        page.get_by_label("Clear").click()
    page.get_by_label("Upload file").first.click()
    page.locator("#recording input[type=file]").set_input_files(path)


def pick(page: Page, title: str) -> None:
    """Click a bundled clip and wait for both replies."""
    page.get_by_role("button", name=title).click()
    expect(page.locator("#status")).to_contain_text(ENGLISH.done)


def reply(page: Page, lane: str) -> Any:
    """Where a lane's reply stands."""
    return page.locator(f"#lane-{lane} .reply")


def test_speaking_is_answered_by_both_lanes(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    record(page, 2)
    expect(page.locator("#status")).to_contain_text(ENGLISH.done)
    for lane in LANES:
        expect(reply(page, lane)).to_have_text(re.compile(rf"{lane} was told None about [1-9]\.\d\d seconds"))
        expect(page.locator(f"#lane-{lane} .heard")).to_contain_text("seconds")
    expect(page.locator("#timing .segment.transcribe")).to_have_count(1)
    expect(page.locator("#timing .marker.first_token")).to_have_count(2)
    expect(page.locator("#timing .marker.first_audio")).to_have_count(1)
    expect(page.locator("html")).to_have_attribute("data-spoken", re.compile(r"[1-9]"))


def test_real_speech_is_answered_by_the_real_lanes(real_server: Server, visitor: Visit, clip: Path) -> None:
    page = visitor(real_server.url)
    record(page, soundfile.info(clip).duration + 0.5)
    expect(page.locator("#status")).to_contain_text(ENGLISH.done, timeout=120_000)
    for lane in LANES:
        expect(page.locator(f"#lane-{lane} .heard")).to_have_text(re.compile(r"\w+ \w+"))
        expect(reply(page, lane)).to_have_text(re.compile(r"\w"))
        expect(reply(page, lane)).not_to_have_text(ENGLISH.empty_reply)


def test_a_clip_brings_its_instruction(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    pick(page, "Four seconds")
    expect(page.get_by_label(ENGLISH.instruction)).to_have_value("Repeat it.")
    expect(reply(page, "cascade")).to_have_text("cascade was told Repeat it. about 4.00 seconds")
    pick(page, "Two seconds")
    expect(reply(page, "cascade")).to_have_text("cascade was told None about 2.00 seconds")


def test_presets_fill_the_instruction(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    for title, wording in reversed(read_presets()):
        page.get_by_role("button", name=title, exact=True).click()
        expect(page.get_by_label(ENGLISH.instruction)).to_have_value(wording)


def test_asking_before_speaking_says_what_to_do(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    page.click("#ask")
    expect(page.locator("#status")).to_have_text(ENGLISH.no_recording)


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("this is not sound", "is not audio that can be read"),
        ("", "is empty"),
        (np.full(SAMPLE_RATE // 10, 0.1), "too short"),
        (np.zeros(SAMPLE_RATE), "is silent"),
        (np.full(SAMPLE_RATE, np.nan), "not numbers"),
    ],
    ids=["text", "empty", "short", "silent", "nan"],
)
def test_bad_files_are_explained(
    server: Server, visitor: Visit, tmp_path: Path, recording: np.ndarray | str, words: str
) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    path = tmp_path / "upload.wav"
    if isinstance(recording, str):
        path.write_text(recording, "utf-8")
    else:
        soundfile.write(path, recording, SAMPLE_RATE, subtype="FLOAT")
    upload(page, path)
    expect(page.locator("#status .problem")).to_contain_text(words)
    expect(reply(page, "end_to_end")).to_contain_text("2.00 seconds")
    assert "Traceback" not in page.inner_text("body")
    pick(page, "Four seconds")


def test_our_own_failure_is_one_sentence(server: Server, visitor: Visit, caplog: pytest.LogCaptureFixture) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    page.get_by_label(ENGLISH.instruction).fill("fail")
    page.click("#ask")
    expect(page.locator("#status")).to_have_text(ENGLISH.unexpected)
    assert not re.search("Traceback|scripted failure|Error", page.inner_text("body"))
    assert "scripted failure" in caplog.text
    pick(page, "Two seconds")


def test_a_lane_that_hears_nothing_leaves_the_other_alone(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    page.get_by_label(ENGLISH.instruction).fill("deaf")
    page.click("#ask")
    expect(reply(page, "end_to_end")).to_have_text("No words were heard.")
    expect(reply(page, "cascade")).to_have_text("cascade was told deaf about 2.00 seconds")
    expect(page.locator("#timing")).to_contain_text(ENGLISH.not_timed)


def test_replies_are_text_not_markup(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    page.get_by_label(ENGLISH.instruction).fill("markup")
    page.click("#ask")
    expect(reply(page, "cascade")).to_contain_text("<b>bold</b><script>")
    assert page.title() == ENGLISH.title


def test_two_visitors_do_not_see_each_other(server: Server, visitor: Visit) -> None:
    one, other = visitor(server.url), visitor(server.url)
    one.get_by_label(ENGLISH.instruction).fill("first secret")
    one.get_by_role("button", name="Two seconds").click()
    other.get_by_role("button", name="Four seconds").click()
    for page, mine, foreign in ((one, "2.00 seconds", "4.00"), (other, "4.00 seconds", "2.00")):
        expect(page.locator("#status")).to_contain_text(ENGLISH.done)
        for lane in LANES:
            expect(reply(page, lane)).to_contain_text(mine)
        assert foreign not in page.inner_text("#lanes")
    assert "first secret" not in other.content()
    third = visitor(server.url)
    expect(reply(third, "cascade")).to_be_empty()


def test_stopping_and_leaving_close_the_lane(server: Server, visitor: Visit) -> None:
    lane = server.lanes["cascade"]  # it begins in a visitor's second turn
    for leave in (False, True):
        page = visitor(server.url)
        pick(page, "Two seconds")
        page.get_by_label(ENGLISH.instruction).fill("slowly")
        page.click("#ask")
        expect(reply(page, "cascade")).to_contain_text("told slowly about 2.00 seconds.")
        assert not lane.closed.is_set()  # type: ignore[attr-defined]
        if leave:
            page.context.close()
        else:
            page.click("#stop")
            expect(page.locator("#status")).to_have_text(ENGLISH.stopped)
        assert lane.closed.wait(timeout=15)  # type: ignore[attr-defined]
    pick(visitor(server.url), "Two seconds")


def test_a_new_question_replaces_the_running_one(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    page.get_by_label(ENGLISH.instruction).fill("slowly")
    page.click("#ask")
    expect(reply(page, "cascade")).to_contain_text("told slowly")
    pick(page, "Four seconds")
    for lane in LANES:
        expect(reply(page, lane)).to_have_text(f"{lane} was told Repeat it. about 4.00 seconds")


def test_the_picked_lane_speaks(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    page.locator("#voice").get_by_label(ENGLISH.voices["silent"]).check()
    pick(page, "Two seconds")
    expect(page.locator("#timing .marker.first_audio")).to_have_count(0)
    assert page.evaluate("document.documentElement.dataset.spoken") is None
    page.locator("#voice").get_by_label(ENGLISH.voices["natural"]).check()
    page.locator("#spoken-choice").get_by_label("Cascade").check()
    page.get_by_label(ENGLISH.instruction).fill("sentences")
    page.click("#ask")
    expect(page.locator("html")).to_have_attribute("data-live", "speaking")
    expect(page.locator("#status")).to_contain_text(ENGLISH.done)
    cascade = page.locator("#timing .waterfall-lane").nth(1)
    expect(cascade.locator(".marker.first_audio")).to_have_count(1)
    expect(page.locator("#timing .marker.first_audio")).to_have_count(1)
    expect(page.locator("html")).to_have_attribute("data-spoken", "3")  # three sentences, each a piece of its own
    page.get_by_label(ENGLISH.instruction).fill("unspeakable")
    page.click("#ask")
    expect(page.locator("#speech .unspoken")).to_have_text("This voice does not say that.")


def test_plain_http_from_another_machine_is_explained(server: Server, visitor: Visit) -> None:
    page = visitor(server.remote_url)
    note = page.locator("#microphone-notes .insecure")
    expect(note).to_be_visible()
    expect(note).to_contain_text(f"ssh -L {server.port}:127.0.0.1:{server.port}")
    pick(page, "Two seconds")


@pytest.mark.parametrize(
    ("error", "reason"), [("NotAllowedError", "denied"), ("NotFoundError", "missing"), ("NotReadableError", "busy")]
)
def test_a_microphone_that_does_not_open_is_explained(server: Server, visitor: Visit, error: str, reason: str) -> None:
    page = visitor(
        server.url, f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }};"
    )
    page.click("#recording .record-button")
    expect(page.locator(f"#microphone-notes .{reason}")).to_be_visible()
    expect(page.locator("#microphone-notes .problem:visible")).to_have_count(1)


def test_a_refused_permission_is_explained(server: Server, chromium: Callable[..., Browser]) -> None:
    browser = chromium("use-fake-device-for-media-stream", "deny-permission-prompts")
    try:
        page = browser.new_page()
        page.goto(server.url)
        page.click("#recording .record-button")
        expect(page.locator("#microphone-notes .denied")).to_be_visible()
    finally:
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(server: Server, visitor: Visit, width: int, scheme: str) -> None:
    page = visitor(server.url, viewport={"width": width, "height": 844}, color_scheme=scheme)
    pick(page, "Two seconds")
    page.locator("#timing summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_above_the_replies_moves_while_answering(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    expect(page.locator("#recording .record-button")).to_be_visible()
    page.wait_for_timeout(1000)  # until the first layout has settled
    where = """() => ['#lanes', '#timing'].map((id) => { const box = document.querySelector(id).getBoundingClientRect();
        return [box.x + scrollX, box.y + scrollY, box.width, box.height]; })"""
    before = page.evaluate(where)
    pick(page, "Two seconds")
    assert page.evaluate(where) == before


def test_no_request_leaves_the_machine(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url))
    page.reload()
    page.wait_for_selector("#lane-cascade .lane")
    pick(page, "Two seconds")
    assert [url for url in foreign if not url.startswith((server.url, "data:", "blob:"))] == []


def test_every_control_has_a_name(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    pick(page, "Two seconds")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, select, audio')].filter((control) =>
             control.offsetParent && !control.innerText && !control.ariaLabel && !control.labels?.length
             && !control.title).map((control) => control.outerHTML)"""
    )
    assert unnamed == []
