"""Which nodes does a red-black tree hold, in their order?

Mirrors include/linux/rbtree.h and lib/rbtree.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree, WalkOutcome, WalkProblem
from orcdbg.subsystems.containers.lists import offset_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# `struct rb_node` is three words: the parent with the colour in its low bits, right child, left child.
_RIGHT, _LEFT = 8, 16
_COLOUR, _BLACK = 3, 1


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node of a tree: `depth` is 0 for the root, `position` how it is reached: `root/l/r`."""

    address: int
    depth: int
    position: str


def root_node(root: Object) -> int:
    """The topmost node under any of the kernel's kinds of root, 0 where the tree is empty.

    `rb_root_cached` keeps the leftmost node besides (cd9e61ed1eeb, 4.14), `rb_root_linked` chains the nodes as well (7.1).
    """
    holder = root
    for _ in range(3):
        if holder.has_member_("rb_node"):
            return int(holder.member_("rb_node"))
        if not holder.has_member_("rb_root"):
            break
        holder = holder.member_("rb_root")
    raise NotFound("member", "rb_node")


def walk(program: Program, top: int, budget: Budget, what: str) -> list[TreeNode]:
    """The nodes below and with `top`, in the tree's order; each once, whatever the links say.

    One changed link loses or gains nodes without a word, so what a red-black tree keeps besides is compared: each node
    leads back to its parent, no red node has a red child, and all ways down meet as many black nodes. The budget gets a
    problem for the first node where that is not so. What this cannot tell is the loss of a red leaf.
    """
    nodes: dict[int, _Links] = {}
    check = _Check(budget, what)

    def children_of(node: int) -> Iterator[int]:
        word, right, left = (read_u64(program.memory, node + place & U64) for place in (0, _RIGHT, _LEFT))
        nodes[node] = _Links(word & ~_COLOUR, bool(word & _BLACK), left, right)
        return iter([child for child in (left, right) if child])

    order = list(Tree([top] if top else [], children_of, budget, what))
    check.parents(top, nodes)
    check.colours(order, nodes)
    return _in_order(top, {node: (links.left, links.right) for node, links in nodes.items()}, set(order))


class _Links(NamedTuple):
    """What a node holds."""

    parent: int
    is_black: bool
    left: int
    right: int


class _Check:
    """What a tree keeps besides its links, compared; only the first contradiction is told."""

    def __init__(self, budget: Budget, what: str) -> None:
        self._budget = budget
        self._what = what
        self._is_broken = False

    def parents(self, top: int, nodes: Mapping[int, _Links]) -> None:
        """Each node leads back to the one above; the topmost one to none."""
        if top in nodes and nodes[top].parent:
            self._note(top, f"its parent is {nodes[top].parent:#x}, and it is the topmost node")
        for node, links in nodes.items():
            if links.left and links.left == links.right:
                self._note(node, f"both children are {links.left:#x}")
            for child in (links.left, links.right):
                if child in nodes and nodes[child].parent != node:
                    self._note(child, f"its parent is {nodes[child].parent:#x}, not {node:#x}, which leads to it")

    def colours(self, order: Sequence[int], nodes: Mapping[int, _Links]) -> None:
        """Black nodes on the ways down, and red ones below each other; children come before parents from the end on."""
        heights: dict[int, int] = {}
        for node in reversed(order):
            links = nodes.get(node)
            if links is None or self._is_broken:
                return  # a node that could not be read has its own problem
            below = [heights.get(child, 0) for child in (links.left, links.right)]
            if below[0] != below[1]:
                self._note(node, f"{below[0]} black nodes are below it on the left, {below[1]} on the right")
            reds = [child for child in (links.left, links.right) if child in nodes and not nodes[child].is_black]
            if reds and not links.is_black:
                self._note(reds[0], f"it is red, and so is its parent {node:#x}")
            heights[node] = max(below) + links.is_black

    def _note(self, node: int, why: str) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._budget.note(WalkProblem(self._what, WalkOutcome.CORRUPT, node, why=why))


def _in_order(top: int, children: dict[int, tuple[int, int]], met: set[int]) -> list[TreeNode]:
    """Nodes of a tree that was read, left before right. A link to a node that was met before is left out."""
    found: list[TreeNode] = []
    placed: set[int] = set()
    waiting: list[TreeNode] = []
    node, depth, position = top, 0, "root"
    while node or waiting:
        if node and node in met and node not in placed:
            placed.add(node)
            waiting.append(TreeNode(node, depth, position))
            node, depth, position = children.get(node, (0, 0))[0], depth + 1, position + "/l"
            continue
        if not waiting:
            break
        last = waiting.pop()
        found.append(last)
        node = children.get(last.address, (0, 0))[1]
        depth, position = last.depth + 1, last.position + "/r"
    return found


def entries(root: Object, type_: str, path: str, budget: Budget) -> Iterator[Object]:
    """The structures in a tree, in its order.

    Args:
        root: an `rb_root`, `rb_root_cached` or `rb_root_linked`, or a structure that has one as `rb_root`.
        type_: what is in the tree.
        path: of its `rb_node` member.
        budget: what the walk draws on.
    """
    program = root.program_
    offset = offset_of(program, type_, path)
    target = program.type(type_)
    for node in walk(program, root_node(root), budget, f"the tree of {type_}.{path}"):
        yield program.object(target, node.address - offset)
