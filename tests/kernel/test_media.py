"""Inline evidence: text of allowed types, bounded, no media by name, and media in base64 seen (docs/protocol.md §6)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import limits
from wattswarm.kernel.media import inline_problems, is_json_text, is_media_mime, smuggled_media, smuggled_media_in

vectors = json.loads((Path(__file__).parents[1] / "vectors" / "media.json").read_text())

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
LINEAR_SECONDS = 1.0
"""A hostile text of 200 KB takes some milliseconds; a quadratic reader would take minutes."""


def inline_paths(evidence: list[Any]) -> list[str]:
    pairs = [(mime, content) for mime, content in evidence]
    problems = inline_problems(pairs, limits.inline_mime_allowlist, limits.inline_evidence_bytes_max)
    return [problem.path for problem in problems]


@pytest.mark.parametrize("vector", vectors["inline"], ids=lambda vector: vector["name"])
def test_inline_vector(vector: dict[str, Any]) -> None:
    assert inline_paths(vector["evidence"]) == vector["paths"]


@pytest.mark.parametrize("vector", vectors["smuggled"], ids=lambda vector: vector["name"])
def test_smuggled_vector(vector: dict[str, Any]) -> None:
    assert smuggled_media(vector["text"]) == vector["kind"]


def test_json_text_vectors() -> None:
    assert [vector for vector in vectors["json_texts"] if is_json_text(vector["text"]) is not vector["valid"]] == []


def test_the_cap_is_on_the_utf8_bytes_of_all_contents_together() -> None:
    cap = limits.inline_evidence_bytes_max
    assert inline_paths([("text/plain", "x" * cap)]) == []
    assert inline_paths([("text/plain", "x" * (cap + 1))]) == ["evidence_inline"]
    assert inline_paths([("text/plain", "é" * (cap // 2))]) == []
    assert inline_paths([("text/plain", "é" * (cap // 2 + 1))]) == ["evidence_inline"]
    assert inline_paths([("text/plain", "x" * (cap // 2 + 1))] * 2) == ["evidence_inline"]


def test_the_allowlist_is_the_contracts() -> None:
    assert inline_problems([("text/html", "<p>")], ("text/html",), 100) == []
    assert [problem.path for problem in inline_problems([("image/png", "x")], ("image/png",), 100)] == [
        "evidence_inline[0].mime"
    ]


def test_media_types_are_seen_in_any_case() -> None:
    assert all(is_media_mime(mime) for mime in ("image/png", "VIDEO/MP4", " audio/ogg", "Image/"))
    assert not any(is_media_mime(mime) for mime in ("text/plain", "application/image", "imagery/x", ""))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_what_a_json_writer_writes_is_json_text(value: Any) -> None:
    assert is_json_text(json.dumps(value))
    assert is_json_text(json.dumps(value, ensure_ascii=False, indent=1))
    assert not is_json_text(json.dumps(value) + "]")


def test_the_depth_of_json_text_is_bounded_whatever_stands_in_strings() -> None:
    deep = limits.codec_depth_max
    assert is_json_text("[" * deep + "]" * deep)
    assert not is_json_text("[" * (deep + 1) + "]" * (deep + 1))
    assert is_json_text('["' + "[{" * 100 + '"]')
    assert is_json_text('["' + '\\"[' * 100 + '"]')
    assert not is_json_text('{"a":' * 20_000)


@given(st.binary(min_size=48, max_size=120), st.sampled_from(["", " ", '"', ",", "\n", "(", "=", "."]))
def test_a_picture_is_seen_behind_any_character_that_is_not_base64(rest: bytes, before: str) -> None:
    for encoded in (base64.b64encode(PNG[:8] + rest), base64.urlsafe_b64encode(PNG[:8] + rest)):
        assert smuggled_media("text" + before + encoded.decode()) == ("PNG" if before else None)


@given(st.binary(max_size=47))
def test_less_than_64_characters_are_never_media(data: bytes) -> None:
    text = base64.b64encode(data).decode().rstrip("=")
    assert smuggled_media(text[:63]) is None


def test_media_is_found_anywhere_inside_a_value() -> None:
    hidden = base64.b64encode(PNG).decode()
    found: list[Any] = [hidden, [1, [hidden]], {"a": {"b": hidden}}, {hidden: 1}, [None, 1.5, {"x": ["y", hidden]}]]
    clean: list[Any] = [None, 1, "text", {"a": [hidden[:63]]}, [b"\x89PNG"], {}]
    assert [smuggled_media_in(value) for value in found] == ["PNG"] * len(found)
    assert [smuggled_media_in(value) for value in clean] == [None] * len(clean)


@pytest.mark.parametrize(
    "text",
    [
        "A" * 200_000,
        ("A" * 63 + " ") * 3_000,
        ("A" * 63 + "-" + "_" * 63 + "+") * 1_500,
        "+-" * 100_000,
        '"' + "\\" * 199_999,
        '"\\' * 100_000,
        '"\\' * 100_000 + "\\\\",
        '"' * 200_000,
        "data:" * 40_000,
        "data:image" * 20_000,
    ],
)
def test_every_check_takes_time_in_proportion_to_the_text(text: str) -> None:
    start = process_time()
    smuggled_media(text)
    is_json_text(text)
    inline_paths([("text/plain", text)])
    assert process_time() - start < LINEAR_SECONDS
