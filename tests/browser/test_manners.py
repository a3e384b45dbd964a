"""The page's manners in a real browser: export, comparison, keys, languages, dark, loading, a server that went away."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, expect

from ui.texts import CHINESE, ENGLISH

if TYPE_CHECKING:
    from tests.browser.conftest import Server

Visit = Callable[..., Page]
LANES = ("end_to_end", "cascade")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def pick(page: Page, title: str, done: str = ENGLISH.done) -> None:
    """Click a bundled clip and wait until this answer, not the one before, is there."""
    turns = page.locator("#comparison .turns li").count()
    page.get_by_role("button", name=title).click()
    expect(page.locator("#comparison .turns li")).to_have_count(turns + 1)
    expect(page.locator("#status")).to_contain_text(done)


def download(page: Page, button: str) -> tuple[str, bytes]:
    """Click an export button; the file's name and content."""
    with page.expect_download() as started:
        page.get_by_role("button", name=button, exact=True).click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def test_the_session_is_compared_and_exported(server: Server, visitor: Visit, samples: Path) -> None:
    page = visitor(server.url)
    expect(page.locator("#comparison")).to_contain_text(ENGLISH.comparison_empty)
    page.get_by_role("button", name=ENGLISH.export_csv, exact=True).click()
    expect(page.locator("#status")).to_have_text(ENGLISH.nothing_to_export)
    pick(page, "Two seconds")
    pick(page, "Four seconds")
    expect(page.locator("#comparison .explanation")).to_have_text(
        "The cascade's first word came 760 ms later on average. The cascade spent 800 ms transcribing. "
        "The end-to-end lane spent 40 ms in its connector."
    )
    expect(page.locator("#comparison .field .point")).to_have_count(4)
    expect(page.locator("#comparison table")).to_contain_text("360 / 360")

    name, content = download(page, ENGLISH.export_json)
    session = json.loads(content)
    assert name == "earshot-session.json"
    assert [turn["order"][0] for turn in session["turns"]] == ["end_to_end", "cascade"]
    assert session["turns"][1]["instruction"] == "Repeat it."
    assert session["turns"][1]["lanes"]["cascade"]["latency"]["transcribe"] == 800
    assert session["comparison"]["ratio"]["first_token"] == pytest.approx(360 / 1120, abs=1e-3)

    name, content = download(page, ENGLISH.export_csv)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [(row["turn"], row["lane"]) for row in rows] == [
        (turn, lane) for turn, lanes in (("1", LANES), ("2", LANES[::-1])) for lane in lanes
    ]
    assert rows[0]["first_token"] == "360"

    name, content = download(page, ENGLISH.export_zip)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["audio/001.flac", "audio/002.flac", "session.csv", "session.json"]
        sound, rate = soundfile.read(io.BytesIO(archive.read("audio/002.flac")))
        assert rate == 16_000 and np.allclose(sound, soundfile.read(samples / "four.flac")[0], atol=1e-4)
        assert json.loads(archive.read("session.json")) == session


def test_what_the_lanes_heard_differently_is_marked(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    page.get_by_label(ENGLISH.instruction).fill("mishear")
    page.get_by_label("Upload file").first.click()
    page.locator("#recording input[type=file]").set_input_files(server.clip)
    expect(page.locator("#status")).to_contain_text(ENGLISH.done)
    expect(page.locator("#lane-end_to_end mark")).to_have_text(["second"])
    expect(page.locator("#lane-cascade mark")).to_have_text(["seconds"])
    expect(page.locator("#lane-cascade .heard-note")).to_contain_text("1 of 2 words differ")
    expect(page.locator("#lane-end_to_end .heard-note")).to_contain_text("Confidence: 70 % on average.")
    line = page.locator("#lane-cascade mark").evaluate("mark => getComputedStyle(mark).textDecorationLine")
    assert line == "underline"  # not told by colour alone


def test_the_space_bar_talks_and_escape_stops(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    box = page.get_by_label(ENGLISH.instruction)
    box.click()
    page.keyboard.type("slowly please ")
    expect(box).to_have_value("slowly please ")
    expect(page.locator("#recording .stop-button")).to_be_hidden()
    box.fill("slowly")
    page.locator("h1").click()  # away from the box
    page.keyboard.press("Space")
    expect(page.locator("#recording .stop-button")).to_be_visible()
    page.wait_for_timeout(1500)
    page.keyboard.press("Space")
    expect(page.locator("#lane-end_to_end .reply")).to_contain_text("told slowly about")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text(ENGLISH.stopped)
    box.fill("")
    page.locator("h1").click()
    page.keyboard.down("Space")  # held, with a recording still there
    expect(page.locator("#recording .stop-button")).to_be_visible()
    page.wait_for_timeout(1500)
    page.keyboard.up("Space")
    expect(page.locator("#lane-cascade .reply")).to_have_text(re.compile(r"cascade was told None about [1-9]\.\d\d"))


def test_the_talk_button_speaks_again_and_again(server: Server, visitor: Visit) -> None:
    page = visitor(server.url)
    for turn in (1, 2):
        page.get_by_role("button", name=ENGLISH.talk, exact=True).click()
        expect(page.locator("#recording .stop-button")).to_be_visible()
        page.wait_for_timeout(1200)
        page.locator("#talk").click()
        expect(page.locator("#comparison .turns li")).to_have_count(turn)


def test_a_chinese_browser_is_greeted_in_chinese_and_the_page_can_be_switched(server: Server, visitor: Visit) -> None:
    page = visitor(server.url, locale="zh-CN")
    expect(page.locator("#talk")).to_have_text(CHINESE.talk)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    pick(page, "Two seconds", CHINESE.done)
    expect(page.locator("#lane-cascade h2")).to_have_text(CHINESE.lanes["cascade"])
    expect(page.locator("#comparison .explanation")).to_contain_text("在转写上花了 800 毫秒")
    page.locator("#language").get_by_label("English").check()
    expect(page.locator("#talk")).to_have_text(ENGLISH.talk)
    expect(page.locator("#comparison .explanation")).to_contain_text("800 ms transcribing")  # the session is kept
    expect(page.locator("#lane-cascade .reply")).to_contain_text("2.00 seconds")
    page.reload()
    expect(page.locator("#talk")).to_have_text(ENGLISH.talk)  # and the choice


def test_a_bad_recording_is_explained_in_chinese(server: Server, visitor: Visit, tmp_path: Path) -> None:
    page = visitor(server.url, locale="zh-CN")
    expect(page.locator("#talk")).to_have_text(CHINESE.talk)
    soundfile.write(tmp_path / "short.wav", [0.1] * 1600, 16_000)
    page.locator("#recording .source-selection button").first.click()
    page.locator("#recording input[type=file]").set_input_files(tmp_path / "short.wav")
    expect(page.locator("#status .problem")).to_have_text("short.wav 太短：0.10 秒。请至少说 0.3 秒。")


def test_a_phone_shows_what_to_do_first(server: Server, visitor: Visit) -> None:
    page = visitor(server.url, **PHONE)
    talk = page.locator("#talk").bounding_box()
    assert talk and talk["y"] + talk["height"] < 844 / 2 and talk["height"] >= 44
    pick(page, "Two seconds")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    narrow = page.locator(".stage-value").evaluate_all(
        "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth)"
    )
    assert narrow == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(server: Server, visitor: Visit, scheme: str) -> None:
    page = visitor(server.url, color_scheme=scheme)
    pick(page, "Two seconds")
    ratios = page.evaluate(CONTRAST)
    assert {words: ratio for words, ratio in ratios.items() if ratio < 4.5} == {}


# The contrast of every visible word with the colour behind it, WCAG 2.1, 1.4.3.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const part = [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]; };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor); if (colour[3] > 250) return colour; }
    return [255, 255, 255]; };
  const found = {};
  for (const element of document.querySelectorAll('.prose p, .prose span, .prose h1, .prose h2, .prose h3, ' +
      '.prose td, .prose th, .prose li, .prose summary, label, #talk, .chips button, #race span')) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
    const words = texts.map((node) => node.data).join('').trim();
    if (!words || !element.offsetParent || element.closest('[disabled]')) continue;
    const [one, other] = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    found[words] = (one + 0.05) / (other + 0.05);
  }
  return found; }"""


def test_while_the_models_load_the_page_says_so_and_takes_questions(samples: Path, visitor: Visit) -> None:
    from tests.browser.conftest import ScriptedLane, Server, silence

    server = Server(None, silence, samples)
    try:
        page = visitor(server.url)
        expect(page.locator("#status")).to_contain_text("The models are loading")
        page.get_by_role("button", name="Two seconds").click()
        expect(page.locator("#stop")).to_be_enabled()
        server.machine.provide({name: ScriptedLane(name) for name in LANES})
        expect(page.locator("#lane-cascade .reply")).to_contain_text("2.00 seconds")
        expect(page.locator("#status")).to_have_text(ENGLISH.done)
    finally:
        server.close()


def test_a_server_that_was_killed_and_came_back_answers_again(samples: Path, visitor: Visit) -> None:
    from tests.browser.conftest import ScriptedLane, Server, silence

    lanes = {name: ScriptedLane(name) for name in LANES}
    first = Server(dict(lanes), silence, samples)
    page = visitor(first.url)
    pick(page, "Two seconds")
    first.close()
    expect(page.locator("#header .lost")).to_be_visible()
    expect(page.locator("#lane-cascade .reply")).to_contain_text("2.00 seconds")  # what was said stays readable
    second = Server(dict(lanes), silence, samples, first.port)
    try:
        expect(page.locator("#comparison .turns li")).to_have_count(0)  # loaded anew, by itself
        expect(page.locator("#header .lost")).to_be_hidden()
        page.get_by_role("button", name="Four seconds").click()
        expect(page.locator("#lane-cascade .reply")).to_contain_text("4.00 seconds")
        expect(page.locator("#status")).to_have_text(ENGLISH.done)
    finally:
        second.close()


def test_those_who_wait_see_how_many_come_first(server: Server, visitor: Visit) -> None:
    one, other = visitor(server.url), visitor(server.url)
    one.get_by_label(ENGLISH.instruction).fill("slowly")
    one.locator("#recording .source-selection button").first.click()
    one.locator("#recording input[type=file]").set_input_files(server.clip)
    expect(one.locator("#lane-end_to_end .reply")).to_contain_text("told slowly")
    other.get_by_role("button", name="Four seconds").click()
    expect(other.locator("#status")).to_have_text(ENGLISH.ahead.format(count=1))
    one.click("#stop")
    expect(other.locator("#lane-cascade .reply")).to_contain_text("4.00 seconds")
