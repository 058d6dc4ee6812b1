"""Milvus filter expressions. Every value that enters one passes through `literal`."""

from collections.abc import Iterable

# The escapes that Milvus and Milvus Lite both understand; Lite refuses \u, and both take every
# other character as it stands.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def literal(value: str | float | bool) -> str:
    """`value` as a literal of Milvus' expression language; a string with its quotes.

    Numbers are finite, and an integer is one that 64 bits hold.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    return f'"{value.translate(_ESCAPES)}"'


def equals(field: str, value: str) -> str:
    """Rows whose `field` is `value`, in parentheses."""
    return f"({field} == {literal(value)})"


def differs(field: str, value: str) -> str:
    """Rows whose `field` is not `value`, in parentheses."""
    return f"({field} != {literal(value)})"


def below(field: str, number: int) -> str:
    """Rows whose `field` is less than `number`, in parentheses."""
    return f"({field} < {number})"


def following(field: str, value: str) -> str:
    """Rows whose `field` comes behind `value`, character by character, in parentheses."""
    return f"({field} > {literal(value)})"


def between(field: str, first: int, last: int) -> str:
    """Rows whose `field` is a number from `first` to `last`, in parentheses."""
    return f"({first} <= {field} and {field} <= {last})"


def one_of(field: str, values: Iterable[str]) -> str:
    """Rows whose `field` is among `values`, in parentheses."""
    return f"({field} in [{', '.join(map(literal, values))}])"
