"""
What the scheduler loads once, so that the tasks it forks need not: it halves the work of an attempt.

Airflow imports a module of this name when it starts, if there is one.
"""

from __future__ import annotations

import functools

import aiohttp  # noqa: F401
import boto3
import botocore.loaders
import PIL.Image

import airflow_provider_ideogram.api.polling  # noqa: F401

PIL.Image.init()
# The descriptions of AWS's services are the larger part of what a new S3 client reads.
botocore.session.create_loader = functools.cache(botocore.loaders.create_loader)
boto3.client("s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
