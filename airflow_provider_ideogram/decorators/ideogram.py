"""
``@task.ideogram``: a function returns the prompt.

Invariant: the function's result is sent unchanged, never rendered as a template, and recorded before the submit;
another attempt sends the same without calling the function again, until a person clears the task. If two attempts call
it at once, which Airflow can bring about, both use the result that is recorded first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest, did_you_mean
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_ideogram.jobs.submission import Submitter


class _IdeogramDecoratedOperator(DecoratedOperator, IdeogramGenerateImageOperator):
    """
    Generate the image whose prompt a function returns.

    :param python_callable: Returns a prompt, or a mapping with ``prompt`` and any parameter of the request.
    :param op_args: Its positional arguments (templated).
    :param op_kwargs: Its keyword arguments (templated).
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in IdeogramGenerateImageOperator.template_fields if name != "prompt"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **IdeogramGenerateImageOperator.template_fields_renderers,
    }
    _keeps_first_inputs = True
    custom_operator_name = "@task.ideogram"
    # The function returns the prompt.
    parameters = IdeogramBaseOperator.parameters
    # Missing in Airflow 3.0 alone, whose DecoratedOperator.execute() passes it on.
    xcom_push = getattr(DecoratedOperator, "xcom_push", None)

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "prompt" in kwargs:
            raise IdeogramInvalidInput.of(["prompt: is returned by the decorated function; remove the argument"])
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, prompt="", **kwargs)

    def _request(self, context: Context, submitter: Submitter) -> GenerationRequest:
        """Return the request of an earlier attempt, or else that of the function's result."""
        earlier = submitter.find_previous_request()
        if earlier is not None:
            self.log.info("An earlier attempt recorded its request: the function is not called again")
            return earlier
        return GenerationRequest.from_inputs(self._operator_inputs() | _inputs_of(self._call(context)))

    def _call(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        return self.python_callable(*self.op_args, **kwargs)


def _inputs_of(returned: Any) -> dict[str, Any]:
    """Return the parameters of a function's result."""
    if isinstance(returned, str):
        return {"prompt": returned}
    if not isinstance(returned, Mapping):
        problem = f"it returned {type(returned).__name__}, not a prompt or a mapping of parameters"
        raise IdeogramInvalidInput.of([f"the decorated function: {problem}"])
    unknown = [f"{name!r}. {did_you_mean(str(name), tuple(CHECKS))}" for name in returned if name not in CHECKS]
    if unknown:
        raise IdeogramInvalidInput.of([f"the decorated function: it returned an unknown {name}" for name in unknown])
    if "prompt" not in returned:
        raise IdeogramInvalidInput.of(["the decorated function: it returned a mapping without a prompt"])
    return dict(returned)


def ideogram_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Turn a function that returns a prompt, or a mapping with ``prompt`` and further parameters, into a task.

    :param python_callable: The function.
    :param kwargs: The arguments of
        :class:`~airflow_provider_ideogram.operators.image.IdeogramGenerateImageOperator`, except ``prompt``.
    """
    # Without it Airflow unrolls the XCom of a function annotated to return a mapping.
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_IdeogramDecoratedOperator,
        **{"multiple_outputs": False, **kwargs},
    )
