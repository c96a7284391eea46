"""Themes of the torture image: what layers do to each other.

Links, changes of type, whiteouts, opaque directories, parents, duplicates.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.tar_bytes import (
    CHARACTER,
    DIRECTORY,
    FIFO,
    MTIME,
    Meta,
    directory,
    file,
    hard,
    member,
    opaque,
    symlink,
    whiteout,
)

Layers = list[list[bytes]]


def links() -> Layers:
    """Hard links: across directories and layers, chains, to symlinks, of replaced files."""
    lower = [
        directory(b"links"),
        directory(b"links/a"),
        directory(b"links/b"),
        file(b"links/a/file", b"shared\n", Meta(0o4755, 1, 2, MTIME + 3)),
        hard(b"links/b/same", b"links/a/file"),
        hard(b"links/b/chain-1", b"links/b/same", "gnu"),
        hard(b"links/b/chain-2", b"/links/b/../b/chain-1"),
        symlink(b"links/symlink", b"a/file"),
        hard(b"links/symlink-too", b"links/symlink"),
        symlink(b"links/to-a", b"a"),
        hard(b"links/through", b"links/to-a/file"),
        file(b"links/lower", b"in the lower layer\n" * 50),
        file(b"links/replaced", b"old"),
        hard(b"links/keeps-old", b"links/replaced"),
        file(b"links/hidden", b"name goes, inode stays"),
        member(b"links/pipe", FIFO),
        hard(b"links/pipe-too", b"links/pipe"),
        member(b"links/device", CHARACTER, device=(1, 7)),
        hard(b"links/device-too", b"links/device"),
        file(b"links/" + b"l" * 240, b"long"),
        hard(b"links/" + b"m" * 240, b"links/" + b"l" * 240),
        hard(b"links/" + b"o" * 240, b"links/" + b"l" * 240, "gnu"),
        directory(b"links/goes"),
        file(b"links/goes/file", b"its directory goes"),
        hard(b"links/stays", b"links/goes/file"),
        file(b"links/twice", b"1"),
        hard(b"links/twice-link", b"links/twice"),
    ]
    middle = [
        hard(b"links/to-lower", b"links/lower"),
        hard(b"links/b/to-lower", b"links/to-lower"),
        hard(b"links/to-lower-symlink", b"links/symlink"),
        file(b"links/replaced", b"new"),
        hard(b"links/keeps-new", b"links/replaced"),
        # the link is made before the name is hidden, and after
        hard(b"links/kept", b"links/hidden"),
        whiteout(b"links/hidden"),
        whiteout(b"links/goes"),
        file(b"links/twice", b"2"),
    ]
    upper = [
        whiteout(b"links/lower"),
        # a link in place of what was there
        hard(b"links/keeps-old", b"links/keeps-new"),
        hard(b"links/twice-link", b"links/twice"),
        directory(b"links/b/chain-1"),
        file(b"links/b/chain-1/inside"),
    ]
    top = [hard(b"links/last", b"links/b/to-lower"), file(b"links/kept", b"replaced after all")]
    return [lower, middle, upper, top]


def types() -> Layers:
    """Names that mean a directory, a file, a link and a directory again."""
    names = [b"types/%d" % n for n in range(6)]
    makers: list[Callable[[bytes], list[bytes]]] = [
        lambda name: [directory(name), file(name + b"/in", b"in"), directory(name + b"/d")],
        lambda name: [file(name, b"a file")],
        lambda name: [symlink(name, b"0")],
        lambda name: [member(name, FIFO)],
        lambda name: [directory(name), file(name + b"/other", b"other")],
    ]
    layers = [
        [b"".join(makers[(n + step) % len(makers)](name)) for n, name in enumerate(names)]
        for step in range(6)
    ]
    layers[0].insert(0, directory(b"types"))
    # all of it again within one layer
    for first in range(5):
        name = b"types/same-%d" % first
        for step in range(6):
            layers[0] += makers[(first + step) % len(makers)](name)
        layers[3] += makers[(first + 2) % len(makers)](name)
        layers[3] += makers[first](name)
    layers[1] += [
        directory(b"types/real"),
        symlink(b"types/alias", b"real"),
        file(b"types/alias/through", b"lands in real"),
        directory(b"types/alias"),  # takes the link's place
        file(b"types/alias/own", b"lands in alias"),
    ]
    return layers


def whiteouts() -> Layers:
    """Files and trees hidden; whiteouts before and after what their own layer has."""
    lower = [directory(b"whiteouts")]
    for name in (b"file", b"before", b"after", b"again", b"link-target"):
        lower.append(file(b"whiteouts/" + name, b"lower " + name))
    lower.append(symlink(b"whiteouts/link", b"link-target"))
    lower.append(symlink(b"whiteouts/to-tree", b"tree-2"))
    for name in (b"tree", b"tree-2", b"regrown", b"kept-dir", b"emptied", b"replaced"):
        base = b"whiteouts/" + name
        lower += [directory(base, Meta(0o700, 5, 5, MTIME + 9)), directory(base + b"/sub")]
        lower += [file(base + b"/one", b"1"), file(base + b"/sub/two", b"2")]
    upper = [
        whiteout(b"whiteouts/file"),
        whiteout(b"whiteouts/never-was"),
        whiteout(b"whiteouts/never/was/either"),
        whiteout(b"whiteouts/before"),
        file(b"whiteouts/before", b"upper before"),
        file(b"whiteouts/after", b"upper after"),
        whiteout(b"whiteouts/after"),
        whiteout(b"whiteouts/tree"),
        whiteout(b"whiteouts/link"),  # the link, not its target
        whiteout(b"whiteouts/to-tree/one"),  # through a link
        whiteout(b"whiteouts/regrown"),
        file(b"whiteouts/regrown/new", b"new"),
        file(b"whiteouts/kept-dir/new", b"new"),
        whiteout(b"whiteouts/kept-dir"),
        whiteout(b"whiteouts/emptied"),
        file(b"whiteouts/emptied/sub", b"a file in place of a directory"),
        whiteout(b"whiteouts/replaced"),
        file(b"whiteouts/replaced", b"a file in place of a tree"),
        whiteout(b"whiteouts/again"),
        member(b"whiteouts/.wh.as-directory", DIRECTORY),  # the name counts, not the type
    ]
    top = [
        file(b"whiteouts/again", b"back"),
        directory(b"whiteouts/tree", Meta(0o755)),
        file(b"whiteouts/tree/one", b"another"),
        whiteout(b"whiteouts/after"),
    ]
    return [lower, upper, top]


def opaques() -> Layers:
    """Opaque directories, with entries before and after the marker."""
    lower = [directory(b"opaque")]
    for name in (b"stated", b"unstated", b"regrown", b"inner-kept", b"twice", b"gone"):
        base = b"opaque/" + name
        lower += [directory(base, Meta(0o750, 6, 6, MTIME + 11)), directory(base + b"/inner")]
        lower += [file(base + b"/old", b"old"), file(base + b"/inner/old", b"old")]
    lower.append(symlink(b"opaque/alias", b"twice"))
    upper = [
        file(b"opaque/stated/before", b"before"),
        directory(b"opaque/stated", Meta(0o711, 8, 8)),
        opaque(b"opaque/stated"),
        file(b"opaque/stated/after", b"after"),
        opaque(b"opaque/unstated"),
        whiteout(b"opaque/regrown"),
        file(b"opaque/regrown/inner/new", b"new"),
        opaque(b"opaque/regrown"),
        file(b"opaque/inner-kept/inner/new", b"new"),
        directory(b"opaque/inner-kept/inner", Meta(0o700)),
        opaque(b"opaque/inner-kept"),
        whiteout(b"opaque/inner-kept"),
        opaque(b"opaque/alias"),
        opaque(b"opaque/gone"),
        whiteout(b"opaque/gone"),
        opaque(b"opaque/never-was"),
    ]
    top = [
        opaque(b"opaque/twice"),
        file(b"opaque/twice/new", b"new"),
        opaque(b"opaque/twice"),
        file(b"opaque/twice/newer", b"newer"),
    ]
    return [lower, upper, top]


def parents() -> Layers:
    """Parents that never come, that come late, that are links."""
    lower = [
        directory(b"parents"),
        file(b"parents/no/entry/here/file", b"implied"),
        file(b"parents/late/sub/file", b"late"),
        directory(b"parents/late/sub", Meta(0o700, 1, 1, MTIME + 13)),
        directory(b"parents/late", Meta(0o711, 2, 2, MTIME + 15)),
        directory(b"parents/real", Meta(0o755, 3, 3)),
        symlink(b"parents/link", b"real"),
        symlink(b"parents/absolute", b"/parents/real"),
        symlink(b"parents/climbing", b"../../../parents/real"),
        symlink(b"parents/dangling", b"dangling-target/made"),
        symlink(b"parents/detour", b"over/../missing/../real"),
        symlink(b"parents/link-2", b"link"),
        file(b"parents/link/a", b"through a link"),
        file(b"parents/absolute/b", b"through an absolute one"),
        file(b"parents/climbing/c", b"through one that climbs"),
        file(b"parents/dangling/d", b"through one to nowhere"),
        file(b"parents/link-2/e", b"through two"),
    ]
    chain = [symlink(b"parents/chain-%d" % n, b"chain-%d" % (n + 1)) for n in range(60)]
    lower += [*chain, symlink(b"parents/chain-60", b"real"), file(b"parents/chain-0/f", b"sixty")]
    upper = [
        file(b"parents/link/g", b"through a link of the lower layer"),
        file(b"parents/link/a", b"replaced through it"),
        hard(b"parents/real/h", b"parents/absolute/b"),
        directory(b"parents/link-2/i"),
        file(b"parents/detour/j", b"past what is not there"),
    ]
    return [lower, upper]


def duplicates() -> Layers:
    """The same name again and again in one layer; the last one counts."""
    members = [
        directory(b"duplicates", Meta(0o700)),
        file(b"duplicates/file", b"first", Meta(0o600)),
        file(b"duplicates/file", b"second, and longer", Meta(0o644, 1, 1)),
        file(b"duplicates/file", b"last", Meta(0o640, 2, 2, MTIME + 17)),
        hard(b"duplicates/link", b"duplicates/file"),
        file(b"duplicates/file", b"after the link", Meta(0o644)),
        directory(b"duplicates/directory", Meta(0o755, xattrs={b"user.first": b"1"})),
        file(b"duplicates/directory/kept", b"kept"),
        directory(b"duplicates/directory", Meta(0o711, 4, 4, MTIME + 19)),
        symlink(b"duplicates/symlink", b"one"),
        symlink(b"duplicates/symlink", b"two"),
        directory(b"./duplicates/", Meta(0o755, 0, 0, MTIME + 21)),
    ]
    return [members, [file(b"duplicates/file", b"x"), file(b"duplicates/file", b"y")]]


def stack(count: int) -> Layers:
    """Something in every layer: a chain of links through all, a file that always changes."""
    layers: Layers = [[directory(b"stack"), file(b"stack/link-0", b"one inode, many layers")]]
    for n in range(1, count):
        layer = [
            file(b"stack/layer-%d" % n, b"%d" % n, Meta(0o644, n, 1000 * n, MTIME + n)),
            file(b"stack/last", b"%d" % n),
            hard(b"stack/link-%d" % n, b"stack/link-%d" % (n - 1)),
        ]
        if n % 3 == 0:
            layer.append(whiteout(b"stack/layer-%d" % (n - 1)))
        layers.append(layer)
    return layers


THEMES = (links, types, whiteouts, opaques, parents, duplicates)
