"""Every command of the tree offers the same: its own options, and help."""

import pytest
from typer.testing import CliRunner

from services.cli.main import _COMMANDS, app


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_no_command_offers_to_install_completion(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "--help" in done.output
    assert "completion" not in done.output
