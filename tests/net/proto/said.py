"""Drawn messages of every type, for hypothesis, and a few fixed ones."""

from __future__ import annotations

from hypothesis import strategies as st

from net.proto import message as m
from wattswarm.kernel import codec, limits

hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
uint64s = st.integers(0, codec.INT_MAX) | st.sampled_from((0, 23, 24, 1 << 63, codec.INT_MAX))
uint32s = st.integers(0, (1 << 32) - 1)
counters = st.integers(0, limits.counter_max)
blobs = st.binary(min_size=1, max_size=100)
slugs = st.from_regex(r"\A[a-z0-9_]{1,64}\Z")
id_lists = st.lists(hashes, max_size=4).map(tuple)
wires = st.tuples(st.binary(min_size=1, max_size=300), signatures)
wire_lists = st.lists(wires, max_size=4).map(tuple)
hosts = st.sampled_from(("192.0.2.7", "[2001:db8::1]", "node-1.example.org", "127.0.0.1"))
addresses = st.builds(lambda host, port: f"{host}:{port}", hosts, st.integers(1, 65_535))
totals = st.builds(m.Total, counters, hashes)
standings = st.builds(m.Standing, totals, totals, hashes, st.sampled_from(("0.1.0", "12.0.3-rc.1+x")))
proofs = st.builds(m.ClientProof, hashes, signatures, standings)
version_lists = st.lists(st.integers(0, 65_535), min_size=1, max_size=m.versions_max).map(tuple)
prefixes = st.binary(min_size=m.prefix_bytes, max_size=m.prefix_bytes)
entries = st.lists(st.tuples(hashes, counters, prefixes), max_size=4).map(tuple)
spans = st.tuples(counters, counters).map(sorted)
certificate_lists = st.lists(blobs, max_size=3).map(tuple)

drawn: dict[type[m.Message], st.SearchStrategy[m.Message]] = {
    m.Hello: st.builds(
        m.Hello,
        version_lists,
        hashes,
        hashes,
        uint64s,
        hashes,
        st.integers(0, (1 << 48) - 1),
        st.lists(addresses, max_size=m.listen_max).map(tuple),
        st.none() | proofs,
    ),
    m.Welcome: st.builds(m.Welcome, standings, st.booleans()),
    m.Events: st.builds(m.Events, wire_lists),
    m.Have: st.builds(m.Have, id_lists),
    m.Want: st.builds(m.Want, id_lists),
    m.FrontierGet: st.just(m.FrontierGet()),
    m.Frontier: st.builds(m.Frontier, entries, st.booleans()),
    m.RangeGet: st.builds(lambda author, span: m.RangeGet(author, *span), hashes, spans),
    m.Range: st.builds(m.Range, hashes, wire_lists, st.booleans()),
    m.NegOpen: st.builds(m.NegOpen, uint32s, st.sampled_from((0, 1, 2)), blobs),
    m.NegMsg: st.builds(m.NegMsg, uint32s, blobs),
    m.NegErr: st.builds(m.NegErr, uint32s, slugs),
    m.NegClose: st.builds(m.NegClose, uint32s),
    m.Cert: st.builds(m.Cert, certificate_lists),
    m.CertIds: st.builds(m.CertIds, id_lists),
    m.CertGet: st.builds(m.CertGet, id_lists),
    m.ProofGet: st.builds(m.ProofGet, hashes, counters),
    m.Proof: st.builds(m.Proof, hashes, counters, st.none() | blobs),
    m.Prune: st.just(m.Prune()),
    m.Graft: st.just(m.Graft()),
    m.PeersGet: st.just(m.PeersGet()),
    m.Peers: st.builds(m.Peers, st.lists(addresses, max_size=5).map(tuple)),
    m.Relation: st.builds(m.Relation, st.sampled_from(("request", "accept", "reject", "remove"))),
    m.Ping: st.builds(m.Ping, uint64s),
    m.Pong: st.builds(m.Pong, uint64s, uint32s),
    m.Bye: st.builds(m.Bye, slugs),
}
any_message = st.one_of(*drawn.values())

nothing = m.Total(0, bytes(32))
standing = m.Standing(nothing, nothing, bytes(32), limits.LOCAL_PROTOCOL_VERSION)
