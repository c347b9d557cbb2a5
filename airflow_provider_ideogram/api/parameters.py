"""
The parameters of a request, checked before anything is sent.

Invariant: a :class:`GenerationRequest` can be sent; invalid values are refused when it is created.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_ideogram.api.values import MISSING_TEXTS, is_missing_number, shown, whole_number
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

DEFAULT_MODEL = "ideogram-2a-txt-2-img"

MAGIC_PROMPT_OPTIONS = ("AUTO", "ON", "OFF")
STYLE_TYPES = ("GENERAL", "REALISTIC", "DESIGN", "RENDER_3D", "ANIME")

_SIZES = """
    512x1536 576x1408 576x1472 576x1536 640x1024 640x1344 640x1408 640x1472 640x1536
    704x1152 704x1216 704x1280 704x1344 704x1408 704x1472 720x1280 736x1312 768x1024 768x1088 768x1152 768x1216
    768x1232 768x1280 768x1344 832x960 832x1024 832x1088 832x1152 832x1216 832x1248 864x1152 896x960 896x1024
    896x1088 896x1120 896x1152 960x832 960x896 960x1024 960x1088 1024x640 1024x768 1024x832 1024x896 1024x960
    1024x1024 1088x768 1088x832 1088x896 1088x960 1120x896 1152x704 1152x768 1152x832 1152x864 1152x896 1216x704
    1216x768 1216x832 1232x768 1248x832 1280x704 1280x720 1280x768 1280x800 1312x736 1344x640 1344x704 1344x768
    1408x576 1408x640 1408x704 1472x576 1472x640 1472x704 1536x512 1536x576 1536x640
"""
_SIZE_OF_RESOLUTION = {f"RESOLUTION_{size.replace('x', '_')}": size for size in _SIZES.split()}
RESOLUTIONS = tuple(_SIZE_OF_RESOLUTION)

#: Ideogram's own range. Segmind's pages name smaller ones that contradict each other; a seed that the API refuses costs
#: nothing.
MAX_SEED = 2**31 - 1
#: Seeds are drawn from the whole range that the vendor's page of the model names: equal seeds of equal inputs can't be
#: told apart in the account's history.
DRAWN_SEEDS = (100, 999_999)
#: The vendor documents no limit. This one catches a whole document in place of a prompt.
MAX_PROMPT_CHARACTERS = 10_000

_SIZE = re.compile(r"(RESOLUTION_)?(\d{1,5})(?(1)_|\s*[xX\u00d7]\s*)(\d{1,5})")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Sister models that take ``1024x1024`` instead of ``RESOLUTION_1024_1024``.
_MODELS_WITH_SIZES = ("ideogram-3", "ideogram-4")
#: Parameters of the operators; model_params must not give them a second time.
_OWN_PARAMETERS = ("prompt", "magic_prompt_option", "resolution", "seed", "style_type")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """
    A request in the API's own terms, checked on creation.

    :param prompt: What the image shows; not blank, at most 10,000 characters, and not exactly ``None`` or ``nan``.
    :param magic_prompt_option: ``AUTO``, ``ON`` or ``OFF``: whether the vendor rewrites the prompt.
    :param resolution: One of the model's 78, as ``RESOLUTION_1024_1024`` or ``1024x1024``.
    :param style_type: ``GENERAL``, ``REALISTIC``, ``DESIGN``, ``RENDER_3D`` or ``ANIME``.
    :param seed: 0 to 2147483647, also as text, float or Decimal; None leaves the choice to :meth:`with_seed`.
    :param model: The model's slug. ``resolution`` and the options are those of Ideogram 2a; None leaves each out of the
        body for a sister model that does not have it.
    :param model_params: Further parameters of a sister model, sent unchanged.
    :raises IdeogramInvalidInput: If any value is not valid; the message names all of them.
    """

    prompt: str
    magic_prompt_option: str | None = "AUTO"
    resolution: str | None = "RESOLUTION_1024_1024"
    style_type: str | None = "GENERAL"
    seed: int | None = None
    model: str = DEFAULT_MODEL
    model_params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Normalise every value, or raise one error with the problems of all of them."""
        problems: list[str] = []
        for name, check in CHECKS.items():
            try:
                object.__setattr__(self, name, check(getattr(self, name)))
            except ValueError as problem:
                problems.append(f"{name}: {problem}")
        if problems:
            raise IdeogramInvalidInput.of(problems)

    def with_seed(self, rng: random.Random | random.SystemRandom) -> GenerationRequest:
        """Return the request with a seed, drawn if it has none, so that the image can be generated again."""
        return self if self.seed is not None else replace(self, seed=rng.randint(*DRAWN_SEEDS))

    def as_asked(self, fingerprint: str | None) -> GenerationRequest:
        """Return the request as the user gave it: without the seed, unless the fingerprint is that of a given seed."""
        return self if self.fingerprint == fingerprint else replace(self, seed=None)

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the request to the API, without parameters that are None."""
        own = {name: getattr(self, name) for name in _OWN_PARAMETERS if getattr(self, name) is not None}
        if self.model.startswith(_MODELS_WITH_SIZES) and "resolution" in own:
            own["resolution"] = _SIZE_OF_RESOLUTION[own["resolution"]]
        return {**own, **self.model_params}

    def inputs(self) -> dict[str, Any]:
        """Return the values that :meth:`from_inputs` takes, as plain JSON."""
        return {name: getattr(self, name) for name in CHECKS} | {"model_params": dict(self.model_params)}

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> GenerationRequest:
        """Make the request again from what :meth:`inputs` returned."""
        return cls(**inputs)

    @classmethod
    def from_body(cls, model: str, body: Mapping[str, Any]) -> GenerationRequest:
        """
        Make the request again from the :meth:`body` that was sent.

        :raises IdeogramInvalidInput: If it is not one that could have been sent.
        """
        own: dict[str, Any] = {name: body.get(name) for name in _OWN_PARAMETERS}
        others = {name: value for name, value in body.items() if name not in own}
        return cls(**own, model=model, model_params=others)

    @property
    def fingerprint(self) -> str:
        """
        The SHA-256 (hex) of the inputs: equal inputs have equal fingerprints.

        Before a seed is drawn it stands for any seed.
        """
        canonical = json.dumps(self.inputs(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def check_prompt(value: Any) -> str:
    """Return the prompt; raise ValueError if it is no text, blank, longer than 10,000 characters or can't be stored."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("must not be empty")
    if value.strip() in MISSING_TEXTS:
        raise ValueError(f"is {value!r}, which a template renders for a missing value")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"has {len(value):,} characters, at most {MAX_PROMPT_CHARACTERS:,} are sent")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds a lone surrogate, which has no encoding in UTF-8")
    if "\0" in value:
        raise ValueError("holds a NUL character, which Airflow's database may refuse after the image was paid")
    return value


def check_magic_prompt_option(value: Any) -> str | None:
    """Return the option's name; raise ValueError if the API has none such."""
    return _one_of(value, MAGIC_PROMPT_OPTIONS)


def check_style_type(value: Any) -> str | None:
    """Return the style's name; raise ValueError if the API has none such."""
    return _one_of(value, STYLE_TYPES)


def check_resolution(value: Any) -> str | None:
    """Return the name ``RESOLUTION_<width>_<height>``, also for ``<width>x<height>``; raise ValueError if unknown."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and (size := _SIZE.fullmatch(text)):
        width, height = int(size[2]), int(size[3])
        text = f"RESOLUTION_{width}_{height}"
        if text not in _SIZE_OF_RESOLUTION:
            near = _nearest_resolution(width, height)
            near = near if size[1] else _SIZE_OF_RESOLUTION[near]
            raise ValueError(f"{shown(value)} is not one of the model's 78 resolutions. The nearest is {near}")
    return _one_of(text, RESOLUTIONS)


def check_seed(value: Any) -> int | None:
    """Return the seed as an integer, None for none; raise ValueError if it is no integer or out of range."""
    if value is None or is_missing_number(value) or (isinstance(value, str) and value in ("", *MISSING_TEXTS)):
        return None
    seed = whole_number(value)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"{shown(seed)} is not within 0..{MAX_SEED}")
    return seed


def check_model(value: Any) -> str:
    """Return the model's slug; raise ValueError if it could not be a part of the API's path."""
    if not isinstance(value, str) or not _SLUG.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a model's slug, such as {DEFAULT_MODEL!r}")
    return value


def check_model_params(value: Any) -> dict[str, Any]:
    """Return the parameters as a dict; raise ValueError if they are no JSON object or name a parameter twice."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("must be a mapping of parameter names to values")
    twice = sorted(set(value) & set(_OWN_PARAMETERS))
    if twice:
        raise ValueError(f"{', '.join(twice)} must be given as parameters of their own")
    try:
        json.dumps(dict(value), allow_nan=False, ensure_ascii=False).encode()
        _check_names(value)
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"cannot be sent as JSON: {problem}") from None
    return dict(value)


def _check_names(value: Any) -> None:
    """Raise ValueError for a name that is not text: JSON would convert it, which changes the fingerprint."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is no text")
            _check_names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_names(item)


#: The check of each parameter: takes a value, returns its normal form, raises ValueError with what is wrong.
#: Operators use them one by one while a DAG is parsed, where some values are still templates.
CHECKS = {
    "prompt": check_prompt,
    "magic_prompt_option": check_magic_prompt_option,
    "resolution": check_resolution,
    "style_type": check_style_type,
    "seed": check_seed,
    "model": check_model,
    "model_params": check_model_params,
}


def did_you_mean(value: str, valid: Sequence[str]) -> str:
    """Return a sentence that names the nearest valid value, or all of them if none is near."""
    folded = {name.casefold(): name for name in valid}
    near = difflib.get_close_matches(value.strip().casefold(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[near[0]]!r}?" if near else f"Valid are {', '.join(valid)}"


def check_choice(value: Any, valid: Sequence[str]) -> str:
    """Return one of the valid texts; raise ValueError that names the nearest one."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}. Valid are {', '.join(valid[:5])}")
    if value not in valid:
        raise ValueError(f"{shown(value)} is not valid. {did_you_mean(value, valid)}")
    return value


def _one_of(value: Any, valid: Sequence[str]) -> str | None:
    return None if value is None else check_choice(value, valid)


def _nearest_resolution(width: int, height: int) -> str:
    """Return the resolution whose width and height together differ least, in pixels."""

    def distance(name: str) -> float:
        own_width, own_height = map(int, _SIZE_OF_RESOLUTION[name].split("x"))
        return abs(own_width - width) + abs(own_height - height)

    return min(RESOLUTIONS, key=distance)
