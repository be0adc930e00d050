"""Which nodes does a red-black tree hold, in their order?

Mirrors include/linux/rbtree.h and lib/rbtree.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree
from orcdbg.subsystems.containers.lists import offset_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# `struct rb_node` is three words: the parent with the colour in its low bits, right child, left child.
_RIGHT, _LEFT = 8, 16


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
    """The nodes below and with `top`, in the tree's order; each once, whatever the links say."""
    children: dict[int, tuple[int, int]] = {}

    def children_of(node: int) -> Iterator[int]:
        right = read_u64(program.memory, node + _RIGHT & U64)
        left = read_u64(program.memory, node + _LEFT & U64)
        children[node] = left, right
        return iter([child for child in (left, right) if child])

    met = set(Tree([top] if top else [], children_of, budget, what))
    return _in_order(top, children, met)


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
