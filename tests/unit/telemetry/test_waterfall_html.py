from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.telemetry.waterfall_html import page
from tests.unit.telemetry.waterfalls import example

_VOID = {"meta", "line", "rect"}


class Elements(HTMLParser):
    """Every element, and that each end tag is that of the element that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Elements:
    found = Elements()
    found.feed(text)
    found.close()
    assert not found.open
    return found


def test_a_page_has_a_bar_for_each_thing() -> None:
    found = parsed(page(example()))
    # two phases, two fetches, two waits, two buckets of hits, four in the legend
    assert found.names.count("rect") == 12
    assert found.names.count("tr") == 6
    assert "2 reads waited" in found.text and "not known" not in found.text


def test_a_page_loads_nothing() -> None:
    text = page(example())
    assert "default-src 'none'" in text and "<script" not in text
    names = {name for name, _ in parsed(text).attributes}
    assert not names & {"src", "href", "onload", "onclick", "style"}


@given(st.text())
def test_names_out_of_images_stay_text(name: str) -> None:
    plain, odd = parsed(page(example(path="/x"))), parsed(page(example(path=name or "/")))
    assert odd.names == plain.names


def test_without_reads() -> None:
    found = parsed(page(example(None)))
    assert "clipd does not serve this image any more" in found.text
    assert "table" not in found.names
