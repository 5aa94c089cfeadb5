"""How the docstrings of this project become Markdown: a Griffe extension that mkdocs.yml names.

Lines of `name: what it is` become a list, also below `Args:`; `Raises:` is an item, too; examples are fenced code.
"""

import re
import textwrap

import griffe

_ITEM = re.compile(r"(\*{0,2}[A-Za-z_]\w*(?:, \w+)*):\s+(\S.*)")
_INDENTED = re.compile(r"\s+\S")


def markdown(text: str) -> str:
    """The Markdown of a docstring without its common indentation."""
    return "\n\n".join(_paragraph(lines.strip("\n")) for lines in re.split(r"\n\s*\n", text))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if lines[0].startswith(">>>"):
        return "```python\n" + "\n".join(line.removeprefix(">>> ").removeprefix("... ") for line in lines) + "\n```"
    if lines[0] == "Example:":
        return "Example:\n\n```python\n" + "\n".join(line.removeprefix("    ") for line in lines[1:]) + "\n```"
    if lines[0] in ("Args:", "Raises:", "Returns:") and len(lines) > 1:
        return f"{lines[0]}\n\n" + _paragraph(textwrap.dedent("\n".join(lines[1:])))
    starts = [line for line in lines if not _INDENTED.match(line)]
    if _INDENTED.match(lines[0]) or not all(_ITEM.fullmatch(line) for line in starts):
        return text
    return "\n".join(_item(line) for line in lines)


def _item(line: str) -> str:
    found = _ITEM.fullmatch(line)
    if not found:
        return "    " + line.lstrip()
    name, told = found.groups()
    return f"- {name}: {told}" if name in ("Args", "Raises", "Example", "Returns") else f"- `{name}`: {told}"


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
