"""How a setting is defined: once, with its type, range and default, and a docstring below it.

A section is a frozen dataclass that checks itself, by pydantic. From the same definition come the
JSON schema (`voxmill.config.schema`) and the page of the docs (`voxmill.config.page`). Docstrings
describe the settings, since an edited docstring reruns no job.
"""

import dataclasses
import importlib
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.paths import advice

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Count = Annotated[Whole, Field(ge=1)]
Seed = Annotated[Whole, Field(ge=0)]
TripleVox = tuple[Count, Count, Count]
TripleUm = tuple[Positive, Positive, Positive]
_BOUNDS = r"\s*\d+\s*:\s*\d+\s*"
Region = Annotated[
    Text,
    Field(
        pattern=rf"^{_BOUNDS},{_BOUNDS},{_BOUNDS}$",
        json_schema_extra={"expected": 'a box "z0:z1, y0:y1, x0:x1" in voxels, half-open'},
    ),
]
_BOX = f"{_BOUNDS},{_BOUNDS},{_BOUNDS}"
Regions = Annotated[
    Text,
    Field(
        pattern=rf"^{_BOX}(;{_BOX})*$",
        json_schema_extra={
            "expected": 'a box "z0:z1, y0:y1, x0:x1" in voxels, half-open, or several with '
            "semicolons between"
        },
    ),
]
Name = Annotated[
    Text,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=100,
    ),
]

_BRACES = re.compile(r"\{\s*[.\w]+\s*(,[^{}]*(\{\d+(,\d+)?\}[^{}]*)*)?\}")


def _file_path(path: str) -> str:
    """Refuse what Snakemake or a file system takes for something else."""
    if any(unicodedata.category(letter) == "Cc" for letter in path):
        raise SettingError("", f"expected a path in one line of plain letters, found {path!r:.200}")
    if max(map(len, map(os.fsencode, path.split("/")))) > _LONGEST_NAME_BYTES:
        raise SettingError(
            "",
            f"expected names of at most {_LONGEST_NAME_BYTES} bytes, found {path[:100]}...",
        )
    if match := _BRACES.search(path):
        todo = (
            "Rename the file or folder without braces, or make a link to it (`ln -s`) and give the "
            "link"
        )
        if "${" in path:
            todo = advice(path).removesuffix(".")
        raise SettingError("", f"{path}: Snakemake takes {match.group()} for a wildcard. {todo}")
    return path


# What Linux file systems allow.
_LONGEST_NAME_BYTES = 255
FilePath = Annotated[
    str, Field(strict=True, min_length=1, max_length=4000), AfterValidator(_file_path)
]

T = TypeVar("T")
# An empty section (`tiles:` with nothing under it) means its defaults.
OrEmpty = Annotated[T, BeforeValidator(lambda value: {} if value is None else value)]


class SettingError(VoxmillError):
    """A setting that is refused.

    Parameters
    ----------
    key : str
        The dotted key, from where the check began; "" for the whole section.
    problem : str
        What was expected and found, and what to do.
    source : str
        What the settings come from, such as a file.
    """

    def __init__(self, key: str, problem: str, source: str = ""):
        self.key, self.problem, self.source = key, problem, source
        super().__init__(": ".join(part for part in (source, key, problem) if part))


def rounded(number: float) -> str:
    """A number as an error shows it, however large it is.

    >>> rounded(123456), rounded(10**400)
    ('1.23e+05', 'more than 1e308')
    """
    try:
        return f"{number:.3g}"
    except OverflowError:
        return "more than 1e308"


def setting(*, default: Any = None, factory: Any = None, **constraints: Any) -> Any:
    """A setting with its default and what pydantic's `Field` knows, such as `gt` and `le`."""
    if factory is not None:
        return Field(default_factory=factory, **constraints)
    return Field(default, **constraints)


class _Speaking(type):
    """Makes a constructor's refusal the one error that a user reads."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        # By name, so that an error names the key; too many are the constructor's to refuse.
        names = [field.name for field in dataclasses.fields(cast(Any, cls))]
        content = dict(zip(names, args, strict=False)) | kwargs
        try:
            return super().__call__(*args[len(names) :], **content)
        except pydantic.ValidationError as error:
            raise refusal(cls, error, content, cast(Any, cls).KEY) from None


class Section(metaclass=_Speaking):
    """Base of all sections of settings."""

    KEY: ClassVar[str] = ""

    @classmethod
    def from_dict(
        cls, content: Mapping[Any, Any], key: str | None = None, source: str = ""
    ) -> Self:
        """Checked settings from a plain dict, as YAML or JSON holds them.

        Parameters
        ----------
        content : dict
        key : str, optional
            Where the section stands; by default the name that the class has for itself.
        source : str
            What errors call the file.

        Raises
        ------
        SettingError
            Names the key, what was expected, what was found and what to do.
        """
        try:
            made: Self = cls.__pydantic_validator__.validate_python(content)  # type: ignore[attr-defined]
            return made
        except pydantic.ValidationError as error:
            raise refusal(cls, error, content, cls.KEY if key is None else key, source) from None

    def plain(self) -> dict[str, Any]:
        """The settings as a nested dict of JSON's types, without those that are None."""
        return {
            field.name: _plain(value)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


SECTIONS: dict[str, Any] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def section(key: str) -> Callable[[type[T]], type[T]]:
    """Make a class of settings a frozen dataclass that checks itself.

    Parameters
    ----------
    key : str
        What errors of a constructor call call the section.
    """

    def make(cls: type[T]) -> type[T]:
        cls.KEY = key  # type: ignore[attr-defined]
        made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, config=_CONFIG)
        SECTIONS[cls.__name__] = made
        return cast(type[T], made)

    return make


_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


def refusal(
    cls: type, error: pydantic.ValidationError, content: Any, key: str, source: str = ""
) -> SettingError:
    """The one error that a user reads, from those of pydantic."""
    # Loaded for an error alone. By a relative name, which `runtime.digests` does not follow: the
    # words of an error change no result, and so rerun no job.
    messages = importlib.import_module(".messages", __package__)
    inner, problem = messages.problem_of(cls, error, content)
    return SettingError(".".join(part for part in (key, inner) if part), problem, source)


class Checked:
    """Marks a dict that a section checks and that is kept as it was given, without defaults.

    Parameters
    ----------
    cls : type
        The section.
    given : dict
        Keys that are known from elsewhere and need not be in the dict.
    """

    def __init__(self, cls: type[Section], **given: Any):
        self.cls, self.given = cls, given

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: dict[str, Any]) -> dict[str, Any]:
            self.cls.from_dict(self.given | value, key="")
            return value

        return core_schema.no_info_after_validator_function(check, core_schema.dict_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        inner = pydantic.TypeAdapter(self.cls).core_schema
        shape = dict(handler.resolve_ref_schema(handler(inner)))
        shape["required"] = [name for name in shape.get("required", ()) if name not in self.given]
        return shape if shape["required"] else {k: v for k, v in shape.items() if k != "required"}
