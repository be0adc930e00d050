"""How are these pages and the man page built? `make docs`."""

from orcdbg import __version__

project = "orcdbg"
author = "the orcdbg authors"
release = version = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# Options such as --why must stay two hyphens, in the man page above all.
smartquotes = False

html_theme = "furo"
html_title = f"orcdbg {__version__}"

man_pages = [("man", "orcdbg", "debug a stopped Linux kernel", [], 1)]
