from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramInvalidRecord, IdeogramStorageError
from airflow_provider_ideogram.reviews import store as store_module
from airflow_provider_ideogram.reviews.review import Review
from airflow_provider_ideogram.reviews.store import ReviewStore
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import answered, conditions_refused, header_required
from tests.unit.reviews.examples import OWNER, entry, review

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def store(client: S3Client, bucket: str) -> ReviewStore:
    """Return the objects of a review that does not exist yet."""
    return ReviewStore.of(ObjectStore(client), bucket, "_ideogram/", OWNER)


def _there(found: Review | None) -> Review:
    assert found is not None
    return found


def test_address_belongs_to_the_task_instance(store: ReviewStore) -> None:
    assert store.uri.startswith(f"s3://{store.prefix.bucket}/_ideogram/.reviews/")
    assert ReviewStore.of(store._objects, store.prefix.bucket, "_ideogram/", f"{OWNER}2").uri != store.uri


def test_review_and_images_are_read_as_they_were_written(store: ReviewStore) -> None:
    assert (store.read(), store.version()) == (None, None)
    store.write_images([{"row": 0, "prompt": "é"}, {"row": 1}])
    store.update(lambda _: review())
    first = store.version()
    assert store.read() == review()
    assert list(store.read_images()) == [{"row": 0, "prompt": "é"}, {"row": 1}]
    assert store.update(lambda _: None) == review()
    assert store.version() == first


def test_no_decision_of_several_people_is_lost(store: ReviewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAUSES", (0.001, 1.0))
    images = [f"{who}-{number}" for who in "xyz" for number in range(5)]
    store.update(lambda _: review(*images))

    def decide(who: str) -> None:
        for number in range(5):
            one = entry(f"{who}-{number}", "approve", by=who)

            def change(found: Review | None) -> Review:
                _there(found).add([one])  # noqa: B023
                return _there(found)

            store.update(change)

    threads = [threading.Thread(target=decide, args=(who,)) for who in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {image: one.by for image, one in _there(store.read()).decisions().items()} == {
        image: image[0] for image in images
    }


def test_contention_without_an_end_is_an_error(store: ReviewStore, client: S3Client) -> None:
    impatient = ReviewStore(store._objects, store.prefix, patience=-1.0)
    with answered(client, "PutObject", 412, "PreconditionFailed"), pytest.raises(IdeogramStorageError, match="others"):
        impatient.update(lambda _: review())


def test_store_without_conditional_writes_is_an_error(store: ReviewStore, client: S3Client) -> None:
    with conditions_refused(client), pytest.raises(IdeogramInvalidInput, match="no conditional writes"):
        store.update(lambda _: review())
    assert store.read() is None


@pytest.mark.parametrize("body", [b"", b"[]", b'{"version": 9}', b'{"version": 1, "entries": [{}]}'])
def test_object_of_another_form_is_an_error(store: ReviewStore, client: S3Client, body: bytes) -> None:
    client.put_object(Bucket=store.prefix.bucket, Key=f"{store.prefix.key}review.json", Body=body)
    with pytest.raises(IdeogramInvalidRecord, match="can't be understood"):
        store.read()


def test_what_the_bucket_requires_goes_with_every_write(store: ReviewStore, client: S3Client) -> None:
    required: dict[str, Any] = {"ServerSideEncryption": "AES256", "ACL": "public-read"}
    with header_required(client, "x-amz-server-side-encryption"):
        store.update(lambda _: review(write_args=required))
    assert _there(store.read()).write_args == required
