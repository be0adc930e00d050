"""States of slab objects, over slabs made by code: what lists say, what broken ones leave open, and that nothing hangs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.slab import ObjectPart, ObjectState, Proof, SlabAllocator, SlabPlace
from orcdbg.subsystems.slab_debug import slab_debug
from tests.build.slabs import CACHE, CPU_SLAB, DIRECT_MAP, NODE, PAGES, SHEAF, MadeSlabs

PFN = 20


def states(slabs: SlabAllocator, made: MadeSlabs, pfn: int = PFN) -> dict[int, tuple[ObjectState, Proof]]:
    """State and proof of each object of the slab in a frame."""
    found = {}
    for address in made.objects(pfn):
        each = slabs.object_at(address, slabs.pages.at(pfn))
        assert each is not None
        found[address] = (each.state, each.proof)
    return found


@given(st.permutations(range(16)), st.integers(0, 16), st.sampled_from([0, 0x1122_3344_5566_7788, 1 << 63 | 5]))
@settings(max_examples=50)
def test_objects_on_the_slabs_list_are_free_and_all_others_allocated(order: list[int], count: int, random: int) -> None:
    """In whatever order the list has them, and whatever hides its pointers."""
    made = MadeSlabs(random=random)
    objects = made.objects(PFN)
    free = [objects[number] for number in order[:count]]
    made.slab(PFN, free)
    found = states(made.allocator(), made)
    assert {address for address, (state, _) in found.items() if state is ObjectState.FREE} == set(free)
    assert all(state is not ObjectState.UNKNOWN for state, _ in found.values())
    assert all(proof is Proof.SLAB_LIST for address, (_, proof) in found.items() if address in free)


def test_a_cpus_list_and_its_slabs_own_list_both_make_objects_free() -> None:
    """Others free into the slab's list while the CPU allocates from its own; the answer says whose list has the object."""
    made = MadeSlabs()
    objects = made.objects(PFN)
    page = made.slab(PFN, objects[:2], frozen=True)
    made.active(page, objects[2:5])
    slabs = made.allocator()
    proofs = [proof for _, proof in states(slabs, made).values()]
    assert proofs[:6] == [Proof.SLAB_LIST] * 2 + [Proof.CPU_LIST] * 3 + [Proof.ON_NO_LIST]
    each = slabs.object_at(objects[3] + 7, slabs.pages.at(PFN))
    assert each is not None
    assert (each.place, each.place_cpu, each.proof_cpu, each.number, each.offset) == (SlabPlace.CPU, 0, 0, 3, 7)


@pytest.mark.parametrize(
    ("place", "proof"),
    [
        ("main", Proof.SHEAF),
        ("spare", Proof.SPARE_SHEAF),
        ("rcu_free", Proof.RCU_SHEAF),
        ("node", Proof.NODE_SHEAF),
    ],
)
def test_objects_in_a_sheaf_are_free(place: str, proof: Proof) -> None:
    """The slab itself counts them as in use."""
    made = MadeSlabs(with_sheaves=True)
    objects = made.objects(PFN)
    made.slab(PFN)
    made.sheaf(place, objects[4:6])
    found = states(made.allocator(), made)
    assert {address for address, (_, each) in found.items() if each is proof} == set(objects[4:6])
    assert sum(state is ObjectState.ALLOCATED for state, _ in found.values()) == 14


@pytest.mark.parametrize(
    ("last", "words"),
    [(0, "leads back to"), (DIRECT_MAP + 8, "no object of the slab"), (0x4141_4141_4141_4141, "no object of the slab")],
)
def test_a_broken_list_leaves_unknown_what_it_did_not_reach(last: int, words: str) -> None:
    """What is on it before the break is free; nothing is called allocated on a broken list's word."""
    made = MadeSlabs()
    objects = made.objects(PFN)
    made.slab(PFN, objects[:4])
    made.chain(objects[:4], last or objects[1])
    slabs = made.allocator()
    found = states(slabs, made)
    assert [state for state, _ in found.values()] == [ObjectState.FREE] * 4 + [ObjectState.UNKNOWN] * 12
    each = slabs.object_at(objects[9], slabs.pages.at(PFN))
    assert each is not None
    assert any(words in problem and f"{objects[3]:#x}" in problem for problem in each.problems)


def test_a_list_that_contradicts_the_slabs_counter_proves_nothing() -> None:
    """A zero written over a free pointer ends the list early; the counter knows of more free objects."""
    made = MadeSlabs()
    objects = made.objects(PFN)
    made.slab(PFN, objects[:2], in_use=10)
    found = states(made.allocator(), made)
    assert {state for state, _ in found.values()} == {ObjectState.FREE, ObjectState.UNKNOWN}


def test_a_broken_list_of_a_cpu_leaves_its_slabs_objects_unknown_and_no_others() -> None:
    """Objects of other slabs cannot be on it."""
    made = MadeSlabs()
    page = made.slab(PFN)
    made.slab(PFN + 1)
    made.active(page, made.objects(PFN)[:2])
    made.memory.words(CPU_SLAB, made.objects(PFN)[0] + 8)
    slabs = made.allocator()
    assert {state for state, _ in states(slabs, made).values()} == {ObjectState.UNKNOWN}
    assert {state for state, _ in states(slabs, made, PFN + 1).values()} == {ObjectState.ALLOCATED}


def test_a_sheaf_of_a_false_size_leaves_all_unknown() -> None:
    """It may have held any object."""
    made = MadeSlabs(with_sheaves=True)
    made.slab(PFN)
    made.sheaf("main", made.objects(PFN)[:1], size=1 << 31)
    found = states(made.allocator(), made)
    assert {state for state, _ in found.values()} == {ObjectState.UNKNOWN}


def test_red_zones_and_the_unused_end_are_no_objects() -> None:
    """Each address of a slab is a part of one object's place, or behind all."""
    made = MadeSlabs(size=300, object_size=200, red_left_pad=64)
    made.slab(PFN)
    slabs = made.allocator()
    start = DIRECT_MAP + PFN * 4096
    parts = []
    for offset in (0, 64, 263, 264, 299, 300, 13 * 300):
        each = slabs.object_at(start + offset, slabs.pages.at(PFN))
        assert each is not None
        parts.append((each.part, each.number, each.offset))
    assert parts == [
        (ObjectPart.LEFT_RED_ZONE, 0, -64),
        (ObjectPart.OBJECT, 0, 0),
        (ObjectPart.OBJECT, 0, 199),
        (ObjectPart.BEHIND, 0, 200),
        (ObjectPart.BEHIND, 0, 235),
        (ObjectPart.LEFT_RED_ZONE, 1, -64),
        (ObjectPart.UNUSED, None, 0),
    ]


def test_usage_counts_free_objects_of_all_lists() -> None:
    """Of the CPU, of partial slabs, of slabs themselves."""
    made = MadeSlabs()
    active, partial = made.slab(PFN, frozen=True), made.slab(PFN + 1, made.objects(PFN + 1)[:5])
    made.active(active, made.objects(PFN)[:3])
    made.list_head(NODE + 16, partial + 8)
    made.memory.words(NODE + 32, 2, 32)
    slabs = made.allocator()
    usage = slabs.usage(slabs.find_cache("made"))
    assert (usage.slabs, usage.objects, usage.free, usage.allocated, usage.partial) == (2, 32, 8, 24, 1)
    assert usage.problems == ()


def test_damage_is_named_by_its_first_byte() -> None:
    """Of red zones before and behind an object, and of poison; an object that is whole has none."""
    made = MadeSlabs(size=400, object_size=200, red_left_pad=64, with_debug=True)
    objects = made.objects(PFN)
    made.slab(PFN, objects[:4])
    for number, address in enumerate(objects):
        made.mark(address, is_free=number < 4)
    made.memory.write(objects[1] + 17, b"AB")
    made.memory.write(objects[2] + 199, b"\0")
    made.memory.write(objects[5] + 200, b"CD")
    made.memory.write(objects[6] - 3, b"E")
    slabs = made.allocator()
    damage = []
    for address in objects:
        found = slabs.object_at(address, slabs.pages.at(PFN))
        assert found is not None
        debug = slab_debug(slabs.pages.program.linux, found)
        assert debug is not None
        damage.append([(each.what, each.address - address, each.expected, each.found) for each in debug.damage])
    assert damage[0] == damage[3] == damage[4] == damage[7] == []
    assert damage[1] == [("poison", 17, 0x6B, b"AB")]
    assert damage[2] == [("poison", 199, 0xA5, b"\0")]
    assert damage[5] == [("right red zone", 200, 0xCC, b"CD")]
    assert damage[6] == [("left red zone", -3, 0xCC, b"E")]


_PLACES = [CACHE, CPU_SLAB, NODE, SHEAF, PAGES + 64 * PFN, DIRECT_MAP + PFN * 4096]
_WORDS = st.one_of(st.sampled_from([*_PLACES, (1 << 60) + 8, 0, PAGES + 64 * 21 + 8]), st.integers(0, (1 << 64) - 1))


@given(st.booleans(), st.lists(st.tuples(st.sampled_from(_PLACES), st.integers(0, 31), _WORDS), max_size=4))
@settings(max_examples=200)
def test_any_words_anywhere_give_an_answer_or_an_error(with_sheaves: bool, writes: list[tuple[int, int, int]]) -> None:
    """Counts of 2^60, lists that lead into each other, caches of no size: bounded, and never a wrong kind of exception."""
    made = MadeSlabs(with_sheaves=with_sheaves)
    objects = made.objects(PFN)
    page = made.slab(PFN, objects[:4])
    made.list_head(NODE + 16, page + 8)
    for address, word, value in writes:
        made.memory.words(address + 8 * word, value)
    slabs = made.allocator()
    try:
        for cache in slabs.caches(Budget(100)):
            slabs.usage(cache)
        for address in objects:
            slabs.object_at(address, slabs.pages.at(PFN))
    except OrcdbgError:
        pass
