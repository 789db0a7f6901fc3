"""An S3 for tests: moto's server, in a thread of this process."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest

_numbers = itertools.count(1)
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "hunter2-of-the-tests"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a store in which buckets can be made."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The storage URL of an empty prefix, in a bucket of its own."""
    import boto3

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"llmops-test-{next(_numbers)}"
    client = boto3.client("s3", endpoint_url=f"http://{s3_server}", region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    client.close()
    return f"parquet:s3://{bucket}/a=b spans?endpoint_override={s3_server}&region=us-east-1"
