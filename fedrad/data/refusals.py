"""One error for all rows that break a rule, so that nobody mends them one a run."""

from collections.abc import Sequence

from fedrad.errors import DataError

__all__ = ["rows_error"]

_SHOWN = 5


def rows_error(
    file: str, problems: Sequence[tuple[int, str]], *, rule: str, column: int = 0
) -> DataError:
    """Return the error that tells the first problem in words, and all rows by number.

    Args:
        file: the table's name.
        problems: a row's number and what is wrong with it, at least one, in the file's order.
        rule: the rule's short name; it may leave the site, and so may the rows' numbers.
        column: the number, from 1, of the one that the problems are in, which may leave too.

    >>> str(rows_error("a.csv", [(3, "no number"), (7, "no number either")], rule="number"))
    'a.csv row 3: no number; 2 such rows: 3, 7'
    """
    row, text = problems[0]
    numbers = tuple(number for number, _ in problems[:_SHOWN])
    told = f"{file} row {row}: {text}"
    if len(problems) > 1:
        more = ", ..." if len(problems) > _SHOWN else ""
        told += f"; {len(problems)} such rows: {', '.join(map(str, numbers))}{more}"
    return DataError(told, rule=rule, rows=numbers, column=column)
