import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pathclip.curate.ledger import FILE, Ledger
from pathclip.types import Dropped


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / ".unfinished"


def opened_elsewhere(folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    code = f"from pathclip.curate.ledger import *; Ledger(Path({str(folder)!r}), {key!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def names(ledger: Ledger) -> list[str]:
    return [row.id for row in ledger.dropped()]


def test_what_was_noted_is_there_when_the_same_curation_goes_on(folder):
    with Ledger(folder, "a") as ledger:
        ledger.set("posts kept", "3")
        with ledger.stage("read") as todo:
            assert todo
            ledger.drop("read", [Dropped("1", "malformed", "why", "")])
    with Ledger(folder, "a") as ledger:
        assert ledger.get("posts kept") == "3"
        assert list(ledger.dropped()) == [Dropped("1", "malformed", "why", "")]
        with ledger.stage("read") as todo:
            assert not todo


def test_another_curation_begins_anew(folder):
    with Ledger(folder, "a") as ledger:
        ledger.set("posts kept", "3")
        (folder / "train").mkdir()
        (folder / "train" / "000000.tar").touch()
    with Ledger(folder, "b") as ledger:
        assert ledger.get("posts kept") is None
        assert not (folder / "train").exists()


def test_a_stage_that_was_broken_off_is_done_again_from_its_beginning(folder):
    with Ledger(folder, "a") as ledger:
        with ledger.stage("read"):
            ledger.drop("read", [Dropped("line", "malformed")])
        with pytest.raises(KeyboardInterrupt), ledger.stage("pairs", ["pair"]):
            ledger.drop("pairs", [Dropped("1", "near_duplicate")])
            ledger.write("insert into pair (id) values (?)", [("1",), ("2",)])
            raise KeyboardInterrupt
    with Ledger(folder, "a") as ledger:
        assert names(ledger) == ["line", "1"]
        with ledger.stage("pairs", ["pair"]) as todo:
            assert todo
            assert names(ledger) == ["line"]
            assert not list(ledger.rows("select * from pair"))


def test_dropped_rows_are_told_in_the_order_in_which_they_were_noted(folder):
    with Ledger(folder, "a") as ledger:
        for stage, name in (("b", "3"), ("a", "1"), ("b", "2")):
            ledger.drop(stage, [Dropped(name, "x")])
        assert names(ledger) == ["3", "1", "2"]


def test_rows_go_on_while_others_are_written(folder):
    """Several thousand rows are read in pieces, and a commit between two of them must not end the reading."""
    with Ledger(folder, "a") as ledger:
        ledger.write("insert into pair (id) values (?)", ((str(n),) for n in range(5000)))
        seen = 0
        for (number,) in ledger.rows("select number from pair order by number"):
            seen += 1
            if number % 100 == 0:
                ledger.write("insert into tombstone values (?)", [(str(number),)])
        assert seen == 5000
        assert ledger.database.execute("select count(*) from tombstone").fetchone() == (50,)


def test_while_one_process_is_at_work_another_is_refused_in_a_line(folder):
    with Ledger(folder, "a"):
        run = opened_elsewhere(folder, "a")
        assert run.returncode == 1
        last = run.stderr.strip().splitlines()[-1]
        assert last.startswith("pathclip.errors.DataError") and "another `pathclip curate` is at work" in last
        assert str(folder.parent) in last
    with Ledger(folder, "a") as ledger:
        assert ledger.get("open") == "yes"


def test_another_process_with_other_settings_does_not_delete_what_is_being_worked_on(folder):
    with Ledger(folder, "a") as ledger:
        ledger.set("posts kept", "3")
        assert opened_elsewhere(folder, "b").returncode == 1
        assert ledger.get("posts kept") == "3"
    with Ledger(folder, "a") as ledger:
        assert ledger.get("posts kept") == "3"


@pytest.mark.parametrize("broken", [b"no database at all" * 400, b"SQLite format 3\0" + bytes(4000)])
def test_half_a_file_of_a_machine_that_lost_power_is_begun_anew(folder, broken):
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(broken)
    with Ledger(folder, "a") as ledger:
        ledger.set("posts kept", "3")
    with Ledger(folder, "a") as ledger:
        assert ledger.get("posts kept") == "3"


def test_a_ledger_cannot_be_written_once_closed(folder):
    with Ledger(folder, "a") as ledger:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.set("a", "b")
