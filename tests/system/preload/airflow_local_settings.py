"""
Imports and settings of all processes of the system test's Airflow, which imports a module of this name when it starts.

The imports are done once by the scheduler, or by Celery's workers, instead of by each forked task. The emulator's
lifetime of records replaces the vendor's hour, before other modules import the constant.
"""

from __future__ import annotations

import functools
import os

import boto3
import botocore.loaders

from airflow_provider_ideogram.api import polling

polling.RESULT_LIFETIME = float(os.environ["SYSTEM_TEST_RECORD_SECONDS"])

import airflow_provider_ideogram.preload  # noqa: E402, F401

# Most of the files that a new S3 client reads are descriptions of AWS's services.
botocore.session.create_loader = functools.cache(botocore.loaders.create_loader)
boto3.client("s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
