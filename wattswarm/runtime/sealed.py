"""A vote that this node sealed, and how it is found again after a restart: from the log and the key alone.

The salt follows from the key, so nobody else can work it out, and the node always can. What was voted follows from
the commit, by trying both words. Keeps docs/protocol.md §6 "Vote reveal": the node's own result says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents import Judgement, Verify
from wattswarm.kernel.payloads import judge
from wattswarm.kernel.policy import evaluate
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.task.state import Vote
from wattswarm.kernel.task.vote import Ballot
from wattswarm.runtime.effects import verifier_result
from wattswarm.runtime.planning import View

salt_context = b"wattswarm/vote-salt/v1\0"
words: tuple[Literal["approve"], Literal["reject"]] = ("approve", "reject")


def vote_salt(keys: Keypair, task: bytes, vote: Verify) -> str:
    """The salt of one vote, hex: nobody else can work it out, and this node can again after a restart."""
    what = f"|{vote.epoch}|{vote.attempt}|".encode() + vote.candidate_hash
    return sha256(keys.sign(salt_context + task + what)).hex()


def sealed_vote(
    view: View, events: Sequence[Event], keys: Keypair, named: tuple[str, str]
) -> tuple[Verify, Judgement] | None:
    """This node's vote that is committed and not opened, with the judgement that it sealed; None if there is none.

    ``named``: (provider_family, model_id) for a result that was never published, and is said again here.
    """
    work, me = view.state.work, keys.node_id
    vote = work.votes.get(me)
    if vote is None or vote.approves is not None or vote.candidate_hash not in view.candidates:
        return None
    commits = [event.payload for event in events if event.author == me and isinstance(event.payload, judge.VoteCommit)]
    execution = next((said.execution_id for said in commits if said.commit_hash == vote.commit_hash), "")
    act = Verify(work.number, work.attempt, vote.candidate_hash, execution, 0)
    salt = vote_salt(keys, view.pins.task, act)
    for word in words:
        ballot = Ballot(
            view.pins.task, work.number, work.attempt, me, vote.candidate_hash, word, salt, vote.result_hash
        )
        if ballot.commit_hash() == vote.commit_hash:
            result = _published(events, me, vote) or _said_again(view, vote, execution, word, named)
            attested = [digest for digest, readers in work.attested.items() if me in readers]
            return act, Judgement(result, tuple(attested), salt)
    return None


def _published(events: Sequence[Event], me: bytes, vote: Vote) -> judge.VerifierResult | None:
    results = (
        event.payload.result
        for event in events
        if event.author == me and isinstance(event.payload, judge.VerifierResultSubmitted)
    )
    return next((result for result in results if result.verifier_result_hash == vote.result_hash), None)


def _said_again(
    view: View, vote: Vote, execution: str, word: Literal["approve", "reject"], named: tuple[str, str]
) -> judge.VerifierResult:
    """The result that goes with the vote, as far as it is bound: its status and its hash; the rest is our own view."""
    contract, candidate = view.pins.contract, view.candidate(vote.candidate_hash)
    own = evaluate(contract.acceptance.verifier_policy, contract.schema, candidate.output)
    agrees = own.passed == (word == "approve")
    codes = [int(code) for code in own.reason_codes] if agrees else [int(Reason.UNKNOWN)]
    status = "passed" if word == "approve" else "failed"
    score = own.score if agrees else 0.0
    return verifier_result(contract, candidate, execution, named, (status, score, codes, vote.result_hash))
