"""Target descriptions: QEMU's form is read; any other bytes are an error, and none is expanded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import RemoteError
from orcdbg.gdb.target_description import RegisterPlace, read_description
from tests.build.stub import DOCUMENTS, NAMES

PIECES = ["<target>", "</target>", "<reg ", 'name="rip" ', 'bitsize="64"', "/>", "<!DOCTYPE t [", "]>", "&a;", "<", ">"]


def described(documents: dict[str, str]) -> list[RegisterPlace]:
    """The registers in these documents."""
    return read_description(lambda name: documents[name].encode())


def test_registers_come_in_the_order_of_their_numbers() -> None:
    """Through the include, with places that follow from their sizes."""
    places = described(DOCUMENTS)
    assert [place.name for place in places] == list(NAMES)
    assert places[16] == RegisterPlace("rip", 128, 8)
    assert places[18] == RegisterPlace("cs", 140, 4)


def test_numbers_that_are_given_count() -> None:
    """And those that follow go on from there."""
    core = '<feature><reg name="{}" bitsize="64" regnum="9"/>' + "".join(
        f'<reg name="{name}" bitsize="32"/>' for name in ("rsp", "eflags", "cs")
    )
    text = core.format("rip") + '<reg name="rax" bitsize="64" regnum="2"/></feature>'
    assert [place.name for place in described({"target.xml": text})] == ["rax", "rip", "rsp", "eflags", "cs"]


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE t [<!ENTITY a "aaaa">]><t>&a;</t>',
        '<!DOCTYPE t [<!ENTITY a SYSTEM "file:///etc/passwd">]><t>&a;</t>',
        '<t><xi:include href="../secret"/></t>',
        '<t><xi:include href="target.xml"/></t>',
        '<t><reg name="a" bitsize="99999999999999999999"/></t>',
        '<t><reg name="a" bitsize="7"/></t>',
        '<t><reg name="a" bitsize="' + "0" * 5000 + '8"/></t>',  # more digits than Python makes a number of
        '<t><reg name="a" bitsize="0000000009999999992"/></t>',
        '<?xml version="1.0" encoding="no-such"?><t/>',  # encodings that Python would look for, and not find
        '<?xml version="1.0" encoding="utf-7"?><t/>',
        '<?xml version="1.0" encoding="idna"?><t/>',
        '<t><reg name="a" bitsize="64" regnum="1"/><reg name="b" bitsize="64" regnum="1"/></t>',
        '<t><reg name="a"/></t>',
        "<t><architecture>aarch64</architecture></t>",
        "<t/>",
        "not XML",
        "",
    ],
)
def test_a_description_that_lies_is_an_error(text: str) -> None:
    """Entities, paths, circles, impossible sizes, other machines."""
    with pytest.raises(RemoteError):
        described({"target.xml": text})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12))
def test_any_text_is_registers_or_an_error(pieces: list[str]) -> None:
    """Nothing else comes out."""
    try:
        assert described({"target.xml": "".join(pieces)})
    except RemoteError as error:
        assert error.kind == "remote"
