"""Images to a file of as many bits as an autoregressive model's NLL says, and exactly back.

Encoder and decoder must find the same probabilities to the last bit, so both run one compiled
program, always on one device and on chunks of one size: the cached sampler, whose draws either
take levels from the stream or are given them. Two programs for the same network round
differently, and then everything after the first difference would be lost.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, UInt8, UInt32

from jaxgen.causal import samplers
from jaxgen.compression import file_format, rans
from jaxgen.compression.file_format import Header
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.optim.net import NetState
from jaxgen.runs.digest import digest

CHUNK = 64
"""Images that are coded at a time; a multiple of `rans.LANES`."""
MOST_CHUNK = 1024
"""Images at a time of the files that are read: what bounds the memory for them."""

Tell = Callable[[int], Any]


def compress(
    model: Autoregressive,
    state: NetState,
    images: UInt8[np.ndarray, "n h w c"],
    label: Int[np.ndarray, " n"] | None = None,
    tell: Tell = lambda count: None,
) -> bytes:
    """A file of the images: their NLL in bits, log2(classes) for each label, and some 130 bytes
    (`header_size`).

    A conditional model needs labels 0..classes-1, which the file then holds too. `tell` is called
    with the number of images that each chunk has added. Memory grows with a chunk, not with the
    images. Raises UserError for images or labels that are not the model's.
    """
    label = _checked(model, images, label)
    device = jax.devices()[0]
    state = jax.device_put(state, device)
    # Decoding ends where encoding began: the first states carry the digest at no cost.
    lanes = jax.device_put(_first_lanes(_digest(images, label)), device)
    step, stream = _step(model, CHUNK), np.zeros(_window(model, CHUNK), np.uint8)
    pieces = []
    for start in reversed(range(0, len(images), CHUNK)):
        here = slice(start, start + CHUNK)
        coded = np.arange(CHUNK) < len(images[here])
        given = _filled(images[here]), _filled(label[here])
        _, _, slots = step(state, rans.Reader(lanes, jnp.int32(0)), stream, given, coded, False)
        lanes, out, there = rans.encode(lanes, slots)
        pieces.append(rans.join(out, there))
        tell(int(coded.sum()))
    payload = np.asarray(lanes).astype("<u4").tobytes() + b"".join(reversed(pieces))
    header = Header(len(images), CHUNK, fingerprint(model, state), made_by(model))
    return file_format.pack(header, payload)


def decompress(
    model: Autoregressive, state: NetState, data: bytes, tell: Tell = lambda count: None
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"] | None]:
    """The images, and the labels of a conditional model, that `compress` made this file of.

    Raises UserError if it is no such file, is damaged, belongs to another model or other
    parameters, or if this machine's arithmetic is not that of the one that wrote it. What is
    returned has the digest of what was compressed.
    """
    header, payload = file_format.unpack(data)
    if header.fingerprint != fingerprint(model, state):
        raise UserError(
            f"it was compressed with other parameters or another model ({header.made_by}): give "
            "the run, and the --checkpoint, that compressed it"
        )
    device, chunk = jax.devices()[0], header.chunk
    first, coded_bytes = _parts(model, header, payload)
    state, lanes = jax.device_put((state, first), device)
    step, window = _step(model, chunk), _window(model, chunk)
    stream, place = np.frombuffer(coded_bytes + bytes(window), np.uint8), 0
    given = np.zeros((chunk, *model.spec.shape), np.uint8), np.zeros(chunk, np.int32)
    pieces = [[x[:0] for x in given]]
    for start in range(0, header.num, chunk):
        coded = np.arange(chunk) < header.num - start
        reader = rans.Reader(lanes, jnp.int32(0))
        now = stream[place : place + window]
        (lanes, read), drawn, _ = step(state, reader, now, given, coded, True)
        place += int(read)
        if place > len(coded_bytes):
            break  # a stream that leads astray asks for bytes after its end
        pieces.append([np.asarray(x)[coded] for x in drawn])
        tell(int(coded.sum()))
    images, label = map(np.concatenate, zip(*pieces, strict=True))
    whole = len(images) == header.num and place == len(coded_bytes)
    if not (whole and np.array_equal(lanes, _first_lanes(_digest(images, label)))):
        raise UserError(
            "it is whole and belongs to this model, but decodes to other images than were "
            "compressed: this machine, JAX version or number of threads rounds differently. It "
            f"was written by {header.made_by}, and this is {made_by(model)}; "
            "decompress it where it was written"
        )
    return images, label if model.spec.num_classes else None


def verify(
    model: Autoregressive,
    state: NetState,
    data: bytes,
    images: UInt8[np.ndarray, "n h w c"],
    label: Int[np.ndarray, " n"] | None = None,
    tell: Tell = lambda count: None,
) -> None:
    """Raises UserError unless these images and labels come back from the file."""
    try:
        back, labels = decompress(model, state, data, tell)
        same = np.array_equal(back, images)
        same &= labels is None or label is None or np.array_equal(labels, label)
    except UserError:
        same = False
    if not same:
        raise UserError(
            "compress: what was coded does not decode to the images, for this machine does not "
            "compute the same numbers twice; nothing was written. Try again on a CPU "
            "(JAX_PLATFORMS=cpu)"
        )


def fingerprint(model: Autoregressive, state: NetState) -> bytes:
    """16 bytes that name what the probabilities follow from: the averaged parameters, the kind of
    model, its order and its images."""
    order = model.pixel_order(0)
    pixels = model.order if order is None else np.asarray(order).tolist()
    text = f"{type(model).__name__} {pixels} {model.spec} {digest(state.ema)}"
    return hashlib.sha256(text.encode()).digest()[:16]


def header_size(data: bytes) -> int:
    """The bytes of a file that would stand there for any number of images: its frame, and three
    of each state's four bytes."""
    return len(data) - len(file_format.unpack(data)[1]) + 3 * rans.LANES


def made_by(model: Autoregressive) -> str:
    """The kind of model, and the software and device that its arithmetic depends on."""
    device = jax.devices()[0]
    return f"{type(model).__name__}, JAX {jax.__version__}, {device.platform} {device.device_kind}"


@functools.lru_cache(maxsize=4)
def _step(model: Autoregressive, chunk: int) -> Callable[..., Any]:
    """The one program; compiled when it is first called."""
    spec, likelihood = model.spec, model.likelihood

    def step(
        state: NetState,
        reader: rans.Reader,
        stream: UInt8[Array, " window"],
        given: tuple[UInt8[Array, "b h w c"], Int[Array, " b"]],
        coded: Bool[Array, " b"],
        decoding: Bool[Array, ""],
    ) -> tuple[rans.Reader, Any, rans.Slot]:
        """Codes labels and images: takes them from the stream if `decoding`, else as given.

        Also the slots of all symbols [t b], which the encoder needs in reverse. Examples that are
        not `coded` fill up the last chunk: level 0 in both directions.
        """

        def pick(reader: rans.Reader, given: Array, log_masses: Array) -> tuple[Any, Array, Any]:
            sizes = rans.quantize(log_masses)
            starts = rans.starts(sizes)
            reader, level = jax.lax.cond(
                decoding,
                lambda: rans.decode(reader, stream, sizes, starts, coded),
                lambda: (reader, given.astype(jnp.int32)),
            )
            size = jnp.where(coded, rans.at_level(sizes, level), 0)
            return reader, level, rans.Slot(rans.at_level(starts, level), size)

        image, label = given
        slots = []
        if spec.num_classes:
            equal = jnp.zeros((chunk, spec.num_classes))
            reader, label, slot = pick(reader, label, equal)
            slots.append(jax.tree.map(lambda x: x[None], slot))
        chain = model.chain(state.ema)
        image = chain.lay(image)
        levels = image.reshape(chunk, -1).T
        draw = samplers.Draw(
            lambda positions: levels[positions],
            lambda reader, given, params: pick(reader, given, likelihood.log_masses(params)),
            reader,
        )
        drawn, reader, by_place = samplers.run_cached(
            chain.bound, chain.laid, draw, image, jnp.zeros(image.shape, bool),
            model.condition(label, None),
        )  # fmt: skip
        slots.append(jax.tree.map(lambda x: x.reshape(-1, chunk), by_place))
        together = jax.tree.map(lambda *x: jnp.concatenate(x), *slots)
        return reader, (chain.restore(drawn), label), together

    return jax.jit(step, compiler_options=_same_kernels())


def _same_kernels() -> dict[str, str] | None:
    """On a GPU, kernels that are chosen by rule: those that are timed may differ next time."""
    if jax.default_backend() != "gpu":
        return None
    return {"xla_gpu_autotune_level": "0", "xla_gpu_deterministic_ops": "True"}


def _window(model: Autoregressive, chunk: int) -> int:
    """The bytes that a chunk reads at most."""
    return rans.MOST * chunk * (model.spec.dims + 1)


def _parts(
    model: Autoregressive, header: Header, payload: bytes
) -> tuple[UInt32[np.ndarray, " lanes"], bytes]:
    """The states that decoding starts from, and the stream of bytes; or a UserError for what
    `compress` never writes, before any memory is taken for the images."""
    num, chunk, head = header.num, header.chunk, 4 * rans.LANES
    lanes = np.frombuffer(payload[:head].ljust(head, b"\0"), "<u4").astype(np.uint32)
    least = num * model.spec.dims * rans.least_bits(model.spec.levels)
    if chunk not in range(rans.LANES, MOST_CHUNK + 1, rans.LANES):
        wrong = f"{chunk} images at a time"
    elif (lanes < rans.LOW).any():
        wrong = f"a payload of {len(payload):,} bytes that begins with no states"
    elif num == 0 or least > 8 * len(payload):
        wrong = f"{num:,} images in {len(payload):,} bytes"
    else:
        return lanes, payload[head:]
    raise UserError(
        f"it has {wrong}, which jaxgen compress does not write: it was changed after that; copy "
        "it again, or compress the images again"
    )


def _filled(some: np.ndarray) -> np.ndarray:
    """A chunk's examples, zeros after them."""
    return np.concatenate([some, np.zeros((CHUNK - len(some), *some.shape[1:]), some.dtype)])


def _digest(images: np.ndarray, label: np.ndarray) -> bytes:
    """The sha256 of images and labels."""
    sha = hashlib.sha256()
    for start in range(0, len(images), CHUNK):
        sha.update(np.ascontiguousarray(images[start : start + CHUNK]).tobytes())
    sha.update(label.astype("<i4").tobytes())
    return sha.digest()


def _first_lanes(sha256: bytes) -> np.ndarray:
    """The states, uint32 [16], that the encoder starts from; in each, two bytes of the digest."""
    return rans.LOW + np.frombuffer(sha256, "<u2").astype(np.uint32)


def _checked(
    model: Autoregressive, images: np.ndarray, label: np.ndarray | None
) -> Int32[np.ndarray, " n"]:
    """The labels, zeros if there are none; or a UserError."""
    if not isinstance(model, Autoregressive):
        raise UserError(
            "compress needs a model that gives a probability to every sub-pixel in turn, and this "
            "one does not: train an autoregressive one"
        )
    spec = model.spec
    if model.num_components > 1:
        raise UserError(
            f"compress: this model's density is the mean of {model.num_components}, and a file is "
            "coded by one: train it with one order of the pixels, and one set of connections"
        )
    if spec.source:
        raise UserError(
            "compress: this model makes x from a source, which a file does not hold: train one "
            "whose data have none"
        )
    if images.dtype != np.uint8 or images.shape[1:] != spec.shape or not len(images):
        raise UserError(
            f"compress takes uint8 images [n {' '.join(map(str, spec.shape))}], n at least 1; got "
            f"{images.dtype} {list(images.shape)}"
        )
    greatest = max(int(images[i : i + CHUNK].max()) for i in range(0, len(images), CHUNK))
    if greatest >= spec.levels:
        raise UserError(f"the model's levels are 0..{spec.levels - 1}; an image has {greatest}")
    if (label is None) != (spec.num_classes == 0):
        wanted = "needs the label of each image" if label is None else "takes no labels"
        raise UserError(f"compress: this model {wanted}")
    if label is None:
        return np.zeros(len(images), np.int32)
    label = np.asarray(label)
    inside = label.shape == (len(images),) and ((label >= 0) & (label < spec.num_classes)).all()
    if not inside or not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"labels must be {len(images)} integers in 0..{spec.num_classes - 1}")
    return label.astype(np.int32)
