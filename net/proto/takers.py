"""Who takes which message, once both ends know each other; and which are not taken from an observer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from net.proto import message as m
from net.proto.exchange import Exchange
from net.proto.meeting import Meeting
from net.proto.peer import Peer

appending: frozenset[type[m.Message]] = frozenset({m.Events, m.Have, m.Range, m.Frontier, m.CertIds, m.Cert})
"""What an observer may not send: it reads only."""


stirring: frozenset[type[m.Message]] = frozenset({m.Hello, m.Welcome, m.Peers, m.Relation})
"""What may change who is connected or may be dialled."""


def takers(exchange: Exchange, meeting: Meeting) -> dict[type[m.Message], Callable[[Peer, Any, int], None]]:
    """Who takes which message."""
    return {
        m.Events: exchange.on_events,
        m.Have: exchange.on_have,
        m.Want: exchange.serving.on_want,
        m.Prune: exchange.on_prune,
        m.Graft: exchange.on_graft,
        m.FrontierGet: exchange.on_frontier_get,
        m.Frontier: exchange.on_frontier,
        m.RangeGet: exchange.serving.on_range_get,
        m.Range: exchange.on_range,
        m.NegOpen: exchange.on_neg_open,
        m.NegMsg: exchange.on_neg_msg,
        m.NegErr: exchange.on_neg_end,
        m.NegClose: exchange.on_neg_end,
        m.CertIds: exchange.certificates.on_cert_ids,
        m.CertGet: exchange.certificates.on_cert_get,
        m.Cert: exchange.certificates.on_cert,
        m.ProofGet: exchange.certificates.on_proof_get,
        m.PeersGet: meeting.on_peers_get,
        m.Peers: meeting.on_peers,
        m.Relation: meeting.friends.on_relation,
    }
