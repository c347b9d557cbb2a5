"""S3: objects, the addresses of images, and the storage and description of images."""

from __future__ import annotations
