"""The account that a first `gatepost up` makes, so that there is a mailbox to send to."""

from __future__ import annotations

import secrets
from pathlib import Path

from gatepost.policy.v1 import directory_pb2 as pb
from gatepost.policy.v1.directory_pb2_grpc import DirectoryServiceStub
from services.cli.connection import connect
from services.cli.failure import CliError, Exit
from services.cli.up.data_folder import write_private
from services.cli.up.laptop import ACCOUNT
from services.cli.up.screen import password_file


def ensure_account(data: Path) -> str:
    """Make the account if it is not there. Returns its password when it was made just now."""
    with connect("policy", server="", data=data, token_file=None) as connection:
        directory = DirectoryServiceStub(connection.channel)
        try:
            connection.call(directory.GetAccount, pb.GetAccountRequest(address=ACCOUNT))
        except CliError as error:
            if error.exit_code is not Exit.NOT_FOUND:
                raise
        else:
            return ""
        password = secrets.token_urlsafe(12)
        write_private(password_file(data), password + "\n")
        request = pb.CreateAccountRequest(address=ACCOUNT, password=password)
        connection.call(directory.CreateAccount, request)
    return password
