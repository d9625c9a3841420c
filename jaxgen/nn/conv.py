"""Strided convolution, its adjoint, and its weight gradient, differentiable to any order.

T(x, w, g) = <conv(x, w), g> is linear in each argument. Its three partial adjoints, conv(x, w),
conv_adjoint(g, w) (a transposed convolution) and weight_gradient(x, g), are each other's
derivatives. Each is given the other two as its derivative. Reverse mode only.

On a CPU each is written as a convolution of NHWC by HWIO: XLA runs any other layout, which is what
autodiff derives, on a path ten to a hundred times slower when it stands inside a loop. Elsewhere
each is what autodiff derives, which libraries know as the backward passes of a convolution: on an
H100, cuDNN took a weight gradient in the CPU's form for a convolution with a kernel as large as the
image, and ran it by Fourier transforms.
"""

import functools

import jax
from jax import lax
from jaxtyping import Array, Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Size = tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros (before, after) the rows and the columns."""


def same_padding(size: Size, kernel: Size, stride: int) -> Padding:
    """'SAME' padding: output ceil(size / stride), the odd one at the end."""

    def pad(s: int, k: int) -> tuple[int, int]:
        total = max((-(-s // stride) - 1) * stride + k - s, 0)
        return total // 2, total - total // 2

    return pad(size[0], kernel[0]), pad(size[1], kernel[1])


def _derived() -> bool:
    """Whether adjoints are what autodiff derives."""
    return jax.default_backend() != "cpu"


def _cropped(x: Array, padding: Padding) -> tuple[Array, Padding]:
    """The image without what negative padding takes away, and the rest of the padding: cuDNN's
    backward passes know no negative padding."""
    for axis, pads in enumerate(padding, 1):
        low, high = (max(0, -pad) for pad in pads)
        x = lax.slice_in_dim(x, low, x.shape[axis] - high, axis=axis)
    (a, b), (c, d) = padding
    return x, ((max(a, 0), max(b, 0)), (max(c, 0), max(d, 0)))


def _conv(x: Array, w: Array, stride: int, padding: Padding) -> Array:
    if _derived():
        x, padding = _cropped(x, padding)
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=_DIMENSIONS)


def _conv_adjoint(g: Array, w: Array, stride: int, padding: Padding, size: Size) -> Array:
    if _derived():
        like = jax.ShapeDtypeStruct((g.shape[0], *size, w.shape[2]), g.dtype)
        return jax.linear_transpose(lambda x: _conv(x, w, stride, padding), like)(g)[0]
    pads = []
    for axis, (low, _) in enumerate(padding):
        before = w.shape[axis] - 1 - low
        dilated = (g.shape[1 + axis] - 1) * stride + 1
        pads.append((before, size[axis] + w.shape[axis] - 1 - dilated - before))
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        g, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_DIMENSIONS
    )


def _weight_gradient(x: Array, g: Array, stride: int, padding: Padding, kernel: Size) -> Array:
    if _derived():
        like = jax.ShapeDtypeStruct((*kernel, x.shape[3], g.shape[3]), x.dtype)
        return jax.linear_transpose(lambda w: _conv(x, w, stride, padding), like)(g)[0]
    # The batch is what is summed over: it takes the place of the input features.
    pads = []
    for axis, (low, _) in enumerate(padding):
        dilated = (g.shape[1 + axis] - 1) * stride + 1
        pads.append((low, kernel[axis] - 1 + dilated - x.shape[1 + axis] - low))
    w = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), (1, 1), pads,
        rhs_dilation=(stride, stride), dimension_numbers=_DIMENSIONS,
    )  # fmt: skip
    return w.transpose(1, 2, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    x: Float[Array, "b h w i"], w: Float[Array, "kh kw i o"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 o"]:
    """Convolution: [b h w i], [kh kw i o] -> [b h2 w2 o]."""
    return _conv(x, w, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_adjoint(
    g: Float[Array, "b h2 w2 o"],
    w: Float[Array, "kh kw i o"],
    stride: int,
    padding: Padding,
    size: Size,
) -> Float[Array, "b h w i"]:
    """The adjoint of `conv` in x, a transposed convolution to `size` = (h, w)."""
    return _conv_adjoint(g, w, stride, padding, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def weight_gradient(
    x: Float[Array, "b h w i"],
    g: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: Padding,
    kernel: Size,
) -> Float[Array, "kh kw i o"]:
    """The adjoint of `conv` in w, for a kernel of size `kernel`."""
    return _weight_gradient(x, g, stride, padding, kernel)


# The values are made by these functions again: a gradient that is differentiated once more passes
# back through them.
conv.defvjp(
    lambda x, w, s, p: (conv(x, w, s, p), (x, w)),
    lambda s, p, res, g: (
        conv_adjoint(g, res[1], s, p, res[0].shape[1:3]),
        weight_gradient(res[0], g, s, p, res[1].shape[:2]),
    ),
)
conv_adjoint.defvjp(
    lambda g, w, s, p, size: (conv_adjoint(g, w, s, p, size), (g, w)),
    lambda s, p, size, res, x: (
        conv(x, res[1], s, p),
        weight_gradient(x, res[0], s, p, res[1].shape[:2]),
    ),
)
weight_gradient.defvjp(
    lambda x, g, s, p, kernel: (weight_gradient(x, g, s, p, kernel), (x, g)),
    lambda s, p, kernel, res, w: (
        conv_adjoint(res[1], w, s, p, res[0].shape[1:3]),
        conv(res[0], w, s, p),
    ),
)
