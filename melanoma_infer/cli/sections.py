"""A command whose `--help` lists its options in sections. Typer does so only with Rich, which takes time to import."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

NAME_MAX = 28
"""Help texts of all sections begin in one column, unless a name is longer than this."""


class SectionedCommand(TyperCommand):
    """Options are listed under their `rich_help_panel`, in the order in which the command declares them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options of each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            title = "Arguments" if param.param_type_name == "argument" else "Other options"
            title = getattr(param, "rich_help_panel", None) or title
            if record := param.get_help_record(ctx):
                sections.setdefault(title, []).append(record)
        names = [name for rows in sections.values() for name, _ in rows]
        width = max(len(name) for name in names if len(name) <= NAME_MAX)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])
