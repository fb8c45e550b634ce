"""Of a run that failed, what is told: what the failure names, and nothing that it does not need."""

from __future__ import annotations

import io

from netsim.trace import Trace, doings_told_max, turns_told_max


def traced(*lines: tuple[str, str, str]) -> Trace:
    trace = Trace()
    for number, line in enumerate(lines):
        trace.line(number * 10, *line)
    return trace


def test_what_the_failure_names_is_told_with_the_faults_before_it_and_others_are_not() -> None:
    trace = traced(
        ("n001", "start", "boot 1 as aaaaaaaa"),
        ("n002", "start", "boot 1 as bbbbbbbb"),
        ("n001", "fault partition", "n001 n003"),
        ("n002", "submit", "cccccccc"),
        ("n003", "held", "cccccccc voted"),
        ("n001", "joined", "dddddddddddd 10.0.0.9"),
        ("n002", "wrote", "1+0"),
        ("n002", "wrote", "2+0"),
        ("n003", "left", "dddddddddddd"),
        ("world", "end", "task cccccccc is OPEN on n002"),
    )
    assert [line.split(maxsplit=1)[1] for line in trace.around("task cccccccc is OPEN on n002")] == [
        "n002 start boot 1 as bbbbbbbb",
        "n001 fault partition n001 n003",
        "n002 submit cccccccc",
        "n003 held cccccccc voted",
        "n002 wrote 2+0",
        "world end task cccccccc is OPEN on n002",
    ]


def test_a_key_stands_for_its_node() -> None:
    began = ("n001", "start", "boot 1 as aaaaaaaa")
    trace = traced(began, ("n001", "clock", "5 ms off"), ("n002", "clock", "6 ms off"))
    told = trace.around("an honest node forked: aaaaaaaa at 4")
    assert [line.split()[1] for line in told] == ["n001", "n001", "n002"], "the last line is always told"


def test_where_nobody_is_named_the_last_lines_are_told() -> None:
    trace = traced(*(("n001", "joined", str(number)) for number in range(100)))
    assert len(trace.around("something is wrong")) == doings_told_max


def test_of_a_name_that_nothing_is_known_of_the_last_lines_are_told() -> None:
    fault = "two roots of n777"
    lines = [("n001", "joined", str(number)) for number in range(100)]
    told = traced(*lines, ("world", "end", fault)).around(fault)
    assert len(told) > doings_told_max / 2
    assert told[-1].endswith(fault)


def test_a_key_is_known_however_long_ago_its_node_began() -> None:
    starts = [("n001", "start", "boot 1 as aaaaaaaa"), *(("n002", "start", "boot 1 as bbbbbbbb") for _ in range(2_000))]
    told = traced(*starts, ("n001", "held", "back"), ("n002", "held", "back")).around("an honest node forked: aaaaaaaa")
    assert any("n001 held back" in line for line in told)


def test_however_long_the_run_little_is_told() -> None:
    doings = ("fault crash", "start", "held", "wrote")
    trace = traced(*(("n001", what, "n001") for what in doings for _ in range(2_000)))
    assert len(trace.around("n001 is wrong")) <= turns_told_max + doings_told_max + 2


def test_every_line_is_in_the_digest_and_in_the_file() -> None:
    out = io.StringIO()
    one, other = Trace(out), Trace()
    one.line(12, "n001", "held", "back")
    other.line(12, "n001", "held", "up")
    assert out.getvalue() == "       12 n001 held back\n"
    assert one.digest != other.digest
