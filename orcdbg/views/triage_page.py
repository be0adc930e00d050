"""How does the index of many dumps look as a page? It is made as a report's page is: one file, without scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from orcdbg import __version__
from orcdbg.commands.triage import TriageResult
from orcdbg.triage.groups import DumpGroup, GroupKind
from orcdbg.triage.records import DumpRecord, Outcome
from orcdbg.views.report_page import page_head, text
from orcdbg.views.triage import certainties_of, day, releases_of, summary, words_of_group, words_of_record

# Of a group: who wants all of them has the records.
_MOST_DUMPS = 100
_STYLE = """
table{border-collapse:collapse;width:100%;margin:.4rem 0}th{text-align:left;color:var(--quiet);font-weight:400}
th,td{padding:.25rem .8rem .25rem 0;vertical-align:top;border-bottom:1px solid var(--line)}
td{direction:ltr;unicode-bidi:bidi-override;overflow-wrap:anywhere}td.n{text-align:right}.wide{overflow-x:auto}
td.d{white-space:nowrap}
/* On a telephone the cells of a row stand below each other. */
@media (max-width:700px){table,tbody,tr,td{display:block}th{display:none}td,td.n{border:0;padding:.1rem 0;text-align:left}
tr{border-bottom:1px solid var(--line);padding:.4rem 0}}
"""


def index_page(result: TriageResult, command: Sequence[str]) -> str:
    """The page that leads to the groups.

    Args:
        result: what came out.
        command: the command line.
    """
    return "".join(_pieces(result, command))


def _pieces(result: TriageResult, command: Sequence[str]) -> Iterator[str]:
    yield from page_head(summary(result), _STYLE)
    yield '</header>\n<main>\n<section id="groups">\n<h2>Groups</h2>\n<div class="wide"><table>\n'
    yield "<tr><th>dumps</th><th>first</th><th>last</th><th>releases</th><th>what they have in common</th></tr>\n"
    for number, group in enumerate(result.groups):
        yield f'<tr><td class="n">{len(group.records)}</td><td class="d">{text(day(group.first))}</td>'
        yield f'<td class="d">{text(day(group.last))}</td><td>{text(releases_of(group))}</td>'
        yield f'<td><a href="#group-{number}">{text(words_of_group(group))}</a></td></tr>\n'
    yield "</table></div>\n</section>\n"

    for number, group in enumerate(result.groups):
        yield from _group(number, group, result)

    yield '<section id="made">\n<h2>This page</h2>\n<dl>\n'
    made_by = [("made with", f"orcdbg {__version__}"), ("command line", shlex.join(command))]
    if result.output is not None:
        made_by.append(("records", result.output))
    made_by += [("problem", problem) for problem in result.problems]
    yield from (f"<dt>{label}</dt><dd>{text(value)}</dd>\n" for label, value in made_by)
    yield "</dl>\n</section>\n</main>\n</body>\n</html>\n"


def _group(number: int, group: DumpGroup, result: TriageResult) -> Iterator[str]:
    pages = result.pages or {}
    exemplar = group.exemplar
    page = pages.get(exemplar.dump)
    yield f'<section id="group-{number}">\n<h2>{text(_heading(group))}</h2>\n'
    if group.key.kind is GroupKind.SIGNATURE:
        yield f'<div class="signature">{text(group.key.word)}</div>\n'
    yield "<dl>\n"
    if group.certainties:
        yield f"<dt>how sure the cause is</dt><dd>{text(certainties_of(group))}</dd>\n"
    if group.duplicates:
        yield f"<dt>more files with the same bytes</dt><dd>{group.duplicates}</dd>\n"
    if page is not None:
        # The name is a hash, and no word of the dump's.
        yield f'<dt>the dump of which most is known</dt><dd><a href="{page}">{text(exemplar.dump)}</a></dd>\n'
    yield "</dl>\n"
    yield from _table(group.records)
    yield "</section>\n"


def _heading(group: DumpGroup) -> str:
    if group.key.kind is not GroupKind.SIGNATURE:
        return f"{len(group.records)}: {words_of_group(group)}"
    return f"{len(group.records)}: {words_of_record(group.exemplar)}"


def _table(records: Sequence[DumpRecord]) -> Iterator[str]:
    yield '<div class="wide"><table>\n<tr><th>stopped</th><th>release</th><th>dump</th><th>what it says</th></tr>\n'
    for record in records[-_MOST_DUMPS:]:
        said = words_of_record(record) if record.outcome is not Outcome.DUPLICATE else ""
        yield f'<tr><td class="d">{text(day(record.date))}</td><td>{text(record.release or "-")}</td>'
        yield f"<td>{text(record.dump)}</td><td>{text(said)}</td></tr>\n"
    yield "</table></div>\n"
    if len(records) > _MOST_DUMPS:
        yield f"<p>The newest {_MOST_DUMPS} of {len(records)}.</p>\n"
