"""Tables in Markdown."""

from collections.abc import Iterable


def table(titles: Iterable[str], rows: Iterable[Iterable]) -> str:
    """A Markdown table."""
    titles = list(titles)
    head, *lines = ("| " + " | ".join(map(str, line)) + " |" for line in (titles, *rows))
    return "\n".join([head, "|" + "---|" * len(titles), *lines])


def cells(figures: dict[str, float], columns: dict[str, tuple[str, str]]) -> list[str]:
    """Formatted figures, a dash where one is missing; columns: {name: (title, format)}."""
    return [format(figures[name], style) if name in figures else "-" for name, (_, style) in columns.items()]


def titles_of(columns: dict[str, tuple[str, str]]) -> list[str]:
    """The titles of columns {name: (title, format)}."""
    return [title for title, _ in columns.values()]


def short(value: float, digits: int = 3) -> str:
    """A figure with a few digits, thousands separated."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) or not rounded else f"{rounded:.{digits}g}"
