"""What the validated descriptions share: frozen, unknown keys refused by name, ranges."""

from __future__ import annotations

import difflib
import os
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator


def suggest(name: str, known: list[str]) -> str:
    """' Did you mean ...?' or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class StrictModel(BaseModel):
    """Frozen pydantic model that names an unknown key and lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = sorted(cls.model_fields)
            for key in values:
                if key not in known:
                    raise ValueError(
                        f"unknown key {str(key)!r} in {cls.__name__}.{suggest(str(key), known)} "
                        f"Known keys: {', '.join(known)}."
                    )
        return values


class Range(StrictModel):
    """Numbers to draw from: between `low` and `high`, even on a linear or a logarithmic scale."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high {self.high:g}; exchange them")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; a range on a log scale needs low > 0")
        return self


def _number_or_range(value: Any) -> Any:
    if isinstance(value, Range | int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return Range.model_validate(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is neither a number nor a range such as {{low: 1, high: 2, scale: log}}") from None


def _not_negative(value: float | Range) -> float | Range:
    if lowest(value) < 0:
        raise ValueError(f"is {lowest(value):g}; expected 0 or more")
    return value


def _positive(value: float | Range) -> float | Range:
    if lowest(value) <= 0:
        raise ValueError(f"is {lowest(value):g}; expected more than 0")
    return value


def _checked(check: Any) -> BeforeValidator:
    return BeforeValidator(lambda value: check(_number_or_range(value)))


def _beside_recipe(value: str, info: ValidationInfo) -> str:
    return os.path.abspath(os.path.join((info.context or {}).get("folder", "."), value))


RecipeFile = Annotated[str, AfterValidator(_beside_recipe)]  # relative: to the recipe's folder
Quantity = Annotated[float | Range, Field(union_mode="left_to_right"), _checked(_not_negative)]
PositiveQuantity = Annotated[float | Range, Field(union_mode="left_to_right"), _checked(_positive)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def lowest(value: float | Range) -> float:
    """The smallest value that can be drawn."""
    return value.low if isinstance(value, Range) else value


def highest(value: float | Range) -> float:
    """The largest value that can be drawn."""
    return value.high if isinstance(value, Range) else value


def draw(value: float | Range, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`count` values; a plain number is repeated and takes nothing from the generator."""
    if not isinstance(value, Range):
        return np.full(count, float(value))
    if value.scale == "log":
        return np.exp(rng.uniform(np.log(value.low), np.log(value.high), count))
    return rng.uniform(value.low, value.high, count)
