"""Claims about the packed set of (seconds, id)."""

from __future__ import annotations

import sys
from random import Random
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from net.proto import items as module
from net.proto.items import Items, block_items_max, id_bytes, infinity, record, record_bytes, seconds_max, sum_of_ids
from tests.net.proto.sets import Item, log_of

few_seconds = st.sampled_from([0, 1, 1_700_000_000, seconds_max])
ids = st.one_of(
    st.binary(min_size=id_bytes, max_size=id_bytes),
    st.sampled_from([bytes(id_bytes), b"\xff" * id_bytes, b"\xff" * 31 + b"\xfe", b"\x01" + bytes(31)]),
)
one_item = st.tuples(few_seconds, ids)


def total_of(some: list[Item]) -> tuple[int, bytes]:
    """What ``Items.total`` is, the long way."""
    total = sum(int.from_bytes(item_id, "little") for _, item_id in some) % (1 << 256)
    return len(some), total.to_bytes(32, "little")


class SmallBlocks(RuleBasedStateMachine):
    """A set under insertion, removal and bulk updates is always what a sorted list would be."""

    def __init__(self) -> None:
        super().__init__()
        self.items = Items()
        self.model: set[Item] = set()

    @rule(item=one_item)
    def insert(self, item: Item) -> None:
        assert self.items.insert(*item) == (item not in self.model)
        self.model.add(item)

    @rule(item=one_item)
    def remove(self, item: Item) -> None:
        assert self.items.remove(*item) == (item in self.model)
        self.model.discard(item)

    @rule(seed=st.integers(0, 5))
    def remove_one_that_is_there(self, seed: int) -> None:
        if self.model:
            self.remove(sorted(self.model)[seed % len(self.model)])

    @rule(some=st.lists(one_item, max_size=40))
    def update(self, some: list[Item]) -> None:
        assert self.items.update(some) == len(set(some) - self.model)
        self.model.update(some)

    @invariant()
    def it_is_the_sorted_list(self) -> None:
        model, view = sorted(self.model), self.items.view()
        assert [view.record(at) for at in range(len(view))] == [record(*item) for item in model]
        assert len(self.items) == len(view) == len(model)
        assert self.items.total == total_of(model)
        assert all(len(block) <= 4 * record_bytes for block in view.blocks)

    @invariant()
    def ranges_are_those_of_the_list(self) -> None:
        model, view = sorted(self.model), self.items.view()
        for lower in range(0, len(model) + 1, 3):
            for upper in range(lower, len(model) + 1, 2):
                part = model[lower:upper]
                assert list(view.ids(lower, upper)) == [item_id for _, item_id in part]
                assert view.sum(lower, upper).to_bytes(32, "little") == total_of(part)[1]

    @invariant()
    def bounds_fall_where_they_fall_in_the_list(self) -> None:
        records, view = [record(*item) for item in sorted(self.model)], self.items.view()
        for length in (8, 9, 40):
            for bound in [found[:length] for found in records[::4]]:
                assert view.index(bound) == sum(found < bound for found in records)
        assert view.index(infinity) == len(records)
        assert view.index(bytes(8)) == 0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Blocks of four and bulks of nine, so that every seam is crossed, for whoever asks."""
    if request.cls is not None and issubclass(request.cls, SmallBlocks.TestCase):
        monkeypatch.setattr(module, "block_items_max", 4)
        monkeypatch.setattr(module, "bulk_items", 9)


TestSmallBlocks = SmallBlocks.TestCase
TestSmallBlocks.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@given(st.lists(one_item, max_size=50))
def test_ids_are_summed_all_at_once_as_one_by_one(some: list[Item]) -> None:
    packed = b"".join(record(*item) for item in some)
    assert sum_of_ids(packed).to_bytes(32, "little") == total_of(some)[1]


def test_a_block_of_the_largest_ids_does_not_overflow_its_lanes() -> None:
    some = [(seconds_max, b"\xff" * id_bytes)] * block_items_max
    assert sum_of_ids(record(*some[0]) * block_items_max).to_bytes(32, "little") == total_of(some)[1]


def test_what_is_built_at_once_is_what_is_inserted_one_by_one() -> None:
    log = log_of(5_000)
    Random(3).shuffle(log)
    one_by_one = Items()
    for item in log:
        assert one_by_one.insert(*item)
    at_once = Items(log)
    assert at_once.total == one_by_one.total == Items(sorted(log)).total == total_of(log)
    assert [*at_once.view().ids(0, len(log))] == [item_id for _, item_id in sorted(log)]


def test_a_view_stays_as_it_was() -> None:
    log = log_of(3_000)
    items = Items(log)
    view = items.view()
    assert items.view() is view
    for item in log[::2]:
        items.remove(*item)
    items.update(log_of(500, seed=9))
    assert [*view.ids(0, len(view))] == [item_id for _, item_id in log]
    assert len(items.view()) == len(items) == 1_500 + 500


def test_what_is_removed_leaves_no_small_blocks_behind() -> None:
    log = log_of(20_000)
    items = Items(log)
    for at, item in enumerate(log):
        assert at % 40 == 0 or items.remove(*item)
    assert len(items) == 500
    assert len(items.view().blocks) <= 2
    for item in log:
        items.remove(*item)
    assert items.view().blocks == ()
    assert items.total == (0, bytes(32))


def test_what_is_there_is_found() -> None:
    items = Items(log_of(3_000))
    assert all(item in items for item in log_of(3_000)[::100])
    assert (1, bytes(32)) not in items
    assert (1, bytes(32)) not in Items()


def test_a_hundred_thousand_items_are_built_in_well_under_a_second() -> None:
    log = log_of(100_000)
    start = process_time()
    assert len(Items(log)) == len(log)
    assert process_time() - start < 0.8


def test_a_million_items_take_no_more_than_60_megabytes() -> None:
    random = Random(1)
    items = Items((second, random.randbytes(id_bytes)) for second in range(1_000_000))
    view = items.view()
    parts = (view.blocks, view.firsts, view.counts, view.sums)
    held = sum(sys.getsizeof(part) + sum(map(sys.getsizeof, part)) for part in parts)
    assert len(view) == 1_000_000
    assert held < 45_000_000  # the set itself keeps the blocks that the view shows, and three lists of their number
