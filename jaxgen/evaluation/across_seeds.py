"""The results of runs that differ in their seed alone: what they agree on, and how far."""

from typing import Any

import numpy as np


def summarize(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the seeds' `final_results`: every number of the model, its mean and its standard
    deviation (of a seed: with n - 1) over the seeds, ready for JSON."""
    same = ("model", "parameters", "monitor", "dataset", "protocol", "fingerprint", "split")
    names = ("likelihood", "metrics", "scores", "inspection")
    flat = [{name: _numbers(name, result) for name in names} for result in found]
    return {
        **{name: found[0][name] for name in same},
        "seeds": [result["seed"] for result in found],
        "steps": [result["step"] for result in found],
        **{
            section: {n: _spread([f[section][n] for f in flat]) for n in numbers}
            for section, numbers in flat[0].items()
        },
    }


def _numbers(section: str, result: dict[str, Any]) -> dict[str, float | None]:
    """The model's numbers of a section of its results; none where there is no such section."""
    if section == "likelihood":
        units = ("nats", "bits_per_dim")
        return {n: result[section]["model"][n] for n in units} if result[section] else {}
    if section == "metrics":
        return {n: x["mean"] for n, x in result[section].items()}
    if section == "scores":
        return result[section]["model"] if result[section] else {}
    return result[section]


def _spread(values: list[float | None]) -> dict[str, Any]:
    """Mean and standard deviation; of values that are not all finite, neither."""
    finite = [x for x in values if x is not None]
    whole = len(finite) == len(values)
    return {
        "mean": float(np.mean(finite)) if whole else None,
        "std": float(np.std(finite, ddof=1)) if whole else None,
        "values": values,
    }
