"""The line that is printed beside every number that was measured on a data set."""

from jaxgen.data.build import Meta
from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Source
from jaxgen.data.splits import Split, carve
from jaxgen.spec import DataSpec


def protocol(
    config: DataConfig, source: Source, splits: dict[str, Split], meta: Meta, spec: DataSpec
) -> str:
    """Sizes, shape, levels, binarization: what a number depends on, in one line."""
    _, carved = carve(source.name, source.sizes, source.what)
    sizes = ", ".join(
        f"{name} {len(split)}" + (" (carved from train, seed 0)" if name in carved else "")
        for name, split in splits.items()
    )
    describe = {"image": _images, "sound": _sounds, "points": _points}[spec.kind]
    note = f"; {source.note}" * bool(source.note)
    done = "".join(f"; {what}: {number}" for what, number in sorted(meta["done"].items()))
    return f"{source.name}: {sizes}; {describe(config, meta, spec)}{note}{done}"


def _images(config: DataConfig, meta: Meta, spec: DataSpec) -> str:
    shape = "x".join(map(str, spec.shape))
    if config.size:
        shape += f" ({config.fit} to {config.size}{', grey' if config.grey else ''})"
    levels, stored = meta["levels"], meta["stored_levels"]
    depth = f"{levels} levels" if levels else "real numbers"
    if levels != stored:
        depth += f" of {stored}"
    if stored == 2:
        depth += " (stored binary)"
    seed = config.binarize_seed
    binarized = {
        "none": "",
        "threshold": "; binarized at one half",
        "static": f"; binarized by one draw, seed {seed}",
        "dynamic": f"; train binarized anew every epoch, validation and test once, seed {seed}",
    }[config.binarize]
    return f"{shape}, {depth}{binarized}"


def _sounds(config: DataConfig, meta: Meta, spec: DataSpec) -> str:
    seconds = spec.width / spec.rate
    return f"{spec.width} samples at {spec.rate} Hz ({seconds:.3g} s), 256 mu-law levels"


def _points(config: DataConfig, meta: Meta, spec: DataSpec) -> str:
    window = " x ".join(f"[{low:.4g}, {high:.4g}]" for low, high in spec.ranges)
    depth = f"{meta['levels']} bins each" if meta["levels"] else "real numbers"
    return f"points of {spec.channels} coordinate{'s' * (spec.channels > 1)} in {window}, {depth}"
