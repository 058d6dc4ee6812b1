"""Settings that are lists in one line."""


def listed(said: str) -> list[str]:
    """The parts of `said`, which commas separate; empty ones are none."""
    return [part for part in map(str.strip, said.split(",")) if part]
