"""Students: small forms of the zoo's models, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

import zoo


@dataclass(frozen=True, kw_only=True)
class Student:
    """A small form of a model.

    Args:
        model: name in the zoo.
        options: of its builder.
        summary: one line.
    """

    model: str
    options: Mapping[str, Any]
    summary: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


STUDENTS: Mapping[str, Student] = MappingProxyType(
    {
        "fid-dsir-size": Student(
            model="fid_storm",
            options={"width": 8, "n_blocks": 5},
            summary="as many parameters as DSIR, on the camera's grid",
        ),
        "fid-srcnn-size": Student(
            model="fid_storm",
            options={"width": 12, "n_blocks": 5},
            summary="as many parameters as SRCNN, on the camera's grid",
        ),
        "fid-24": Student(model="fid_storm", options={"width": 24, "n_blocks": 5}, summary="FID-STORM, narrow"),
        "fid-separable": Student(
            model="fid_storm",
            options={"width": 32, "n_blocks": 5, "separable": True},
            summary="FID-STORM with separable convolutions",
        ),
        "fid-5": Student(model="fid_storm", options={"n_blocks": 5}, summary="FID-STORM with 5 blocks"),
        "dsir": Student(model="dsir", options={"separate_norm": True}, summary="DSIR with a norm per place"),
        "srcnn": Student(model="srcnn", options={}, summary="SRCNN as published"),
        "deep-8": Student(model="deep_storm", options={"width": 8}, summary="Deep-STORM with a quarter of the width"),
        "compact-24": Student(
            model="compact", options={"width": 24, "dimensions": 2}, summary="Compact, a quarter of the width, 2-D"
        ),
        "compact-48": Student(
            model="compact", options={"width": 48, "dimensions": 2}, summary="Compact, half the width, 2-D"
        ),
        "compact-shallow": Student(
            model="compact",
            options={"width": 48, "blocks": 3, "dimensions": 2},
            summary="Compact, half the width, 3 blocks, 2-D",
        ),
        "compact-separable": Student(
            model="compact",
            options={"separable": True, "dimensions": 2},
            summary="Compact with separable convolutions in the trunk, 2-D",
        ),
    }
)


def find_student(name: str) -> Student:
    """A student by name; a model of the zoo stands for its canonical form.

    Raises:
        ValueError: no such student or model; suggests the nearest.
    """
    if name in STUDENTS:
        return STUDENTS[name]
    if name in zoo.list_models():
        return Student(model=name, options={}, summary=zoo.get_spec(name).summary)
    known = [*STUDENTS, *zoo.list_models()]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"No student named {name!r}.{hint} There are: {', '.join(STUDENTS)}; or any model of the zoo.")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: trainable numbers.
        macs: multiply-accumulates for one 64x64 frame, as computed here.
        bytes: of its weights and buffers in float32.
    """

    parameters: int
    macs: int
    bytes: int


def cost_of(student: Student) -> Cost:
    """Cost of a student's network; nothing is computed."""
    with torch.device("meta"):
        network = zoo.create_model(student.model, **student.options)
    return Cost(
        parameters=zoo.count_parameters(network),
        macs=zoo.count_macs(network, 64, 64).done,
        bytes=sum(value.numel() * value.element_size() for value in network.state_dict().values()),
    )
