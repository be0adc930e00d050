"""How does a report look as a page: one file, without scripts, that asks nobody for anything?

The policy in its head allows this one style sheet, by its hash, and nothing else: no script, picture, font, form or frame.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator

from orcdbg.commands.report import Report
from orcdbg.views.page import STYLES, Line, safe
from orcdbg.views.report import TITLES, answer_lines, graph_of, heading, made_by

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1a1a1a;--quiet:#5d6470;--line:#d5d9e0;--mark:#8a5300;--doubt:#b3001b;
--symbol:#0b5394;--rule:#1d6b36;--core:#f6c88f;--module:#f09a8c;--guess:#d5d9e0;--box:#1a1a1a}
@media (prefers-color-scheme:dark){:root{--ground:#15181d;--text:#dfe3ea;--quiet:#98a1b0;--line:#343a45;--mark:#e5b567;
--doubt:#ff8080;--symbol:#82b8f0;--rule:#8fce9f;--core:#7a5a2c;--module:#7d3c33;--guess:#3b424e;--box:#f1f1f1}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:1240px;background:var(--ground);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.35rem;line-height:1.3;margin:.2rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:1.8rem 0 .4rem;padding-top:.5rem;border-top:1px solid var(--line)}
nav a{display:inline-block;margin:0 1rem .3rem 0}
a{color:var(--symbol)}
.command{margin:.6rem 0 .2rem;color:var(--quiet)}
.lines,.signature,dd,svg text,.command{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12.5px}
.lines{line-height:1.45}
/* Letters that are written from right to left stay in the order in which they stand in memory. */
.l,h1,.signature,dd,svg text{direction:ltr;unicode-bidi:bidi-override}
.l{white-space:pre-wrap;overflow-wrap:anywhere;min-height:1.45em}
.signature{overflow-wrap:anywhere}
.header{font-weight:700}.mark,.changed{color:var(--mark);font-weight:600}.reason{color:var(--mark)}
.doubt{color:var(--doubt);font-weight:600}.symbol{color:var(--symbol)}.rule{color:var(--rule)}
.slot,.note,.label{color:var(--quiet)}
dl{margin:.4rem 0}dt{color:var(--quiet)}dd{margin:0 0 .4rem;overflow-wrap:anywhere}
svg{display:block;margin:.5rem 0}svg svg{margin:0}
rect.core{fill:var(--core)}rect.module{fill:var(--module)}rect.doubt{fill:var(--guess)}svg text{fill:var(--box)}
@media print{body{max-width:none;padding:0;font-size:10pt;background:#fff;color:#000}nav{display:none}
.lines{font-size:8pt}h2{break-after:avoid}.l{break-inside:avoid}rect{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
# What a line continues with stands a little behind where it begins; attributes could not say so, which the policy forbids.
_DEEPEST = 16
_INDENTS = "".join(f".i{n}{{padding-left:{n + 2}ch;text-indent:-{n + 2}ch}}" for n in range(_DEEPEST + 1))
_SHEET = f"{_STYLE}{_INDENTS}\n"


def text(words: str) -> str:
    """Words as they stand in a page, whatever they are."""
    return html.escape(safe(words))


def page_head(title: str, style: str = "") -> Iterator[str]:
    """The beginning of a page, up to the heading and its `<header>`, which is open still.

    Args:
        title: its heading.
        style: what the page adds to the style sheet: words of this program, never of a snapshot.
    """
    sheet = _SHEET + style
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="referrer" content="no-referrer">\n'
    yield f"<title>{text(title)}</title>\n<style>{sheet}</style>\n</head>\n<body>\n<header>\n<h1>{text(title)}</h1>\n"


def _lines(lines: Iterable[Line]) -> Iterator[str]:
    for pieces in lines:
        shown = []
        for words, style in pieces:
            # A style is a word of this program, never of the snapshot.
            known = style if style in STYLES else ""
            shown.append(f'<span class="{known}">{text(words)}</span>' if known else text(words))
        plain = "".join(piece.text for piece in pieces)
        indent = min(len(plain) - len(plain.lstrip(" ")), _DEEPEST)
        yield f'<div class="l i{indent}">{"".join(shown).rstrip()}</div>\n'


def _pieces(report: Report) -> Iterator[str]:
    title, signature = heading(report)
    yield from page_head(title)
    if signature is not None:
        yield f'<div class="signature">{text(signature)}</div>\n'
    links = [(part.value, TITLES[part]) for part, _ in report.parts] + [("made", "This report")]
    yield "</header>\n<nav>" + "".join(f'<a href="#{name}">{words}</a>' for name, words in links) + "</nav>\n<main>\n"

    for part, answers in report.parts:
        yield f'<section id="{part.value}">\n<h2>{TITLES[part]}</h2>\n{graph_of(answers)}'
        for answer in answers:
            yield f'<p class="command">orcdbg&gt; {text(answer.command)}</p>\n<div class="lines">\n'
            yield from _lines(answer_lines(answer))
            yield "</div>\n"
        yield "</section>\n"

    yield '<section id="made">\n<h2>This report</h2>\n<dl>\n'
    yield from (f"<dt>{label}</dt><dd>{text(value)}</dd>\n" for label, value in made_by(report))
    yield "</dl>\n</section>\n</main>\n</body>\n</html>\n"


def page_of(report: Report) -> str:
    """The report as HTML."""
    return "".join(_pieces(report))
