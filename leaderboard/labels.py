"""What rows and columns are called: the shortest label that tells models, tests and runtimes from each other."""

import json

from .record import Result


def _entry_key(result: Result) -> tuple[str, ...]:
    model = result.model
    options = json.dumps(model.options, sort_keys=True) if model.options else ""
    seed = "" if model.training_seed is None else f"training seed {model.training_seed}"
    return (model.name, model.variant, model.tag, options, model.trained_on, seed, model.weights_sha256[:8])


def _condition_key(result: Result) -> tuple[str, ...]:
    data, rule = result.dataset, result.settings
    size = "" if data.height is None or data.width is None else f"{data.height}x{data.width}"
    return (
        data.name,
        "" if data.condition == "matched" else data.condition,
        "" if data.value is None else f"{data.value:g}",
        f"{data.dimensions}D",
        "" if data.frames is None else f"{data.frames} frames",
        size,
        "" if data.seed is None else f"seed {data.seed}",
        "" if rule.tolerance_nm is None else f"{rule.tolerance_nm:g} nm",
        "" if rule.border_nm is None else f"border {rule.border_nm:g} nm",
        "" if rule.quantile is None else f"quantile {rule.quantile:g}",
        "" if rule.wobble in {"", "none"} else f"wobble {rule.wobble}",
        rule.rule,
        "" if not data.recipe_hash else f"recipe {data.recipe_hash[:8]}",
    )


def _engine_key(result: Result) -> tuple[str, ...]:
    runtime = result.runtime
    threads = "" if runtime.threads is None else f"{runtime.threads} threads"
    return (runtime.name, runtime.precision, runtime.provider, threads, result.environment.machine)


def all_labels(results: list[Result]) -> tuple[list[str], list[str], list[str]]:
    """Labels of model, test and runtime of every record; only what was scored or timed splits a label."""
    scored = [is_scored(r) or has_images(r) for r in results]
    timed = [r.timing is not None and r.timing.ms_p50 is not None for r in results]
    conditions = [_condition_key(r) if s else (r.dataset.name,) for r, s in zip(results, scored, strict=True)]
    engines = [_engine_key(r) if t else (r.runtime.name,) for r, t in zip(results, timed, strict=True)]
    return _labels([_entry_key(r) for r in results]), _labels(conditions), _labels(engines)


def is_scored(result: Result) -> bool:
    """Whether the record has an efficiency, by which models are ranked."""
    return result.scores is not None and result.scores.efficiency is not None


def has_images(result: Result) -> bool:
    """Whether the record has scores of a rendered or given image."""
    return result.detail is not None and bool(result.detail.images)


def _labels(keys: list[tuple[str, ...]]) -> list[str]:
    """The shortest label that tells each key from the others: the name, and what differs under that name.

    Parts are taken in their order until no other key of that name is left; the empty ones are not written.
    """
    by_name: dict[str, set[tuple[str, ...]]] = {}
    for key in keys:
        by_name.setdefault(key[0], set()).add(key)
    label_of: dict[tuple[str, ...], str] = {}
    taken: set[str] = set()
    for group in by_name.values():
        for key in sorted(group):
            label = plain = " · ".join([key[0], *_telling(key, group)])
            number = 1
            while label in taken:  # a name that imitates another label
                number += 1
                label = f"{plain} ({number})"
            if len(key) > 1:
                taken.add(label)
            label_of[key] = label
    return [label_of[key] for key in keys]


def _telling(key: tuple[str, ...], group: set[tuple[str, ...]]) -> list[str]:
    """The parts of a key that are needed to tell it from the others of its group."""
    others = [other for other in group if len(other) == len(key) and other != key]
    parts = []
    for i, part in enumerate(key):
        left = [other for other in others if other[i] == part]
        if len(left) < len(others) and part:
            parts.append(part)
        others = left
    return parts
