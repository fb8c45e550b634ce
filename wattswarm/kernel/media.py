"""Inline evidence: what may travel inside an event, and how to see media that hides in text.

The log is text and stays small, so evidence in it is text of an allowed type, bounded, and never a picture, a film
or a sound. Two checks with two jobs. ``inline_problems`` is a rule of the fold: every node refuses the candidate.
``smuggled_media`` is a judgement about meaning: nodes refuse to author what it finds, and verifiers do not pass
it, but no event is invalid because of it. Both take time in proportion to the text. Keeps docs/protocol.md §6
"Candidate".
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Container, Iterable
from typing import Any, NoReturn

from wattswarm.kernel.jsonvalue import describe
from wattswarm.kernel.limits import codec_depth_max
from wattswarm.kernel.refusal import Problem

_media_mime = re.compile(r"\s*(image|video|audio)/", re.IGNORECASE | re.ASCII)
_data_url = re.compile(r"data:(image|video|audio)/", re.IGNORECASE | re.ASCII)


def is_media_mime(mime: str) -> bool:
    """Whether a media type is image/…, video/… or audio/…, in any case."""
    return _media_mime.match(mime) is not None


def inline_problems(
    evidence: Iterable[tuple[str, str]], allowlist: Container[str], bytes_max: int, path: str = "evidence_inline"
) -> list[Problem]:
    """The faults of a candidate's inline evidence, given as (mime, content); none if it may travel.

    ``bytes_max`` bounds the UTF-8 bytes of all contents together; ``allowlist`` names media types exactly as they
    must be written.
    """
    problems: list[Problem] = []
    total = 0
    for number, (mime, content) in enumerate(evidence):
        total += len(content.encode(errors="surrogatepass"))
        where = f"{path}[{number}]"
        if is_media_mime(mime) or mime not in allowlist:
            problems.append(Problem(f"{where}.mime", describe(mime), "one of the contract's inline_mime_allowlist"))
        if (data_url := _data_url.search(content)) is not None:
            problems.append(Problem(f"{where}.content", describe(data_url[0]), "no media: refer to it instead"))
        if mime == "application/json" and not is_json_text(content):
            problems.append(Problem(f"{where}.content", describe(content), "one JSON text of RFC 8259"))
    if total > bytes_max:
        problems.append(Problem(path, f"{total} bytes", f"at most {bytes_max} bytes in all"))
    return problems


_json_structure = re.compile(r'"(?:[^"\\]++|\\.?+)*+"?+|[\[\]{}]', re.DOTALL)
"""A string, closed or not, or a bracket outside of one. It matches at every quote, so no text is read twice."""


def is_json_text(text: str) -> bool:
    """Whether ``text`` is one JSON text by the grammar of RFC 8259, nested at most 40 deep.

    Grammar only: names may repeat, numbers may be of any size, ``\\ud800`` may stand alone; NaN and Infinity, a byte
    order mark and anything after the value are faults. The depth is bounded so that every reader agrees.
    """
    depth = 0
    for token in _json_structure.finditer(text):
        depth += _depth_steps.get(token[0], 0)
        if depth > codec_depth_max:
            return False
    try:
        json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse_constant)
    except ValueError:
        return False
    return True


_depth_steps = {"[": 1, "{": 1, "]": -1, "}": -1}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_standard_run = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{64}")
_url_safe_run = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{64}")

_magics: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff")),
    ("GIF", lambda head: head.startswith((b"GIF87a", b"GIF89a"))),
    ("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    ("WAV", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE"),
    ("AVI", lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI "),
    ("MP4", lambda head: head[4:8] == b"ftyp"),
    ("WebM or MKV", lambda head: head.startswith(b"\x1a\x45\xdf\xa3")),
    ("Ogg", lambda head: head.startswith(b"OggS")),
    ("FLAC", lambda head: head.startswith(b"fLaC")),
    ("ID3", lambda head: head.startswith(b"ID3")),
)


def smuggled_media(text: str) -> str | None:
    """The kind of media (``PNG``, ``MP4`` …) that ``text`` carries as base64, or None.

    Every maximal run of at least 64 base64 characters is decoded from its first character and compared with the
    magics of the protocol. Runs are taken twice, of the standard alphabet (``+ /``) and of the URL-safe one
    (``- _``), so a neighbour that belongs to the other alphabet only does not shield a run. Padding, line breaks
    and everything else end a run: lines of 64 or more characters, as MIME and PEM break them, are still seen. A run
    is not searched at other offsets: text that hides an image that far is no longer base64 of an image.
    """
    for run in _standard_run.finditer(text):
        if (kind := _kind_of(run[0])) is not None:
            return kind
    for run in _url_safe_run.finditer(text):
        if (kind := _kind_of(run[0].replace("-", "+").replace("_", "/"))) is not None:
            return kind
    return None


def _kind_of(start_of_run: str) -> str | None:
    head = b64decode(start_of_run)
    return next((kind for kind, matches in _magics if matches(head)), None)


def smuggled_media_in(value: Any) -> str | None:
    """``smuggled_media`` of every text inside a JSON value, names included: for a candidate's output."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if (kind := smuggled_media(item)) is not None:
                return kind
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
    return None
