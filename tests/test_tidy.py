"""What holds for the repository as a whole: sizes, headers, named SQL, and documents that say what is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import msgspec
import pytest

from sel.queries import named
from tests.cli.test_examples import commands
from tests.sizes import name_of, over, project_files, python_files, root
from wattswarm import config
from wattswarm.kernel import limits, payloads
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.policy import policies
from wattswarm.kernel.reasons import Reason

trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in python_files()}
unfinished = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
somebodys_path = re.compile(r"(?<![\w.~*])/(home|Users|root|work)/\w")


def texts() -> Iterator[tuple[str, str]]:
    """(file, content) of every file of the project that holds text."""
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield name_of(path), content.decode()


# -- code ----------------------------------------------------------------------------------------------------------


def test_no_file_and_no_function_is_larger_than_it_may_be() -> None:
    assert over() == []


def test_every_file_begins_with_what_it_is() -> None:
    assert [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_the_topmost_package_is_empty() -> None:
    assert (root / "wattswarm/__init__.py").read_bytes() == b""


def test_nothing_is_marked_as_unfinished() -> None:
    assert [name for name, text in texts() if unfinished.search(text)] == []


def test_no_path_of_anybodys_machine_is_written_down() -> None:
    assert [name for name, text in texts() if somebodys_path.search(text)] == []


def test_nothing_is_skipped_without_a_reason() -> None:
    assert [f"{name}:{line}" for name, tree in trees.items() for line in _mute_skips(tree)] == []


def _mute_skips(tree: ast.Module) -> Iterator[int]:
    """Lines where a test is skipped, or expected to fail, and nothing says why."""
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in ("skip", "skipif", "xfail"):
            continue
        if ast.unparse(node) not in (f"pytest.{node.attr}", f"pytest.mark.{node.attr}"):
            continue
        call = calls.get(node)
        texts = [] if call is None else [*call.args[node.attr == "skipif" :], *(word.value for word in call.keywords)]
        if not any(isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value for text in texts):
            yield node.lineno


# -- SQL -----------------------------------------------------------------------------------------------------------


def test_every_named_statement_is_used_and_every_used_name_is_there() -> None:
    files = [path.stem for path in (root / "sel/sql").glob("*.sql")]
    there = {(file, name) for file in files for name in named(file)}
    assert {use for tree in trees.values() for use in _statements_used(tree)} == there


def _statements_used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(file, statement) for ``sql["name"]``, whatever the module calls its statements, and for names handed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            file = _statements_of(node.value, tree)
            if file is not None:
                yield file, str(node.slice.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._events":
            yield "log", ast.literal_eval(node.args[0])


def _statements_of(node: ast.expr, tree: ast.Module) -> str | None:
    """The file whose statements ``node`` is: ``named("log")``, or a name that a module of ``sel`` gave to one."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "named":
        return str(ast.literal_eval(node.args[0]))
    if not isinstance(node, ast.Name):
        return None
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=node.id)], value=ast.Call() as value):
                return _statements_of(value, tree)
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("sel."):
                for alias in names:
                    if (alias.asname or alias.name) == node.id:
                        home = trees[module.replace(".", "/") + ".py"]
                        return _statements_of(ast.Name(alias.name), home)
    return None


# -- documents -----------------------------------------------------------------------------------------------------

documents = {name: text for name, text in texts() if name.endswith(".md")}
protocol = documents["docs/protocol.md"]
guides = "\n".join(text for name, text in documents.items() if name != "docs/protocol.md")
sections = {
    name: {int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)}
    for name, text in documents.items()
}


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_is_documented(name: str) -> None:
    assert re.search(rf"\bwattswarm {name}\b", documents["README.md"])


def test_every_command_that_is_documented_is_there() -> None:
    there = {name for name, _ in commands()}
    groups = {name.split()[0] for name in there}
    options = r"(?: --(?:state-dir|pg-url) \S+| --?[a-z-]+)*"
    said = re.findall(rf"\bwattswarm{options} ([a-z]+)(?: ([a-z-]+))?", "\n".join(documents.values()))
    wrong = {f"{one} {two}" for one, two in said if one in groups and one not in there and f"{one} {two}" not in there}
    assert wrong == set()


def test_every_make_target_is_documented_and_every_documented_one_is_there() -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())
    assert set(re.findall(r"\bmake ([a-z]+)\b(?=`|$|  )", guides, re.MULTILINE)) == there


def test_every_setting_is_documented() -> None:
    variables = [key.variable for key in config.keys.values()]
    assert [name for name in [*variables, "WATTSWARM_STATE_DIR"] if name not in documents["README.md"]] == []


def test_every_file_that_a_document_names_is_there() -> None:
    missing = {
        f"{name}: {path}"
        for name, text in documents.items()
        for path in re.findall(r"`((?:wattswarm|sel|cli|tests|bench|docs|\.ci)/[\w./-]*)`", text)
        if not (root / path).exists()
    }
    assert missing == set()


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = {
        f"{name}: {target}"
        for name, text in documents.items()
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        if not (root / name).parent.joinpath(target).exists()
    }
    assert broken == set()


def test_every_section_that_a_file_names_is_there() -> None:
    wrong = {
        f"{name}: {document} §{number}"
        for name, text in texts()
        for document, number in re.findall(r"(docs/\w+\.md) §(\d+)", text)
        if int(number) not in sections[document]
    }
    assert wrong == set()


# -- the protocol page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", payloads.kinds.values(), ids=lambda kind: kind.name)
def test_every_kind_is_on_the_protocol_page_with_its_fields(kind: payloads.Kind) -> None:
    row = re.search(rf"^\| [^|]*\b{kind.name}\b[^|]*\| ([^|]+) \|", _section(5), re.MULTILINE)
    assert row is not None
    assert [name for name in _fields(kind.payload) if not re.search(rf"\b{name}\b", row[1])] == []


@pytest.mark.parametrize("part", Payload.__subclasses__())
def test_every_field_of_a_payload_is_on_the_protocol_page(part: type[Payload]) -> None:
    if part.__module__.startswith("wattswarm.kernel."):
        assert [name for name in _fields(part) if not re.search(rf"\b{name}\b", protocol)] == []


def _fields(part: type[Payload]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(part)]


def _section(number: int) -> str:
    return protocol.split(f"\n## {number}. ")[1].split("\n## ")[0]


def test_every_limit_is_on_the_protocol_page_with_its_value() -> None:
    said = dict(re.findall(r"\| ([a-z_]+)(?: \([^)]*\))? \| (\d+) ", _section(10)))
    ours = {name: str(value) for name, value in vars(limits).items() if type(value) is int}
    of_caches = {name for name in ours if name.endswith("_remembered_max")}
    assert said == {name: value for name, value in ours.items() if name not in of_caches}


def test_every_reason_code_and_every_policy_is_on_the_protocol_page() -> None:
    assert [code for code in Reason if f"| {int(code)} | {code.name} |" not in _section(8)] == []
    assert [policy for policy in policies if f"`{policy.policy_hash}`" not in _section(8)] == []
