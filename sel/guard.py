"""The author guard: what keeps one key from signing two chains (docs/protocol.md §7, "Never twice").

``<state-dir>/author_guard`` holds two slots, written in turn and in place. A slot says: the chain stood at *base*,
and these signed bytes come next. It is on disk before the database commits them, so after any crash the node
either finds them committed, or inserts exactly those bytes; it never signs others for the same place. The file
carries its own inode number: a copied or restored file does not match, and a node whose guard does not match the
file system or the database authors nothing until ``node recover``.

Processes of one host take turns: ``turn`` holds an flock on the file for the length of a transaction.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wattswarm.kernel import codec
from wattswarm.kernel.event import Event
from wattswarm.kernel.refusal import Malformed, Refused

file_name = "author_guard"
magic = b"WSGUARD1"
header = struct.Struct("<8sQQQ32s")
slot_bytes_max = 8 << 20
Wire = tuple[bytes, bytes]

recover_hint = "Run `wattswarm node recover` to check the chain and make this host its writer again."


@dataclass(frozen=True, slots=True)
class Slot:
    """One generation: the chain's base before the batch, and the batch's signed bytes."""

    generation: int
    inode: int
    base_seq: int
    base_id: bytes | None
    batch: tuple[Wire, ...]

    @property
    def end(self) -> tuple[int, bytes | None]:
        """(seq, event id) of the chain's head after the batch."""
        if not self.batch:
            return self.base_seq, self.base_id
        return self.base_seq + len(self.batch), codec.sha256(self.batch[-1][0])


class AuthorGuard:
    """The open guard file of one state directory. A lifetime: close it with ``close`` or use ``with``."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / file_name
        self._fd: int | None = None
        self._slot: Slot | None = None
        self._header = b""

    def __enter__(self) -> AuthorGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right to author among this host's processes. Blocks while another process holds it."""
        self.wait_turn()
        try:
            yield
        finally:
            self.end_turn()

    def try_turn(self) -> bool:
        """Take the turn if nobody has it; give it back with ``end_turn``."""
        with suppress(BlockingIOError):
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def wait_turn(self) -> None:
        """Take the turn, blocking; give it back with ``end_turn``."""
        self._lock(fcntl.LOCK_EX)

    def _lock(self, how: int) -> None:
        """Lock the file that is there now: ``create`` puts another in its place, also from another process."""
        while True:
            fd = self._open()
            fcntl.flock(fd, how)
            if _is_file_at(fd, self.path):
                return
            self.close()

    def end_turn(self) -> None:
        """Give the turn back."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def confirm(self, seq: int, event_id: bytes | None) -> Sequence[Wire]:
        """Compare with the database's head (seq -1: empty). Returns signed bytes that must be inserted first.

        Raises ``Refused`` when this node must not author, saying why and what to do.
        """
        slot = self._read()
        if slot.inode != os.fstat(self._open()).st_ino:
            raise Refused(
                "guard_copied",
                f"{self.path} was copied or restored from elsewhere: the original may have authored since, "
                f"and two hosts with one key would fork the chain. {recover_hint}",
            )
        end_seq, end_id = slot.end
        if (seq, event_id) == (end_seq, end_id):
            return ()
        if (seq, event_id) == (slot.base_seq, slot.base_id):
            return slot.batch
        relation = "is ahead of" if seq > end_seq else "is behind" if seq < slot.base_seq else "does not match"
        raise Refused(
            "guard_mismatch",
            f"the database's chain (event {seq}) {relation} the author guard (event {end_seq}): "
            f"the database was replaced, wiped or restored from a backup. {recover_hint}",
        )

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        """Make the signed bytes of ``batch``, the chain's next events, durable. Call within a turn, before COMMIT."""
        assert self._slot is not None, "confirm comes before seal"
        wires = tuple((event.body, event.signature) for event in batch)
        self._write(Slot(self._slot.generation + 1, self._slot.inode, base_seq, base_id, wires))

    def withdraw(self) -> None:
        """Take back the batch sealed last, which the database has said for certain that it did not store."""
        assert self._slot is not None, "a batch was sealed"
        slot = self._slot
        self._write(Slot(slot.generation + 1, slot.inode, slot.base_seq, slot.base_id, ()))

    def newest(self) -> Slot | None:
        """What the file says, whatever it is worth; None if it is missing or damaged."""
        try:
            return self._read()
        except Refused:
            return None

    def create(self, seq: int = -1, event_id: bytes | None = None) -> None:
        """Make a new guard (for a new identity, or by ``node recover``) that stands at the given head."""
        self.close()
        temporary = self.path.with_suffix(".new")
        with suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            slot = Slot(1, os.fstat(fd).st_ino, seq, event_id, ())
            _store(fd, slot)
        finally:
            os.close(fd)
        os.replace(temporary, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _open(self) -> int:
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                raise Refused(
                    "guard_missing",
                    f"{self.path} is missing, so nothing says what this key has already signed. {recover_hint}",
                ) from None
            except PermissionError as error:
                raise Refused("guard_unreadable", f"{self.path} cannot be opened: {error.strerror}") from None
        return self._fd

    def _read(self) -> Slot:
        """The newest whole slot; its content is read only if it is not the one that this process met last."""
        fd = self._open()
        headers = [os.pread(fd, header.size, index * slot_bytes_max) for index in (0, 1)]
        for index in sorted((0, 1), key=lambda index: _generation(headers[index]), reverse=True):
            if self._slot is None or headers[index] != self._header:
                slot = _load(fd, index)
                if slot is None:
                    continue
                self._slot, self._header = slot, headers[index]
            return self._slot
        raise Refused("guard_damaged", f"{self.path} holds no whole slot. {recover_hint}")

    def _write(self, slot: Slot) -> None:
        self._header = _store(self._open(), slot)
        self._slot = slot


def _is_file_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _generation(head: bytes) -> int:
    return header.unpack(head)[1] if len(head) == header.size else 0


def _store(fd: int, slot: Slot) -> bytes:
    """Write a slot in its place; returns its header, which names it."""
    content = codec.encode([slot.base_seq, slot.base_id, [list(wire) for wire in slot.batch]])
    assert len(content) + header.size <= slot_bytes_max, "a batch fits its slot"
    numbers = struct.pack("<QQQ", slot.generation, slot.inode, len(content))
    head = header.pack(magic, slot.generation, slot.inode, len(content), codec.sha256(numbers + content))
    os.pwrite(fd, head + content, (slot.generation % 2) * slot_bytes_max)
    os.fdatasync(fd)
    return head


def _load(fd: int, index: int) -> Slot | None:
    """A slot, or None if it was never written or its checksum does not hold (a write that a crash cut)."""
    offset = index * slot_bytes_max
    head = os.pread(fd, header.size, offset)
    if len(head) < header.size:
        return None
    found, generation, inode, size, checksum = header.unpack(head)
    if found != magic or size > slot_bytes_max:
        return None
    content = os.pread(fd, size, offset + header.size)
    if codec.sha256(struct.pack("<QQQ", generation, inode, size) + content) != checksum:
        return None
    try:
        base_seq, base_id, batch = codec.decode(content)
    except (Malformed, ValueError):
        return None
    return Slot(generation, inode, base_seq, base_id, tuple((body, signature) for body, signature in batch))
