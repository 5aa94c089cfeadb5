"""Access a table by columns, and measure properties of a column that do not depend on its meaning."""

from collections.abc import Sequence
from functools import cached_property

from recipes.data.tables.names import FALSE, TRUE, key, override, words_of
from recipes.errors import DataError

FEW = 10  # largest number of distinct values in a column of splits or folds


class Cells:
    """A table with access to its cells by column.

    Args:
        rows: Cells of text without blanks at their ends.
        table: The name of the table in errors.
        has_header: Whether the first row is a header.

    Raises:
        DataError: If the table has no rows, one column, or two columns of the same name.
    """

    def __init__(self, rows: Sequence[Sequence[str]], table: str, has_header: bool):
        self.table, self.has_header = table, has_header
        self._values: dict[int, frozenset[str]] = {}
        self.rows = rows[1:] if has_header else rows
        if not self.rows:
            raise self.error(
                "table.empty", "has no rows; expected lines of path,label, with an optional third column split"
            )
        width = len(rows[0]) if has_header else max(map(len, rows))
        self.names = list(rows[0]) if has_header else [f"column {i + 1}" for i in range(width)]
        self.keys = [key(name) if has_header else "-" for name in self.names]
        if len(self.names) < 2:
            seen = f"has rows of 1 cell, such as {self.rows[0][:1]}"
            expected = "path,label, separated by commas, semicolons, tabs or pipes"
            raise self.error("table.one_column", f"{seen}; expected {expected}")
        twice = [name for i, name in enumerate(self.names) if name and name in self.names[:i]]
        if twice:
            seen = f"has two columns {twice[0]!r}; expected different names: rename or remove one column"
            raise self.error("table.same_names", seen, column=twice[0])

    def error(self, code: str, seen: str, **facts: object) -> DataError:
        """Return the error for this table; `seen` is the predicate of its message."""
        return DataError(f"{self.table} {seen}", code=code, table=self.table, **facts)

    def ambiguous(self, role: str, meaning: str, found: Sequence[int]) -> DataError:
        """Return the error for several columns that may have the same role."""
        names = [self.names[i] for i in found]
        seen = f"has several columns that {meaning}: {names}; choose one of them: {override(role, names[0])}"
        return self.error(f"table.several_{role}_columns", seen, columns=tuple(names))

    def lacking(self, role: str, meaning: str, name: str) -> DataError:
        """Return the error for a table without a column of a role; `name` is a column name that would be recognised."""
        seen = f"has no column that is known to {meaning}; its columns are {self.names}"
        cure = f"rename the right column to `{name}`, or choose it: {override(role, 'NAME')}"
        return self.error(f"table.no_{role}s", f"{seen}; {cure}", columns=tuple(self.names))

    @cached_property
    def words(self) -> list[tuple[str, ...]]:
        """The words of each column's name; empty without a header."""
        return [words_of(name) if self.has_header else () for name in self.names]

    def of(self, i: int, most: int | None = None) -> list[str]:
        """Return the cells of column `i`, in the first `most` rows."""
        return [row[i] if i < len(row) else "" for row in self.rows[:most]]

    def values(self, i: int) -> frozenset[str]:
        """Return the distinct cells of column `i`, case-folded."""
        if i not in self._values:  # computed on demand, because most columns of a wide table are never examined
            self._values[i] = frozenset(cell.casefold() for cell in set(self.of(i)))
        return self._values[i]

    def is_constant(self, i: int) -> bool:
        return len(self.values(i)) == 1

    def is_boolean(self, i: int) -> bool:
        return self.values(i) <= TRUE | FALSE

    def is_few(self, i: int) -> bool:
        """Return whether a column has a few distinct values, so that it divides the rows into parts."""
        return 1 < len(self.values(i)) <= min(FEW, len(self.rows) - 1)

    def repeats(self, i: int) -> bool:
        """Return whether a value of the column occurs twice, because groups of one image cannot be separated."""
        cells = list(filter(None, self.of(i)))
        return len(set(cells)) < len(cells)

    def follows(self, i: int, other: int) -> bool:
        """Return whether the cell of column `other` determines that of column `i`."""
        return len(set(zip(self.of(i), self.of(other), strict=True))) == len(set(self.of(other)))

    def same(self, one: int, other: int) -> bool:
        """Return whether two columns distinguish the same classes."""
        return self.follows(one, other) and self.follows(other, one)
