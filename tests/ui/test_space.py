"""The repository as a Hugging Face Space: its front matter, and (slow) an environment built from its requirements."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect, sync_playwright

from assistant.commands.environment import PreparationError, run_step
from assistant.files import ROOT, cache_directory
from assistant.model.weights import locate
from tests.browser.conftest import CHROMIUM, QUIET
from ui.texts import ENGLISH

START_LIMIT = 180  # seconds until the page answers; importing a fresh environment the first time is slow
ANSWER_LIMIT = 240  # seconds until the models are loaded and both lanes have answered


def front_matter() -> dict[str, object]:
    """The block between the two lines of dashes at the top of README.md."""
    found = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert found, "README.md has no front matter: a Space would not know what to start"
    return yaml.safe_load(found[1])


def test_front_matter_says_what_the_requirements_say() -> None:
    matter = front_matter()
    pins = (ROOT / "requirements.txt").read_text("utf-8")
    assert matter["sdk"] == "gradio"
    assert f"gradio=={matter['sdk_version']}\n" in pins
    assert (ROOT / str(matter["app_file"])).is_file()
    assert tuple(map(int, str(matter["python_version"]).split("."))) >= (3, 10)
    assert len(str(matter["short_description"])) <= 60


@pytest.mark.slow
def test_a_space_built_from_its_requirements_answers_a_clip(tmp_path: Path) -> None:
    for name in ("whisper-base", "qwen2.5-coder-0.5b-instruct"):  # a Space fetches them from the hub, which is not here
        locate(name)
    python = build_environment(tmp_path / "environment")
    repository, temporary = tmp_path / "repository", tmp_path / "temporary"
    temporary.mkdir()
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, repository / name)
    before = contents(repository)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hosted = {
        "SPACE_ID": "someone/earshot",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(temporary),
        "EARSHOT_CACHE": str(cache_directory()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    began = time.monotonic()
    with (tmp_path / "space.log").open("w") as log:
        space = subprocess.Popen(
            [str(python), "launch.py", "--port", str(port)],
            cwd=repository,
            env={**os.environ, **hosted},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/", space, tmp_path / "space.log")
        print(f"the page answered after {time.monotonic() - began:.0f} s")
        ask_a_clip(f"http://127.0.0.1:{port}/")
        print(f"both lanes had answered after {time.monotonic() - began:.0f} s")
    finally:
        space.terminate()
        space.wait(30)
    assert contents(repository) == before
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")] == []


def build_environment(folder: Path) -> Path:
    """What a Space installs, in a fresh environment; its Python."""
    began = time.monotonic()
    python = folder / "bin" / "python"
    sdk = f"gradio[oauth]=={front_matter()['sdk_version']}"
    try:
        run_step([sys.executable, "-m", "venv", str(folder)])
        run_step([str(python), "-m", "pip", "install", "-q", "-r", str(ROOT / "requirements.txt"), sdk])
    except PreparationError as error:
        if "cannot be reached" in str(error):
            pytest.skip(str(error))
        raise
    print(f"the environment was built in {time.monotonic() - began:.0f} s")
    return python


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when something answers there."""
    give_up = time.monotonic() + START_LIMIT
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, f"the Space ended:\n{log.read_text()}"
            assert time.monotonic() < give_up, f"the Space did not answer:\n{log.read_text()}"
            time.sleep(0.5)


def ask_a_clip(url: str) -> None:
    """Pick a bundled clip in a browser and see both lanes answer it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[f"--{switch}" for switch in QUIET])
        try:
            page = browser.new_page()
            page.goto(url)
            page.get_by_role("button", name="A question").click(timeout=60_000)
            expect(page.locator("#status")).to_have_text(ENGLISH.done, timeout=ANSWER_LIMIT * 1000)
            for lane in ("end_to_end", "cascade"):
                expect(page.locator(f"#lane-{lane} .reply")).to_have_text(re.compile(r"\w"))
                expect(page.locator(f"#lane-{lane} .heard")).to_have_text(re.compile(r"\w+ \w+"))
        finally:
            browser.close()


def contents(folder: Path) -> dict[str, int]:
    """Every file in a folder, with its size."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
