"""Layers become one tree: whiteouts, opaque directories, hard links, replaced entries.

The rules are those of the OCI image specification, "Image Layer Filesystem Changeset".
Where it is silent:

- A whiteout or opaque marker takes away only what lower layers put there, wherever in
  its layer it stands.  A directory that its layer also fills from further down stays,
  as if the layer had made it.
- A parent that is a symbolic link is followed, confined to the image, as ``umoci``'s and
  containerd's ``securejoin`` do; also into lower layers, as applying layers one by one
  gives it.  A parent that is another non-directory is replaced by a directory.
- A hard link keeps the owner, mode and times of what it links to; it may name an entry of
  a lower layer, a link or a symbolic link, never a directory.
- AUFS's own files (``.wh..wh.*``) are skipped.
- A character device 0:0 is overlayfs's own whiteout: there is nothing at its name, whatever a
  lower layer has.  Mounted below an overlay it could be listed, and not be looked at.
- A whiteout or marker in a directory that is not there does not make it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from clip_runc.errors import LayerFormatError
from clip_runc.index.model import Entry

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_MAX_LINKS = 255  # as securejoin's, by which umoci and containerd apply layers
_MAX_STEPS = 4096

IMPLIED = Entry(b"", stat.S_IFDIR, 0o755)
"""A directory that no layer has an entry for: 0755, root's, from 1970."""


class Node:
    """An inode of the flattened image.

    ``entry`` says what it is, ``layer`` where the data that ``entry.extents`` point at lie
    (and which layer stated it last).  ``children`` by name, for directories.  A hard link is
    the same node under another name.  ``nid`` and ``links`` belong to the EROFS writer.
    """

    __slots__ = ("children", "clean", "entry", "layer", "links", "nid", "touched")

    def __init__(self, entry: Entry, layer: int) -> None:
        self.entry = entry
        self.layer = layer
        self.children: dict[bytes, Node] | None = {} if entry.kind == stat.S_IFDIR else None
        self.touched = layer  # last layer that put something at or below this directory
        self.clean = layer  # last layer from which on nothing older is below
        self.nid = 0
        self.links = 0

    @property
    def mode(self) -> int:
        """``st_mode``: kind and permissions; a symbolic link has those of every link."""
        if self.entry.kind == stat.S_IFLNK:
            return stat.S_IFLNK | 0o777
        return self.entry.kind | self.entry.mode

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path below and its node, parents first, names sorted; hard links each time."""
        stack = [(b"", self)]
        while stack:
            path, node = stack.pop()
            if path:
                yield path, node
            prefix = path + b"/" if path else b""
            for name, child in sorted((node.children or {}).items(), reverse=True):
                stack.append((prefix + name, child))


def flatten(layers: Sequence[Sequence[Entry]]) -> Node:
    """Apply layers, lowest first.  Gives the root; raises ``LayerFormatError``."""
    root = Node(IMPLIED, 0)
    for number, entries in enumerate(layers):
        _Layer(root, number).apply(entries)
    return root


class _Layer:
    """One layer being applied to the tree of those below it."""

    def __init__(self, root: Node, number: int) -> None:
        self._root = root
        self._number = number
        # directories by their path as written; emptied when a name changes its meaning
        self._parents: dict[bytes, Node] = {b"": root}
        # names given by this layer to nodes of lower ones, that no whiteout of it may take
        self._linked: set[tuple[Node, bytes]] = set()
        self._stated = False  # this layer has an entry for the root

    def apply(self, entries: Sequence[Entry]) -> None:
        self._root.touched = self._number
        for entry in entries:
            path = entry.path
            directory, _, name = path.rpartition(b"/")
            if name.startswith(_WHITEOUT):
                self._whiteout(directory, name)
            elif path.startswith(_META):
                continue
            elif not path:
                self._restate(self._root, entry)
            elif entry.kind:
                self._put(self._parent(directory), name, entry)
            else:
                self._link(self._parent(directory), name, entry)

    # Entries.

    def _put(self, parent: Node, name: bytes, entry: Entry) -> None:
        children = _children(parent)
        old = children.get(name)
        if entry.kind == stat.S_IFCHR and entry.rdev == (0, 0):
            if old is not None:
                self._remove(parent, name)
            return
        if old is not None:
            if old.children is not None and entry.kind == stat.S_IFDIR:
                self._restate(old, entry)
                return
            self._forget(old)
        self._linked.discard((parent, name))
        children[name] = Node(entry, self._number)

    def _restate(self, node: Node, entry: Entry) -> None:
        if entry.kind != stat.S_IFDIR:
            raise LayerFormatError("an entry that is no directory would replace the root")
        node.entry = entry
        node.layer = node.touched = self._number

    def _link(self, parent: Node, name: bytes, entry: Entry) -> None:
        directory, _, base = entry.link.rpartition(b"/")
        holder = self._find(directory)
        target = holder.children.get(base) if holder and holder.children else None
        if target is None or target.children is not None:
            reason = "a directory" if target else "not there"
            raise LayerFormatError(
                f"layer {self._number}: {entry.path!r} is a hard link to {entry.link!r}, "
                f"which is {reason}"
            )
        children = _children(parent)
        old = children.get(name)
        if old is not None and old is not target:
            self._forget(old)
        children[name] = target
        if target.layer != self._number:
            self._linked.add((parent, name))

    def _forget(self, old: Node) -> None:
        """Note that a name stops meaning ``old``: paths through it must be walked again."""
        if old.children is not None or old.entry.kind == stat.S_IFLNK:
            self._parents = {b"": self._root}

    # Whiteouts.

    def _whiteout(self, directory: bytes, name: bytes) -> None:
        if name == _OPAQUE:
            top = self._find(directory)
            if top is not None:
                self._prune(top)
            return
        if name.startswith(_META):
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise LayerFormatError(f"layer {self._number}: {name!r} is not a whiteout of a name")
        parent = self._find(directory)
        if parent is None or not parent.children or hidden not in parent.children:
            return
        child = parent.children[hidden]
        if child.children is None:
            if child.layer != self._number and (parent, hidden) not in self._linked:
                self._remove(parent, hidden)
        elif child.touched != self._number:
            self._remove(parent, hidden)
        else:
            self._prune(child)
            if child.layer != self._number:
                child.entry, child.layer = IMPLIED, self._number

    def _remove(self, parent: Node, name: bytes) -> None:
        self._forget(_children(parent).pop(name))

    def _prune(self, top: Node) -> None:
        """Take away what lower layers put below a directory.

        Each directory is done once a layer (``clean``), so that markers in every directory
        of a deep tree cost its size once.
        """
        number = self._number
        stack = [top]
        while stack:
            node = stack.pop()
            if node.clean == number:
                continue
            node.clean = number
            children = _children(node)
            for name, child in list(children.items()):
                if child.children is None:
                    if child.layer != number and (node, name) not in self._linked:
                        self._remove(node, name)
                elif child.touched != number:
                    self._remove(node, name)
                else:
                    if child.layer != number:
                        child.entry, child.layer = IMPLIED, number
                    stack.append(child)

    # Names to nodes.

    def _parent(self, path: bytes) -> Node:
        """Give the directory at ``path``, made where it is missing."""
        found = self._parents.get(path)
        if found is None:
            found = self._walk(path, make=True)
            assert found is not None
            self._parents[path] = found
        return found

    def _find(self, path: bytes) -> Node | None:
        """Give the directory at ``path``, or None."""
        return self._parents.get(path) or self._walk(path, make=False)

    def _walk(self, path: bytes, *, make: bool) -> Node | None:
        """Resolve a path inside the image, symbolic links followed, ``..`` stopped at the root.

        What is missing on the way, and left again by ``..``, is not made.
        """
        names = [b""]
        stack: list[Node | None] = [self._root]
        todo = path.split(b"/")[::-1] if path else []
        links = steps = 0
        while todo:
            name = todo.pop()
            steps += 1
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                del names[len(stack) :]
                continue
            if name in (b"", b"."):
                continue
            here = stack[-1]
            child = here.children.get(name) if here and here.children else None
            if child is not None and child.entry.kind == stat.S_IFLNK:
                links += 1
                target = child.entry.link
                if target.startswith(b"/"):
                    del stack[1:], names[1:]
                todo += target.split(b"/")[::-1]
                if links > _MAX_LINKS or steps + len(todo) > _MAX_STEPS:
                    raise LayerFormatError(
                        f"layer {self._number}: too many symbolic links in {path[:200]!r}"
                    )
                continue
            stack.append(child if child is not None and child.children is not None else None)
            names.append(name)
        return self._made(stack, names) if make else stack[-1]

    def _made(self, stack: list[Node | None], names: list[bytes]) -> Node:
        """Make the directories that are missing; gives the last one."""
        here = self._root
        for name, node in zip(names[1:], stack[1:], strict=True):
            here.touched = self._number
            if node is None:
                if len(name) > 255:
                    raise LayerFormatError(f"layer {self._number}: a name over 255 bytes")
                node = Node(IMPLIED, self._number)
                self._linked.discard((here, name))
                _children(here)[name] = node
            here = node
        here.touched = self._number
        return here


def _children(node: Node) -> dict[bytes, Node]:
    assert node.children is not None
    return node.children
