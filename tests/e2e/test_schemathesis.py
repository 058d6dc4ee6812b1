"""What schemathesis makes of the operations that ask the model, with a real one behind them."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Stack
from tests.schemathesis_run import findings

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.long
def test_no_request_breaks_the_stack_and_every_answer_is_as_documented(
    stack: Stack, tmp_path: Path
) -> None:
    if found := findings(stack.gateway_url.removesuffix("/v1"), CONFIGURATION, tmp_path):
        pytest.fail(found, pytrace=False)
