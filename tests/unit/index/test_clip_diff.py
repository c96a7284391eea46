from clip_runc.index.clip_diff import MIB, spacing
from clip_runc.index.model import Chunk, Layer


class _Clip:
    def __init__(self, *layers: Layer) -> None:
        self.layers = layers


def layer(codec: str, *sizes: tuple[int, int]) -> Layer:
    chunks, raw, comp = [], 0, 0
    for more_raw, more_comp in sizes:
        chunks.append(Chunk(raw, raw + more_raw, comp, comp + more_comp, bytes(32)))
        raw, comp = raw + more_raw, comp + more_comp
    return Layer("sha256:", "sha256:", "", codec, codec, comp, raw, tuple(chunks))


def test_the_shortest_chunk_says_what_an_index_was_made_with():
    long, short = (4 * MIB, 4 * MIB), (2 * MIB, 2 * MIB)
    assert spacing(_Clip(layer("gzip", long, long, short))) == 4
    assert spacing(_Clip(layer("gzip", long, short, long))) == 2
    assert spacing(_Clip(layer("gzip", long, long), layer("zstd", short, short))) == 2
    assert spacing(_Clip(layer("none", (3 * MIB, 3 * MIB), (1, 1)))) == 3


def test_what_ended_for_its_uncompressed_size_says_how_much_that_was():
    assert spacing(_Clip(layer("gzip", (5 * MIB, MIB), (4 * MIB, 4 * MIB), (1, 1)))) == 4
    assert spacing(_Clip(layer("zstd", (3 * MIB, MIB), (4 * MIB, 4 * MIB), (1, 1)))) == 2
    assert spacing(_Clip(layer("gzip", (16 * MIB, MIB), (7 * MIB, 7 * MIB), (1, 1)))) == 7


def test_where_every_value_gives_the_same():
    assert spacing(_Clip()) == 64
    assert spacing(_Clip(layer("gzip", (1, 1)))) == 64
    assert spacing(_Clip(layer("stream", (4 * MIB, 0), (4 * MIB, 0)))) == 64
