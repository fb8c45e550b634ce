"""A state that was stored in between judges like one that was not (docs/protocol.md §4).

Canonical CBOR sorts maps, so a stored state has its candidates, leases and votes in another order than the fold
put them in. Where two are alike, no rule and no message may depend on which comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cast import digest_of, hash_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.task.fold import apply, decode_state, encode_state


def judged_alike(story: Story, said: Event) -> None:
    stored = decode_state(encode_state(story.state))
    assert apply(story.state, story.pins, said) == apply(stored, story.pins, said)
    assert encode_state(story.state) == encode_state(stored)


def namesakes(story: Story, outputs: Sequence[str], salt: int) -> list[Event]:
    """Candidates of one id and one moment that differ in their evidence, and in their output where told so."""
    at_ms = story.world.tick()
    told = [
        story.propose("ada", "same", output={"answer": output}, digests=[digest_of(f"{salt} {place}")], at_ms=at_ms)
        for place, output in enumerate(outputs)
    ]
    for said in told:
        story.told(said)
    return told


@pytest.mark.parametrize("salt", range(4))
def test_evidence_is_added_to_the_same_one_of_two_namesakes(salt: int) -> None:
    story = World.of(1).task()
    story.told(story.claim("ada"))
    namesakes(story, ["a", "a"], salt)
    judged_alike(story, story.add_evidence("ada", "same", digests=[digest_of("more")]))


@pytest.mark.parametrize("salt", range(4))
def test_a_refusal_names_the_same_one_of_two_outputs(salt: int) -> None:
    story = World.of(1).task()
    at_ms = story.world.tick()
    story.told(story.claim("ada", at_ms=at_ms))
    first = story.propose("ada", f"a{salt}", output={"answer": "a"}, digests=[digest_of("1")])
    story.told(first)
    story.told(story.propose("ada", f"b{salt}", output={"answer": "a"}, digests=[digest_of("2")]))
    judged_alike(story, story.propose("ada", "c", output={"answer": "c"}, digests=[digest_of("3")]))


def test_a_claim_conflict_names_the_same_one_of_two_leases() -> None:
    world = World.of(5)
    for names in (("ada", "ben"), ("ben", "ada"), ("cy", "dee"), ("dee", "cy")):
        story = world.task(changes={"assignment.claim.max_concurrency": {"propose": 2, "verify": 2}})
        at_ms = world.tick()
        for name in names:
            story.told(story.claim(name, at_ms=at_ms))
        judged_alike(story, story.claim("eli"))


@pytest.mark.parametrize("revealed", [False, True])
def test_a_retry_that_is_not_due_names_the_same_one_of_two_votes(revealed: bool) -> None:
    world = World.of(5)
    for voters in (("ben", "cy"), ("cy", "ben"), ("dee", "eli"), ("eli", "dee")):
        story = world.task("ada")
        candidates = []
        for name in voters:
            story.told(story.claim(name))
            candidates.append(story.told(story.propose(name, digests=[digest_of(name)])))
        chosen = dict(zip(voters, reversed(candidates), strict=True))
        for name in voters:
            for said in story.judge(name, chosen[name]):
                story.told(said)
        if revealed:
            for name in voters:
                story.told(story.reveal(name, chosen[name]))
        assert len({hash_of(candidate) for candidate in candidates}) == 2
        judged_alike(story, story.retry("ada"))
