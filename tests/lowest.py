"""`python tests/lowest.py` prints constraints for pip: each dependency of setup.cfg at the lowest version it allows."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

SETTINGS = Path(__file__).resolve().parents[1] / "setup.cfg"


def lowest(settings: str) -> Iterator[str]:
    """Yields `name==version` for what a setup.cfg installs, and for what its tests need.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    config = configparser.ConfigParser()
    config.read_string(settings)
    required = config["options"]["install_requires"] + config["options.extras_require"]["test"]

    for requirement in required.split():
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,<[\w.]+)?", requirement)
        if match is None:
            raise ValueError(f"no lower bound: {requirement}")
        yield f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    print("\n".join(lowest(SETTINGS.read_text())))
