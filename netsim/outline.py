"""A simulated log as the network sees it: what there is at first, what came since, and answers to its questions.

Over Postgres, ``wattswarm.shared_log`` and ``sel.outline`` do the same.
"""

from __future__ import annotations

from net.proto import values as v
from net.proto.items import Items
from netsim.disk import SimStore, Written
from sel.memory import MemoryStore
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.shared_log import decision_of, known_of, standing_of


def stock_of(store: SimStore) -> v.Stock:
    """All that is live."""
    ruling = [one.id for one in store.certificates.values() if one.kind == "membership"]
    decisions = [one.id for one in store.certificates.values() if one.kind == "decision"]
    live = Items((event.created_at // 1000, event.id) for event in store.live())
    rows = store.chain_rows.items()
    heads = {author: (row.head.seq, row.head.id) for author, row in rows if row.head.id is not None}
    return v.Stock(live, [*ruling, *store.live_forks.values()], decisions, heads, standing_of(store.head))


def news_of(store: SimStore, written: Written, *, own: bool, asked: bool) -> v.Appended:
    """What a transaction wrote."""
    heads: dict[bytes, v.Head | None] = {}
    for author in sorted(written.authors):
        head = store.chain_rows[author].head
        heads[author] = None if head.id is None else (head.seq, head.id)
    carried = {decision_of(event) for event in written.events if isinstance(event.payload, DecisionFinalized)}
    return v.Appended(
        [known_of(event) for event in written.events],
        [(event.created_at // 1000, event.id) for event in written.void],
        [
            v.CertificateKnown(one.id, one.kind != "decision", one.wire(), one.id in carried)
            for one in written.certificates
        ],
        written.idle,
        heads,
        standing_of(store.head),
        own,
        asked,
    )


def answer_of(store: MemoryStore, question: v.Question) -> object:
    """What the log says; of bundles it knows nothing."""
    match question:
        case v.Lacking(ids):
            return [one for one in ids if one not in store.number]
        case v.EventsOf(ids):
            return [tuple(store.events[store.number[one] - 1].wire) for one in ids if one in store.number]
        case v.Span(author, first, last, most):
            row = store.chain_rows.get(author)
            end = min(last, first + most - 1, row.head.seq if row is not None else -1)
            found = (store.places[author, seq] for seq in range(first, end + 1))
            return [tuple(store.events[store.number[one] - 1].wire) for one in found]
        case v.CertificatesOf(ids):
            return [store.certificates[one].wire() for one in ids if one in store.certificates]
    raise AssertionError(f"no question to a log alone: {question}")
