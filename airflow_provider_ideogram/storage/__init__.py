"""The image's way: from the vendor's host, through one worker's bounded memory, to S3."""

from __future__ import annotations
