"""Takes the pictures of docs/ on the real lanes: `python -m tests.browser.screenshots`, on a quiet machine."""

import tempfile
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import Page, expect, sync_playwright

from assistant.files import ROOT, SAMPLES
from assistant.lanes.loading import load_lanes
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from assistant.voice.tts import load_voice
from tests.browser.conftest import CHROMIUM, QUIET, Server
from ui.texts import CHINESE, ENGLISH

DOCS = ROOT / "docs"
CLIPS = ("A question", "A restaurant review", "An apology")
SPOKEN = ("capital.flac", "good_day.flac")
PATIENCE = 600_000  # milliseconds for an answer
PAUSE = np.random.default_rng(0).normal(0, 1e-4, 2 * SAMPLE_RATE)  # the noise of a quiet room
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def main() -> None:
    """One session of bundled clips, seen in light, in dark, and in Chinese on a phone; and one without hands."""
    server = Server(load_lanes(), load_voice, SAMPLES)
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            microphone = Path(folder) / "microphone.wav"
            speech = [load_utterance(SAMPLES / name).resampled() for name in SPOKEN]
            soundfile.write(microphone, np.concatenate([PAUSE, speech[0], PAUSE, PAUSE, speech[1], PAUSE]), SAMPLE_RATE)
            switches = [*QUIET, "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"]
            switches.append(f"use-file-for-fake-audio-capture={microphone}%noloop")
            browser = playwright.chromium.launch(
                executable_path=str(CHROMIUM), args=[f"--{switch}" for switch in switches]
            )
            hands_free(browser.new_page(viewport=DESKTOP, color_scheme="light"), server.url)  # type: ignore[arg-type]
            page = browser.new_page(viewport=DESKTOP, color_scheme="light")  # type: ignore[arg-type]
            page.goto(server.url)
            page.wait_for_selector("html[data-line]", state="attached")
            for number, clip in enumerate(CLIPS, 1):
                page.get_by_role("button", name=clip).click()
                answered(page, number)
            take(page, "page")
            page.evaluate("document.body.classList.add('dark')")
            take(page, "page-dark")
            page.evaluate("document.body.classList.remove('dark')")
            page.set_viewport_size(PHONE)  # type: ignore[arg-type]
            page.locator("#language").get_by_label(CHINESE.own_name).check()
            expect(page.locator("#talk")).to_have_text(CHINESE.talk, timeout=PATIENCE)
            take(page, "page-phone-chinese")
            browser.close()
    finally:
        server.close()


def hands_free(page: Page, url: str) -> None:
    """Two utterances from the microphone, answered without a click between them."""
    page.goto(url)
    page.wait_for_selector("html[data-line]", state="attached")
    page.locator("#voice").get_by_label(ENGLISH.voices["silent"], exact=True).check()
    page.locator("#hands-free input").check()
    answered(page, 2)
    take(page, "page-hands-free")
    page.close()


def answered(page: Page, turns: int) -> None:
    """Wait until so many turns were answered by both lanes."""
    expect(page.locator("#thread li")).to_have_count(turns, timeout=PATIENCE)
    expect(page.locator("#status")).to_have_text(ENGLISH.done, timeout=PATIENCE)
    expect(page.locator("#comparison .turns li")).to_have_count(turns, timeout=PATIENCE)


def take(page: Page, name: str) -> None:
    """The whole page, with nothing hovered or focused."""
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    page.screenshot(path=str(DOCS / f"{name}.png"), full_page=True)


if __name__ == "__main__":
    main()
