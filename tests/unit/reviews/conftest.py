"""The S3 fixtures of this package's tests."""

from tests.support.s3 import bucket, client

__all__ = ["bucket", "client"]
