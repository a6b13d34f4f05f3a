"""What a distillation is: one validated description, written into its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from distill import Settings


class DistillPlan(BaseModel):
    """Teacher, student, frames, budget, test: the same plan gives the same stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str = Field(description="a shipped model or a folder")
    model: str = Field(description="the student's model in the zoo")
    options: dict[str, Any] = Field(default_factory=dict, description="of the student's builder")
    recipe: str = Field(default="epfl-2d", description="simulated frames with a known truth")
    movie: str | None = Field(default=None, description="a movie without a truth to learn from as well")
    camera: dict[str, Any] | None = Field(default=None, description="how that movie was recorded")
    unlabelled_share: float = Field(default=0.0, ge=0, le=1, description="share of the batches from that movie")
    mode: Literal["attentive", "sum", "minimum", "bound"] = "attentive"
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the truth beside the teacher")
    confidence: Literal["sample", "pixel", "none"] = "sample"
    blur_px: float | None = Field(default=None, gt=0, description="common blur, camera pixels")
    hints: tuple[tuple[str, str], ...] = Field(default=(), description="pairs of layers, teacher's and student's")
    hint_steps: int = Field(default=0, ge=0, description="steps that learn the hints alone, first")
    hint_weight: float = Field(default=1.0, ge=0)
    freeze: bool = Field(default=True, description="layers that the hints taught stay as they are afterwards")
    steps: int | None = Field(default=None, ge=1, description="training steps; default: those of the student's recipe")
    minutes: float | None = Field(default=None, gt=0, description="of each training; default: its recipe's")
    training: dict[str, Any] = Field(default_factory=dict, description="further settings of the training")
    seeds: tuple[int, ...] = (1,)
    compare: bool = Field(default=False, description="train the same student alone with the same budget")
    test: str = Field(default="tubes-2d-hd", description="recipe of the test movie")
    test_frames: int = Field(default=200, ge=2)
    test_size: tuple[int, int] = (40, 40)
    validation_movies: int = Field(default=8, ge=1, description="on which every model's threshold is found")
    quantize: bool = Field(default=True, description="also make and score int8 and float16 files")
    tune_minutes: float = Field(
        default=3.0, ge=0, description="fine-tuning for int8, where int8 loses more than 1 point of Jaccard; 0: none"
    )

    def settings(self) -> Settings:
        """Of the objective."""
        return Settings(
            mode=self.mode,
            alpha=self.alpha,
            confidence=self.confidence,
            blur_px=self.blur_px,
            hints=self.hints,
            hint_steps=self.hint_steps,
            hint_weight=self.hint_weight,
            freeze=self.freeze,
        )

    def to_yaml(self) -> str:
        """The plan, complete."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def keep_plan(plan: DistillPlan, folder: Path) -> None:
    """Write the plan into its folder.

    Raises:
        ValueError: the folder holds another plan; names the first difference.
    """
    from harness.io.atomic import atomic_path

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "distill.yaml"
    if path.is_file():
        kept = DistillPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        before, now = kept.model_dump(mode="json"), plan.model_dump(mode="json")
        for key, value in now.items():
            if before.get(key) != value:
                raise ValueError(
                    f"{folder} holds a distillation with {key} {before.get(key)!r}, now it is {value!r}; give another "
                    "folder with -o"
                )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(plan.to_yaml(), encoding="utf-8")
