"""`python -m orcdbg`."""

# No other import comes before `leave_folder`, not even `from __future__`: each would be taken from the current folder.
# sys is built in.
import sys


def leave_folder(path: list[str], safe_path: bool) -> None:
    """Takes the current folder off `path`: `python -m` puts it first, before Python's own modules.

    What PYTHONPATH names stays, also where it names the same folder.

    Args:
        path: where modules are looked for, changed in place.
        safe_path: Python was started with -P, -I or PYTHONSAFEPATH, and put no folder there.
    """
    if safe_path or not path:
        return

    import os  # frozen into Python

    try:
        here = os.getcwd()  # noqa: PTH109  pathlib is not frozen
    except OSError:
        here = ""  # the folder is gone, and nothing can be in it

    if path[0] in ("", here):
        del path[0]


if __name__ == "__main__":
    leave_folder(sys.path, sys.flags.safe_path)

    from orcdbg.cli.entry import start

    sys.exit(start())
