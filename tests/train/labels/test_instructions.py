"""The instruction pool: the bundled tasks, drawing, a task of one's own, and files that are not right."""

import random
from pathlib import Path

import pytest

from train.labels.instructions import LANGUAGES, InstructionError, InstructionPool

GOOD = 'title = "Summary"\nenglish = ["Sum this up", "In short"]\nheld_out_english = ["Give the gist"]\n'


def test_the_bundled_tasks_have_wordings_enough_in_both_languages() -> None:
    pool = InstructionPool.load()
    tasks = ["recognition", "repetition", "intent", "sentiment", "keywords", "translation", "continuation", "answer"]
    assert sorted(tasks) == list(pool.tasks)
    for name, task in pool.tasks.items():
        for language in LANGUAGES:
            assert len(task.wordings[language]) >= 8, name
            assert len(pool.held_out(name, language)) == 4, name
    everywhere = [w for task in pool.tasks.values() for texts in task.held_out.values() for w in texts]
    trained = {w for task in pool.tasks.values() for texts in task.wordings.values() for w in texts}
    assert not trained & set(everywhere) and len(set(everywhere)) == len(everywhere)


def test_drawing_follows_the_seed_reaches_every_wording_and_never_a_held_out_one() -> None:
    pool = InstructionPool.load()
    for name, task in pool.tasks.items():
        for language in LANGUAGES:
            first, second = random.Random(1), random.Random(1)
            drawn = [pool.draw(name, language, first) for _ in range(600)]
            assert drawn == [pool.draw(name, language, second) for _ in range(600)]
            assert {wording for wording in drawn if wording} == set(task.wordings[language])
            assert drawn.count("") / 600 == pytest.approx(task.speech_alone, abs=0.08)


def test_a_file_more_is_a_task_more(tmp_path: Path) -> None:
    (tmp_path / "summary.toml").write_text(GOOD, "utf-8")
    (tmp_path / "echo.toml").write_text('title = "回声"\nchinese = ["再说一遍"]\nrepeats = true', "utf-8")
    pool = InstructionPool.load(tmp_path)
    assert pool.offered("english") == ["summary"] and pool.offered("chinese") == ["echo"]
    assert pool.draw("summary", "english", random.Random(0)) in ("Sum this up", "In short")
    assert pool.held_out("summary", "english") == ["Give the gist"] and pool.held_out("summary", "chinese") == []
    assert pool.tasks["echo"].repeats and not pool.tasks["summary"].repeats


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "not a TOML file"),
        ('title = "x"', "give training wordings"),
        ('english = ["a"]', "a title is missing"),
        ('title = "x"\nenglish = "Do it"', "english must be a list"),
        ('title = "x"\nenglish = []', "english must be a list"),
        ('title = "x"\nenglish = ["a", " "]', "none of them empty"),
        ('title = "x"\nenglish = ["a"]\nheld_out_chinese = [1]', "held_out_chinese must be a list"),
        (GOOD + 'chinese = ["in short"]', "'in short' stands there twice"),
        (GOOD + "weight = 3", "unknown key 'weight'"),
        (GOOD + 'reply = "french"', "reply must be one of any language, other language"),
        (GOOD + "repeats = 2", "repeats must be one of"),
        (GOOD + "speech_alone = 1.5", "from 0 to 1"),
    ],
)
def test_a_broken_file_is_named_with_what_to_change(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "good.toml").write_text(GOOD, "utf-8")
    (tmp_path / "broken.toml").write_text(text, "utf-8")
    with pytest.raises(InstructionError, match=said) as error:
        InstructionPool.load(tmp_path)
    assert "broken.toml" in str(error.value)


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstructionError, match="no task files"):
        InstructionPool.load(tmp_path)
