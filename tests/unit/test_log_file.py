"""Reading a container's rotated files: every record once and in order, or what is missing is told."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.engine.logfile import LogFileReader
from agent.engine.output import NOWHERE, Lost, Mark, Record, Spool
from tests.fakes.json_file import JsonFile

START = 1_800_000_000_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> JsonFile:
    return JsonFile(tmp_path / "c-json.log")


@contextlib.contextmanager
def reading(file: JsonFile, position: object = "") -> Iterator[LogFileReader]:
    with contextlib.closing(LogFileReader(file.path, spool=Spool(file.max_file, file.max_size))) as reader:
        reader.seek(str(position))
        yield reader


def write(file: JsonFile, *numbers: int) -> None:
    for number in numbers:
        file.write(f"{number}\n", at_ns=START + number)


def told(items: list[Record | Lost]) -> list[object]:
    """Return numbers, and for what is missing the number before it (None: not known)."""
    return [
        int(each.text) if isinstance(each, Record) else ("lost", each.since_ns - START if each.since_ns else None)
        for each in items
    ]


def marks(file: JsonFile) -> list[Mark]:
    with reading(file) as reader:
        return [each.mark for each in reader.read_now(1 << 30) if isinstance(each, Record)]


def test_what_is_written_while_it_is_read_comes_in_order_over_rotations(file: JsonFile) -> None:
    write(file, 1, 2)
    with reading(file) as reader:
        assert told(reader.read_now(1 << 20)) == [1, 2]
        assert reader.waiting() == 0
        write(file, 3)
        assert reader.waiting() > 0
        file.rotate()
        write(file, 4)
        file.rotate()
        file.rotate()
        write(file, 5)
        assert told(reader.read_now(1 << 20)) == [3, 4, 5]
        assert told(reader.read_now(1 << 20)) == []
        assert reader.missing() is None


def test_what_waits_is_counted_over_rotations(file: JsonFile) -> None:
    """Else who is far behind would read on at the pace of one who waits for more, and be overtaken."""
    write(file, 1)
    with reading(file) as reader:
        assert told(reader.read_now(1)) == [1]
        size = file.path.stat().st_size
        for rotations in range(1, file.max_file):
            write(file, 2)
            file.rotate()
            write(file, 3)
            assert reader.waiting() == 2 * rotations * size
        file.rotate()  # its own file is gone, but for the reader
        assert reader.waiting() == 2 * (file.max_file - 1) * size
        reader.read_now(1 << 20)
        assert reader.waiting() == 0


def test_a_record_is_read_once_it_is_whole(file: JsonFile) -> None:
    write(file, 1)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:20])
    with reading(file) as reader:
        assert reader.read_now(1 << 20) == []
        assert reader.waiting() == 0
        file.write_raw(whole[20:])
        assert told(reader.read_now(1 << 20)) == [1]


@pytest.mark.parametrize("rotations", [0, 1, 3])
def test_reading_goes_on_behind_any_record(file: JsonFile, rotations: int) -> None:
    write(file, 1, 2)
    file.write("x" * 100, at_ns=START + 3, stream="stderr")
    behind = marks(file)
    for _ in range(rotations):
        file.rotate()
    write(file, 4)
    for position, expected in zip(behind, ([2], [], []), strict=True):
        with reading(file, position) as reader:
            items = reader.read_now(1 << 20)
            assert told([item for item in items if item.text.endswith("\n")]) == [*expected, 4]  # type: ignore[union-attr]
        nowhere = position._replace(offset=NOWHERE)
        with reading(file, nowhere) as reader:
            assert reader.read_now(1 << 20) == items


def test_what_was_rotated_away_is_told_with_what_comes_behind(file: JsonFile) -> None:
    write(file, 1)
    (mark,) = marks(file)
    with reading(file, mark) as reader:
        for number in range(2, 8):
            file.rotate()
            write(file, number)
        # The file that is held open is read to its end; then the oldest there is.
        assert told(reader.read_now(1 << 20)) == [("lost", 1), 4, 5, 6, 7]
    with reading(file, mark) as reader:
        assert told(reader.read_now(1 << 20)) == [("lost", 1), 4, 5, 6, 7]
    with reading(file) as reader:
        (lost, *rest) = reader.read_now(1 << 20)
        assert isinstance(lost, Lost)
        assert not lost.sure
        assert told(rest) == [4, 5, 6, 7]


def test_behind_a_time_only_what_is_younger_is_read(file: JsonFile) -> None:
    write(file, 1, 2, 3)
    with reading(file, Mark(START + 2)) as reader:
        assert told(reader.read_now(1 << 20)) == [3]


def test_a_torn_record_costs_nothing_but_itself(file: JsonFile) -> None:
    write(file, 1)
    file.write_raw(b'{"log":"torn {\\"log\\":\\"')
    write(file, 3)
    file.write_raw(b"\x00\x00 nothing like a record\n")
    write(file, 5)
    with reading(file) as reader:
        assert told(reader.read_now(1 << 20)) == [1, ("lost", 1), 3, ("lost", 3), 5]
    for position, expected in zip(marks(file), ([3, 5], [5], []), strict=True):
        with reading(file, position) as reader:
            assert [each for each in told(reader.read_now(1 << 20)) if not isinstance(each, tuple)] == expected


def test_a_record_torn_at_the_very_end_is_missing_at_the_end(file: JsonFile) -> None:
    write(file, 1)
    file.write_raw(b'{"log":"tor')
    with reading(file) as reader:
        assert told(reader.read_now(1 << 20)) == [1]
        lost = reader.missing()
        assert lost is not None
        assert told([lost]) == [("lost", 1)]
        assert reader.missing() is None


def test_garbage_without_an_end_takes_no_memory(file: JsonFile) -> None:
    with reading(file) as reader:
        for _ in range(30):
            file.write_raw(b"\x00" * 100_000)
            assert reader.read_now(1 << 20) == []
            assert len(reader._rest) < 700_000
        file.write_raw(b"\n")
        write(file, 1)
        assert told(reader.read_now(1 << 20)) == [("lost", None), 1]


def test_a_file_that_somebody_cut_off_is_read_from_its_beginning(file: JsonFile) -> None:
    write(file, 1, 2)
    with reading(file) as reader:
        assert told(reader.read_now(1 << 20)) == [1, 2]
        file.path.write_bytes(b"")
        write(file, 3)
        assert reader.waiting() > 0
        assert told(reader.read_now(1 << 20)) == [("lost", 2), 3]


def test_a_position_that_nobody_understands_begins_anew_and_says_so(file: JsonFile) -> None:
    write(file, 1)
    with reading(file, "v9:what") as reader:
        lost, record = reader.read_now(1 << 20)
    assert isinstance(lost, Lost)
    assert "v9:what" in lost.why
    assert told([record]) == [1]


def test_without_a_file_there_is_nothing_to_open(file: JsonFile) -> None:
    file.remove()
    with pytest.raises(FileNotFoundError):
        LogFileReader(file.path, spool=Spool(file.max_file, file.max_size)).seek("")


def test_a_reader_of_a_removed_container_reads_what_it_holds(file: JsonFile) -> None:
    write(file, 1, 2)
    with reading(file) as reader:
        file.remove()
        assert told(reader.read_now(1 << 20)) == [1, 2]
        assert reader.waiting() == 0


def test_files_that_rotate_at_the_same_time_are_read_all_the_same(file: JsonFile) -> None:
    """A thread writes and rotates every few records, as fast as it can; readers come, read on, and go."""
    file.max_size = 2000
    total = 6000

    def run() -> None:
        write(file, *range(1, total + 1))

    items: list[Record | Lost] = []
    position = ""
    writing = threading.Thread(target=run)
    writing.start()
    try:
        last = 0
        while last < total:
            with reading(file, position) as reader:
                for _ in range(3):
                    for item in reader.read_now(5000):
                        items.append(item)
                        if isinstance(item, Record):
                            position, last = str(item.mark), int(item.text)
    finally:
        writing.join()
    expected, gap = 1, False
    for item in items:
        if isinstance(item, Lost):
            gap = True
            continue
        number = int(item.text)
        assert number >= expected, "doubled, or out of order"
        assert number == expected or gap, f"{expected} to {number} are missing, and nothing says so"
        expected, gap = number + 1, False


class Rotating(RuleBasedStateMachine):
    """Records are written, files rotate, records are torn, and readers come and go, at any moment."""

    @initialize(size=st.integers(60, 400), files=st.integers(2, 4))
    def begin(self, size: int, files: int) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.file = JsonFile(Path(self.directory.name) / "c-json.log", max_size=size, max_file=files)
        self.written = 0
        self.torn: set[int] = set()
        self.position = ""
        self.items: list[object] = []
        self.reader: LogFileReader | None = None

    @rule(count=st.integers(1, 12))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.written += 1
            write(self.file, self.written)

    @rule()
    def tear(self) -> None:
        """A write that a full disk cuts off."""
        self.written += 1
        self.torn.add(self.written)
        self.file.write_raw(b'{"log":"%d' % self.written)

    @rule(size=st.integers(1, 300))
    def read(self, size: int) -> None:
        if self.reader is None:
            self.reader = LogFileReader(self.file.path, spool=Spool(self.file.max_file, self.file.max_size))
            self.reader.seek(self.position)
        for item in self.reader.read_now(size):
            self.items.append(item)
            if isinstance(item, Record):
                self.position = str(item.mark)

    @rule()
    def leave(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        while self.items and isinstance(self.items[-1], Lost):
            self.items.pop()  # what is told with a record is told again with it

    @invariant()
    def everything_once_in_order_or_told(self) -> None:
        expected = 1
        gap = False
        for item in getattr(self, "items", ()):
            if isinstance(item, Lost):
                gap = True
                continue
            assert isinstance(item, Record)
            number = int(item.text)
            assert number >= expected, "doubled, or out of order"
            assert number == expected or gap, f"{expected} to {number} are missing, and nothing says so"
            assert number not in self.torn
            expected, gap = number + 1, False

    def teardown(self) -> None:
        if hasattr(self, "file"):
            for _ in range(10_000):
                before = len(self.items)
                self.read(300)
                if len(self.items) == before:
                    break
            self.everything_once_in_order_or_told()
            records = [int(item.text) for item in self.items if isinstance(item, Record)]
            whole = [number for number in range(1, self.written + 1) if number not in self.torn]
            assert records[-1:] == whole[-1:] or not records
            self.leave()
            self.directory.cleanup()


Rotating.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestRotating = Rotating.TestCase
