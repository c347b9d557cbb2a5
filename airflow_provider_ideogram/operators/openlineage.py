"""
The inputs and outputs of tasks for OpenLineage.

Invariant: imported only when the openlineage provider, which is optional, asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    InputDataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
)
from airflow.providers.openlineage.extractors import OperatorLineage

from airflow_provider_ideogram.storage.target import Target


def lineage_of_image(result: Mapping[str, Any] | None) -> OperatorLineage[Any, Any]:
    """
    Return the image as an output.

    :param result: The task's XCom, None if it stored no image.
    """
    if result is None:
        return OperatorLineage()
    return OperatorLineage(outputs=[_output(result["bucket"], result["key"], files=1, size=result["size_bytes"])])


def lineage_of_dataset(prompts_path: str | None, result: Mapping[str, Any] | None) -> OperatorLineage[Any, Any]:
    """
    Return the file of prompts as an input, and the images' prefix and the manifest as outputs.

    :param prompts_path: The file, None if the rows were passed directly.
    :param result: The task's XCom, None if it did not succeed.
    """
    inputs: list[Dataset] = [] if prompts_path is None else [_input(prompts_path)]
    if result is None:
        return OperatorLineage(inputs=inputs)
    manifest = Target.parse(result["manifest_uri"])
    prefix = manifest.key.rpartition("/")[0]
    images = _output(manifest.bucket, prefix, files=result["generated"] + result["reused"])
    return OperatorLineage(inputs=inputs, outputs=[images, _output(manifest.bucket, manifest.key, files=1)])


def _input(path: str) -> Dataset:
    if path.startswith("s3://"):
        file = Target.parse(path)
        return InputDataset(namespace=f"s3://{file.bucket}", name=file.key)
    return InputDataset(namespace="file", name=str(Path(path).absolute()))


def _output(bucket: str, key: str, *, files: int, size: int | None = None) -> Dataset:
    statistics = OutputStatisticsOutputDatasetFacet(fileCount=files, size=size)
    return OutputDataset(namespace=f"s3://{bucket}", name=key, outputFacets={"outputStatistics": statistics})
