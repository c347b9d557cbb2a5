"""
The operator that generates one image.

Invariant: it submits after everything that can fail without a submit was done. Every later error says what happened to
the money.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest
from airflow_provider_ideogram.api.poll_schedule import EXPECTED_SECONDS
from airflow_provider_ideogram.api.prices import list_price
from airflow_provider_ideogram.api.values import path_text
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached, IdeogramStorageError
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator
from airflow_provider_ideogram.operators.job import IdeogramJobTask
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_ideogram.account.account import TurnAhead
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.admission import Admission
    from airflow_provider_ideogram.jobs.preview import Preview, WantedImage
    from airflow_provider_ideogram.jobs.reconciliation import RetryLater
    from airflow_provider_ideogram.jobs.refusal import OpenRequest
    from airflow_provider_ideogram.jobs.submission import Submitter
    from airflow_provider_ideogram.storage.image_record import ImageRecord


class IdeogramGenerateImageOperator(IdeogramJobTask, IdeogramBaseOperator):
    """
    Generate an image with Ideogram 2a on Segmind and store it in S3. An image costs about 0.05 USD.

    Returns a flat dict with ``uri``, ``sha256``, ``width``, ``seed``, ``cost_usd`` and more. The XCom ``request_id`` is
    pushed on submit. A task that ends with an error of the provider leaves the XCom ``failure``: ``{"reason", "error",
    "advice", "charged", "request_id"}``.

    :param prompt: What the image shows.
    :param magic_prompt_option: ``AUTO``, ``ON`` or ``OFF``: whether the vendor rewrites the prompt.
    :param resolution: One of the model's 78, as ``RESOLUTION_1024_1024`` or ``1024x1024``.
    :param style_type: ``GENERAL``, ``REALISTIC``, ``DESIGN``, ``RENDER_3D`` or ``ANIME``.
    :param seed: 0 to 2147483647; None draws one and records it, so that the image can be generated again.
    :param model: The model's slug.
    :param model_params: Further parameters of a sister model, sent unchanged.
    :param s3_key: A key with ``s3_bucket``, or a full ``s3://bucket/key``. One ending in ``/`` gets
        ``<attempts>-<request_id>.<extension>``, with 8 hex digits by which a retry finds its image, and no image can be
        reused there. At most 955 bytes, 882 with that ending.
    :param s3_bucket: The bucket, None if ``s3_key`` names it.
    :param s3_extra_args: Arguments of ``put_object``, such as ``{"ServerSideEncryption": "AES256"}``.
    :param if_exists: ``reuse`` an object made from the same inputs and pay nothing (an object made from other inputs is
        replaced), ``overwrite`` it, or ``fail`` before the submit.
    :param ideogram_conn_id: The Airflow connection of type ``ideogram``.
    :param aws_conn_id: The Airflow connection of type ``aws``.
    :param deferrable: Wait in the triggerer instead of on a worker. A rate limit is always waited for there.
    :param wait_for_completion: False ends the task on submit, with ``request_id``, ``submitted_at`` and the inputs as
        its result. The ledger keeps the request until a task for the same image, or ``IdeogramRequestSensor``, stores
        it.
    :param poll_interval: Seconds or a timedelta between polls; None follows the observed durations.
    :param timeout: Seconds or a timedelta from the submission until the task fails. The image of a request that was
        not done in time can still be fetched by a later attempt.
    :param durable: Keep a record of each request in S3 until its image is stored, so that no attempt pays twice.
    :param ledger_prefix: The prefix of the records' keys in the target's bucket, at most 64 bytes.
    :param thumbnails: Also store a thumbnail of the image below ``ledger_prefix``, which the gallery shows.
    :param provenance: ``xmp`` marks the image as made by a model, without a change of its pixels: XMP with IPTC's
        digital source type, the model, the request and the date. None stores it as it was received.
    :param on_unknown_submit: What to do about a submit without a response that the account's history does not show:
        ``fail`` until a person clears the task, or ``resubmit`` and risk paying twice.
    :param resubmit_on_5xx: Submit again after an answered 500, 502 or 503, once the account's history shows no such
        request for two minutes; at most three submits in all. False treats it as an unknown submit.
    :param on_content_blocked: ``fail`` or ``skip`` the task if the vendor blocks the content.
    :param on_budget: What to do if a budget of the connection is used up: ``fail``, or ``wait`` in the triggerer until
        its day or month ends. A dataset keeps what it has.
    """

    template_fields: Sequence[str] = ("prompt", "s3_key", "s3_bucket", *IdeogramBaseOperator.template_fields)
    choices: ClassVar[Mapping[str, Sequence[str]]] = {
        **IdeogramBaseOperator.choices,
        "on_content_blocked": ("fail", "skip"),
    }
    flags: ClassVar[Sequence[str]] = (*IdeogramBaseOperator.flags, "wait_for_completion")
    parameters: ClassVar[Sequence[str]] = tuple(CHECKS)

    #: Whether another attempt sends what the first one recorded: for a subclass whose inputs are computed.
    _keeps_first_inputs: ClassVar[bool] = False

    def __init__(
        self,
        *,
        prompt: str,
        s3_key: str | os.PathLike[str] | ObjectStoragePath,
        s3_bucket: str | None = None,
        wait_for_completion: bool = True,
        on_content_blocked: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.s3_key = path_text(s3_key)
        self.s3_bucket = s3_bucket
        self.wait_for_completion = wait_for_completion
        self.on_content_blocked = on_content_blocked
        self._check_arguments()

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the arguments, get or submit the request, and wait for its image or defer."""
        return self._submit_and_wait(context, resumed=None)

    def submit_again(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume after a wait for the rate limit, for another task, or for the account's history."""
        return self._submit_and_wait(context, resumed=event["payload"])

    def _submit_and_wait(self, context: Context, resumed: Mapping[str, Any] | None) -> dict[str, Any]:
        from airflow_provider_ideogram.account.account import TurnAhead
        from airflow_provider_ideogram.jobs.reconciliation import RetryLater
        from airflow_provider_ideogram.jobs.refusal import open_request_of, retried_while_open
        from airflow_provider_ideogram.storage.image_record import ImageRecord

        is_first_slice = resumed is None and context["ti"].try_number <= 1
        with self._failures(context), self._hook() as hook:
            if resumed is None:
                self._check_rendered()
            # The target rendered before the wait: the record of an unknown submit is found by it.
            target = Target.parse(resumed["target"]) if resumed else self._target
            submitter = self._submitter(context, hook, target)
            asked = GenerationRequest.from_inputs(resumed["inputs"]) if resumed else None
            called_at, self._is_submitting = time.time(), True
            try:
                with retried_while_open(lambda: open_request_of(submitter, is_first_slice=is_first_slice)):
                    request = asked or self._request(context, submitter)
                    asking = {"inputs": request.inputs(), "target": target.uri}
                    admission = self._admission(context, hook, target, resumed.get("turn") if resumed else None)
                    result = self._get_or_submit(replace(submitter, admission=admission), request, asking)
            except RetryLater as later:
                since = resumed.get("waiting_since", time.time()) if resumed else time.time()
                self._retry_later(later, {"waiting_since": since, **asking})
            except TurnAhead as ahead:
                self._await_turn(ahead, asking)
            if isinstance(result, ImageRecord):
                return self._succeed(context, result)
            job, poll = result
            self._job = job
            context["ti"].xcom_push(key="request_id", value=job.request_id)
            if job.submitted_at >= called_at:
                self._log_submit(job)
            if not self.wait_for_completion:
                return self._submitted(job, target)
            if self.deferrable and not poll.settled:
                self._defer_until_done(job)
            self._wait(hook, job, poll)
            return self._finish(context, hook, job, poll)

    def _open_request(self, context: Context) -> OpenRequest | None:
        from airflow_provider_ideogram.jobs.refusal import NOT_READABLE, NOT_RECORDED, open_request_of

        if not self.durable:
            return NOT_RECORDED
        try:
            submitter = self._submitter(context, self._hook(), self._target)
        except IdeogramStorageError:
            return NOT_READABLE
        return open_request_of(submitter, is_first_slice=False)

    def planned_images(self, preview: Preview, owner: str) -> Iterable[WantedImage]:  # noqa: ARG002
        """Return the task's image."""
        from airflow_provider_ideogram.jobs.preview import WantedImage

        self._check_rendered()
        request = None if self._keeps_first_inputs else GenerationRequest.from_inputs(self._operator_inputs())
        ledger_prefix = self.ledger_prefix if self.durable else None
        return [WantedImage(self._target, request, self.model, self.if_exists, ledger_prefix, owner)]

    @property
    def ledger_url(self) -> str:
        """The address below which the ledger's records are."""
        return f"s3://{self._target.bucket}/{self.ledger_prefix}"

    @property
    def _target(self) -> Target:
        return Target.parse(self.s3_key, self.s3_bucket)

    def _request(self, context: Context, submitter: Submitter) -> GenerationRequest:  # noqa: ARG002
        """Return the request; a subclass that computes it may ask the submitter for an earlier attempt's request."""
        return GenerationRequest.from_inputs(self._operator_inputs())

    def _operator_inputs(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CHECKS}

    def _submitter(self, context: Context, hook: IdeogramHook, target: Target) -> Submitter:
        """Return the submitter of the target's request, without the account's limits."""
        from airflow_provider_ideogram.jobs.admission import UNLIMITED
        from airflow_provider_ideogram.jobs.submission import Submitter

        return Submitter(
            hook,
            self._store,
            self._ledger(target),
            target,
            owner=owner_id(context["ti"]),
            max_tries=context["ti"].max_tries,
            if_exists=self.if_exists,
            resubmit=self.on_unknown_submit == "resubmit",
            resubmit_on_5xx=self.resubmit_on_5xx,
            tried_since=_tried_since(context),
            keeps_first_inputs=self._keeps_first_inputs,
            admission=UNLIMITED,
        )

    def _admission(self, context: Context, hook: IdeogramHook, target: Target, turn: Sequence[Any] | None) -> Admission:
        """
        Return what admits the submits.

        :param turn: The task's place among those that wait for the account's rate limit.
        """
        from airflow_provider_ideogram.account.admission import AccountAdmission
        from airflow_provider_ideogram.account.turns import Turn
        from airflow_provider_ideogram.jobs.admission import UNLIMITED

        account = self._account(context, hook, target.bucket)
        return AccountAdmission(account, Turn.from_json(turn)) if account else UNLIMITED

    def _log_submit(self, job: Job) -> None:
        request = job.request
        if request is None:
            return
        price = list_price(request.model)
        self.log.info(
            "Submitted request %s: %s, style %s, seed %s, %s, %s; expected in about %.0f s",
            job.request_id,
            request.resolution,
            request.style_type,
            request.seed,
            request.model,
            "at an unknown price" if price is None else f"about {price} USD",
            EXPECTED_SECONDS,
        )

    def _submitted(self, job: Job, target: Target) -> dict[str, Any]:
        """Return what a sensor needs to wait for the request."""
        from airflow_provider_ideogram.storage.image_record import iso_utc

        return {
            "request_id": job.request_id,
            "submitted_at": iso_utc(job.submitted_at),
            **(job.request.inputs() if job.request else {}),
            # The fingerprint is of the inputs before a seed was drawn.
            "fingerprint": job.fingerprint,
            "ledger_uri": replace(target, key=job.record_key).uri if job.record_key else None,
        }

    def _retry_later(self, later: RetryLater, payload: Mapping[str, Any]) -> NoReturn:
        """Defer until the next attempt to submit; fail after PATIENCE_SECONDS."""
        if time.time() + later.delay > payload["waiting_since"] + PATIENCE_SECONDS:
            raise later.error
        self.log.warning("%s. Next attempt in %.0f s", later, later.delay)
        self._defer({}, time.time() + later.delay, payload, "submit_again")

    def _await_turn(self, ahead: TurnAhead, asking: Mapping[str, Any]) -> NoReturn:
        """Defer until the account's rate limit has a slot for this task, however many wait before it."""
        from airflow_provider_ideogram.account.trigger import MAX_WAIT_SECONDS, IdeogramTurnTrigger

        self.log.info("%s: the task waits for its turn", ahead)
        turn = ahead.turn.to_json()
        deadline = time.time() + MAX_WAIT_SECONDS
        payload = {**asking, "turn": turn}
        trigger = IdeogramTurnTrigger(turn=turn, deadline=deadline, aws_conn_id=self.aws_conn_id, payload=payload)
        self._defer_to(trigger, "submit_again")

    def _get_or_submit(
        self, submitter: Submitter, request: GenerationRequest, asking: Mapping[str, Any]
    ) -> ImageRecord | tuple[Job, RequestPoll]:
        """Get or submit the request, or defer until the window of a budget ends that is used up."""
        from airflow_provider_ideogram.account.store import AccountContended
        from airflow_provider_ideogram.jobs.reconciliation import RETRY_SECONDS, RetryLater

        try:
            return submitter.get_or_submit(request)
        except AccountContended as contended:
            raise RetryLater(random.uniform(RETRY_SECONDS / 2, RETRY_SECONDS), contended) from None
        except IdeogramBudgetReached as reached:
            if self.on_budget == "wait":
                self._await_budget(reached, asking)
            raise

    def _await_budget(self, reached: IdeogramBudgetReached, asking: Mapping[str, Any]) -> NoReturn:
        """Defer until the budget's window ends; the tasks that wait for it come back over a minute."""
        from airflow_provider_ideogram.account.budget import return_time

        self.log.warning("%s. The task waits until the budget's window ends", reached.reason)
        self._defer({}, return_time(reached.ends_at), asking, "submit_again")


def _tried_since(context: Context) -> float | None:
    """Return the earliest start of the task's attempts in seconds since the epoch, None if it is unknown."""
    is_first = context["ti"].try_number <= 1
    started = getattr(context["ti"], "start_date", None) if is_first else context["dag_run"].start_date
    return None if started is None else float(started.timestamp())
