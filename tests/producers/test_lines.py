"""A byte stream becomes the same lines however it was cut."""

from hypothesis import given
from hypothesis import strategies as st

from producers.core.lines import LineSplitter


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and line != b"\r")), st.data())
def test_any_cut_of_the_stream_gives_the_same_lines(lines: list[bytes], data: st.DataObject):
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    splitter = LineSplitter()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])
    assert found == lines
    assert splitter.rest() == b""


def test_a_line_without_an_end_is_what_is_left():
    splitter = LineSplitter()
    assert splitter.feed(b"whole\nha") == [b"whole"]
    assert splitter.feed(b"lf") == []
    assert splitter.rest() == b"half"
    assert splitter.feed(b"next\n") == [b"next"]


def test_a_line_longer_than_any_buffer_stays_one_line():
    splitter = LineSplitter()
    chunk = b"x" * 65536
    assert all(splitter.feed(chunk) == [] for _ in range(160))
    (line,) = splitter.feed(b"\n")
    assert len(line) == 160 * 65536
