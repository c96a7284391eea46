"""The states of a chunk, and every move between them, in one table.

==========  =====================================================================
MISSING     not here
SUSPECT     bytes are on disk but nobody vouches for them: hash before use
TO_CHECK    suspect, wanted, waits for a worker
CHECKING    a worker reads and hashes it
TO_FETCH    missing, wanted, waits for a worker (or for the stream to get there)
FETCHING    a worker fetches, inflates, verifies and stores it
PRESENT     on disk, verified since boot: served with one ``pread``
HELD        verified, could not be stored, kept in memory for a while
==========  =====================================================================
"""

from __future__ import annotations

MISSING, SUSPECT, TO_CHECK, CHECKING, TO_FETCH, FETCHING, PRESENT, HELD = range(8)
NAMES = ("missing", "suspect", "to-check", "checking", "to-fetch", "fetching", "present", "held")

ALLOWED: dict[int, frozenset[int]] = {
    # wanted; or bytes arrive unasked (put, a stream that passes)
    MISSING: frozenset({TO_FETCH, FETCHING}),
    SUSPECT: frozenset({TO_CHECK, FETCHING}),
    # a worker took it; nobody wants it any more; put or a stream was faster
    TO_CHECK: frozenset({CHECKING, SUSPECT, FETCHING}),
    # the hash is right; it is wrong or the file unreadable; the file changed meanwhile
    CHECKING: frozenset({PRESENT, TO_FETCH, MISSING, SUSPECT}),
    # a worker took it; nobody wants it any more
    TO_FETCH: frozenset({FETCHING, MISSING}),
    # stored; not storable; failed; stored, but the file changed meanwhile
    FETCHING: frozenset({PRESENT, HELD, MISSING, SUSPECT}),
    # the file changed under us
    PRESENT: frozenset({SUSPECT}),
    # pushed out of memory
    HELD: frozenset({MISSING}),
}


class IllegalMove(RuntimeError):
    """A bug of ours: a move that the table does not have."""


class ChunkStates:
    """The state of each chunk of a layer.  Readable without a lock, moved with the pool's."""

    def __init__(self, initial: bytes) -> None:
        self.table = bytearray(initial)
        self.present = initial.count(PRESENT)

    def __getitem__(self, chunk: int) -> int:
        return self.table[chunk]

    def __len__(self) -> int:
        return len(self.table)

    def move(self, chunk: int, state: int) -> None:
        """Put ``chunk`` into ``state``; raises ``IllegalMove`` when the table forbids it."""
        old = self.table[chunk]
        if state not in ALLOWED[old]:
            raise IllegalMove(f"chunk {chunk}: {NAMES[old]} to {NAMES[state]}")
        self.table[chunk] = state
        self.present += (state == PRESENT) - (old == PRESENT)

    def doubt_all(self) -> None:
        """Every chunk that was trusted becomes suspect."""
        self.table = self.table.replace(bytes((PRESENT,)), bytes((SUSPECT,)))
        self.present = 0
