"""What is a worker asked, and what may it take?"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


class JobKind(enum.Enum):
    """What is wanted of a dump."""

    RECORD = "record"
    PAGE = "page"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all dumps; paths and words alone, so that it can be sent to another process or machine.

    Attributes:
        images: the image of a build-id.
        modules: folders of modules' files.
        debug_folders: folders of debugging information that was split off.
        btf: a file of types, or a folder of such files by release.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = ()
    debug_folders: Sequence[str] = ()
    btf: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One dump.

    Attributes:
        kind: what is wanted.
        dump: its path.
        setting: how it is looked at.
        candidates: dumps that may have the same bytes.
        command: the command line that a page names.
    """

    kind: JobKind
    dump: str
    setting: Setting
    candidates: Sequence[str] = ()
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DumpLimits:
    """What a dump may take; whoever takes more is ended.

    Attributes:
        seconds: that pass.
        memory: in bytes.
    """

    seconds: float
    memory: int


def encode_job(job: Job, limits: DumpLimits) -> bytes:
    """A job as a worker reads it."""
    fields: dict[str, Any] = {**asdict(job), "kind": job.kind.value, "limits": asdict(limits)}
    return json.dumps(fields, ensure_ascii=True).encode("ascii")


def parse_job(data: bytes) -> tuple[Job, DumpLimits]:
    """What `encode_job` made."""
    fields = json.loads(data)
    limits = DumpLimits(**fields.pop("limits"))
    return Job(**{**fields, "kind": JobKind(fields["kind"]), "setting": Setting(**fields["setting"])}), limits
