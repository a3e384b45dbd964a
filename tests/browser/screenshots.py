"""Takes the pictures of docs/ on the real lanes: `python -m tests.browser.screenshots`, on a quiet machine."""

from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from assistant.lanes import load_lanes
from assistant.tts import Voice
from tests.browser.conftest import ASSETS, CHROMIUM, QUIET, Server
from ui.texts import CHINESE

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
CLIPS = ("A question", "A restaurant review", "An apology")
PATIENCE = 600_000  # milliseconds for an answer
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def main() -> None:
    """One session, seen in light, in dark, and in Chinese on a phone."""
    server = Server(load_lanes(), Voice(), ASSETS / "samples")
    try:
        with sync_playwright() as playwright:
            switches = [f"--{switch}" for switch in (*QUIET, "use-fake-device-for-media-stream")]
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=switches)
            page = browser.new_page(viewport=DESKTOP, color_scheme="light")  # type: ignore[arg-type]
            page.goto(server.url)
            page.wait_for_timeout(2000)
            for number, clip in enumerate(CLIPS, 1):
                page.get_by_role("button", name=clip).click()
                expect(page.locator("#comparison .turns li")).to_have_count(number, timeout=PATIENCE)
                expect(page.locator("#speech audio")).to_be_visible(timeout=PATIENCE)
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


def take(page: Page, name: str) -> None:
    """The whole page, with nothing hovered or focused."""
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    page.screenshot(path=str(DOCS / f"{name}.png"), full_page=True)


if __name__ == "__main__":
    main()
