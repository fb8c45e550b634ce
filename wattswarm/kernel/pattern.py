"""What a stranger's regular expression can cost, read off the pattern itself.

A linear-time engine takes time in proportion to text times automaton, and the automaton grows with counted
repetitions: ``(a{1000}){1000}`` is fifteen characters and a million states. The count here writes repetitions
out, so it is the same on every node whatever the engine's own limits are. Keeps docs/protocol.md §8.
"""

from __future__ import annotations

import re
from typing import Final

_token = re.compile(
    r"(?P<property>\\[pP](?:\{[^}]*\}|.))"
    r"|(?P<atom>\\[xuU]\{[^}]*\}|\\.|\[\^?(?:\\.|[^\]\\])*\])"
    r"|(?P<named>\(\?(?:P?<[A-Za-z_]\w*>|:))"
    r"|(?P<special>\(\?)"
    r"|(?P<open>\()"
    r"|(?P<close>\))"
    r"|\{\s*(?P<least>[0-9]+)\s*(?P<comma>,?)\s*(?P<most>[0-9]*)\s*\}"
    r"|(?P<other>.)",
    re.DOTALL,
)
_PATTERN_OWN: Final = 16
_PROPERTY_CLASS: Final = 32


def pattern_weight(pattern: str) -> int | None:
    """16 and the pattern's atoms and groups with counted repetitions written out; a ``\\p`` class counts 32.

    None for a ``(?`` group that is neither plain nor named: look-around, flags. Does not ask whether the
    pattern is otherwise well-formed; the engine does.
    """
    groups = [0]
    last = 0
    for token in _token.finditer(pattern):
        kind = token.lastgroup
        if kind == "special":
            return None
        if kind in ("open", "named"):
            groups.append(0)
            last = 0
        elif kind == "close":
            last = 1 + (groups.pop() if len(groups) > 1 else 0)
            groups[-1] += last
        elif token["least"] is not None:
            times = max(int(token["most"] or 0), int(token["least"]) + (token["comma"] != ""), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            properties = token[0].count("\\p") + token[0].count("\\P")
            last = _PROPERTY_CLASS * properties or 1
            groups[-1] += last
    return _PATTERN_OWN + sum(groups)
