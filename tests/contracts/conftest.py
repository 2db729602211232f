"""Fixtures of the contract tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests import services


@pytest.fixture
def database_access(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let Django connect to the servers that the test itself names."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session")
def s3_server(s3_models: None) -> Iterator[services.S3Server]:
    with services.s3() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(s3_models: None) -> Iterator[services.S3Server]:
    """S3 with Object Lock and policies; slower to start than the other."""
    with services.moto_s3() as server:
        yield server


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[services.SFTPServer]:
    with services.sftp() as server:
        yield server
