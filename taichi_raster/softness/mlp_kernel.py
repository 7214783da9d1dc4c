"""The small network of a learned softness inside the kernels, and its directional derivative.

The network maps the scaled distance x to a logit u = x + r(x), so F = 1 / (1 + exp(-u)). Layers
are padded to the widest, which Taichi unrolls away. The weights lie in one flat field, in the order
that `MLPSoftness` documents.
"""

from dataclasses import dataclass

import taichi as ti

from taichi_raster.arithmetic import frozen, polynomial, types, with_slope


@dataclass(frozen=True)
class Architecture:
    """What of a network is compiled into a kernel.

    Attributes:
        widths: of the hidden layers, all tanh.
        residual: whether the first hidden layer is added to the last one before its tanh.
        bias: whether units have biases.
        asinh: whether the network sees asinh(x) rather than x.
    """

    widths: tuple[int, ...]
    residual: bool
    bias: bool
    asinh: bool

    @property
    def fans(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer, the output unit's last."""
        sizes = (1, *self.widths, 1)
        return list(zip(sizes[:-1], sizes[1:], strict=True))

    @property
    def offsets(self) -> list[int]:
        """Where each layer's weights begin, and last the number of weights altogether."""
        starts = [0]
        for inputs, outputs in self.fans:
            starts.append(starts[-1] + outputs * (inputs + int(self.bias)))
        return starts

    @property
    def widest(self) -> int:
        return max(self.widths)

    @property
    def size(self) -> int:
        return self.offsets[-1]

    def weight(self, layer: int, unit: int) -> int:
        """Where the input weights of a unit begin."""
        return self.offsets[layer] + unit * self.fans[layer][0]

    def bias_of(self, layer: int, unit: int) -> int:
        inputs, outputs = self.fans[layer]
        return self.offsets[layer] + outputs * inputs + unit


# A rational minimax approximation of tanh on [-7.9, 7.9], good to float32 (from the Eigen library).
_TANH_EDGE = 7.90531110763549805
_TANH_NUM = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_DEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


@ti.func
def _tanh(v):
    still = frozen(v)
    h = 0.0 * still
    if ti.static(types.single):
        c = ti.math.clamp(still, -_TANH_EDGE, _TANH_EDGE)
        h = c * polynomial(c * c, _TANH_NUM) / polynomial(c * c, _TANH_DEN)
    else:
        e = ti.exp(-2.0 * ti.abs(still))
        h = ti.select(still >= 0.0, 1.0 - e, e - 1.0) / (1.0 + e)
    return with_slope(h, 1.0 - h * h, v)


@ti.func
def _asinh(x):
    size = ti.abs(x)
    y = ti.log(size + ti.sqrt(1.0 + size * size))
    return with_slope(ti.select(x >= 0.0, y, -y), _asinh_slope(x), x)


@ti.func
def _asinh_slope(x):
    return 1.0 / ti.sqrt(1.0 + x * x)


@ti.func
def _sum(
    arch: ti.template(), layer: ti.template(), unit: ti.template(), theta: ti.template(), base, h
):
    """A unit's input: bias plus weighted outputs of the layer before."""
    total = 0.0 * h[0]
    if ti.static(arch.bias):
        total += theta[base + ti.static(arch.bias_of(layer, unit))]
    for i in ti.static(range(arch.fans[layer][0])):
        total += theta[base + ti.static(arch.weight(layer, unit) + i)] * h[i]
    return total


@ti.func
def _hidden(
    arch: ti.template(),
    layer: ti.template(),
    unit: ti.template(),
    theta: ti.template(),
    base,
    h,
    first,
):
    out = 0.0 * h[0]
    if ti.static(unit < arch.widths[layer]):
        total = _sum(arch, layer, unit, theta, base, h)
        if ti.static(arch.residual and layer == len(arch.widths) - 1):
            total += first[unit]
        out = _tanh(total)
    return out


@ti.func
def logit(arch: ti.template(), theta: ti.template(), base, x):
    """u = x + r(x), with the weights ``theta[base : base + arch.size]``."""
    y = x
    if ti.static(arch.asinh):
        y = _asinh(x)
    h = ti.Vector([y if ti.static(i == 0) else 0.0 * y for i in ti.static(range(arch.widest))])
    first = h
    for layer in ti.static(range(len(arch.widths))):
        h = ti.Vector(
            [_hidden(arch, layer, j, theta, base, h, first) for j in ti.static(range(arch.widest))]
        )
        if ti.static(layer == 0):
            first = h
    return x + _sum(arch, ti.static(len(arch.widths)), 0, theta, base, h)


@ti.func
def _sum_dot(
    arch: ti.template(), layer: ti.template(), unit: ti.template(),
    theta: ti.template(), theta_dot: ti.template(), base, h, h_dot,
):  # fmt: skip
    """The directional derivative of `_sum`: W h_dot + W_dot h + b_dot."""
    total = 0.0 * h[0]
    if ti.static(arch.bias):
        total += theta_dot[base + ti.static(arch.bias_of(layer, unit))]
    for i in ti.static(range(arch.fans[layer][0])):
        at = base + ti.static(arch.weight(layer, unit) + i)
        total += theta[at] * h_dot[i] + theta_dot[at] * h[i]
    return total


@ti.func
def _hidden_dot(
    arch: ti.template(), layer: ti.template(), unit: ti.template(),
    theta: ti.template(), theta_dot: ti.template(), base, h, h_dot, first_dot, out,
):  # fmt: skip
    slope = 0.0 * h[0]
    if ti.static(unit < arch.widths[layer]):
        total = _sum_dot(arch, layer, unit, theta, theta_dot, base, h, h_dot)
        if ti.static(arch.residual and layer == len(arch.widths) - 1):
            total += first_dot[unit]
        slope = (1.0 - out[unit] * out[unit]) * total
    return slope


@ti.func
def logit_dot(arch: ti.template(), theta: ti.template(), theta_dot: ti.template(), base, x, x_dot):
    """(u, u_dot): the logit and its derivative along (x_dot, theta_dot)."""
    y, y_dot = x, x_dot
    if ti.static(arch.asinh):
        y, y_dot = _asinh(x), _asinh_slope(x) * x_dot
    h = ti.Vector([y if ti.static(i == 0) else 0.0 * y for i in ti.static(range(arch.widest))])
    h_dot = ti.Vector(
        [y_dot if ti.static(i == 0) else 0.0 * y for i in ti.static(range(arch.widest))]
    )
    first = h
    first_dot = h_dot
    for layer in ti.static(range(len(arch.widths))):
        out = ti.Vector(
            [_hidden(arch, layer, j, theta, base, h, first) for j in ti.static(range(arch.widest))]
        )
        h_dot = ti.Vector(
            [
                _hidden_dot(arch, layer, j, theta, theta_dot, base, h, h_dot, first_dot, out)
                for j in ti.static(range(arch.widest))
            ]
        )
        h = out
        if ti.static(layer == 0):
            first = h
            first_dot = h_dot
    last = ti.static(len(arch.widths))
    return (
        x + _sum(arch, last, 0, theta, base, h),
        x_dot + _sum_dot(arch, last, 0, theta, theta_dot, base, h, h_dot),
    )


@ti.func
def logit_slope(arch: ti.template(), theta: ti.template(), base, x):
    """(u, du/dx), without derivatives of their own."""
    y, y_dot = x, 1.0 + 0.0 * x
    if ti.static(arch.asinh):
        y, y_dot = _asinh(x), _asinh_slope(x)
    h = ti.Vector([y if ti.static(i == 0) else 0.0 * y for i in ti.static(range(arch.widest))])
    h_dot = ti.Vector(
        [y_dot if ti.static(i == 0) else 0.0 * y for i in ti.static(range(arch.widest))]
    )
    first = h
    first_dot = h_dot
    for layer in ti.static(range(len(arch.widths))):
        out = ti.Vector(
            [_hidden(arch, layer, j, theta, base, h, first) for j in ti.static(range(arch.widest))]
        )
        h_dot = ti.Vector(
            [
                _hidden_slope(arch, layer, j, theta, base, h_dot, first_dot, out)
                for j in ti.static(range(arch.widest))
            ]
        )
        h = out
        if ti.static(layer == 0):
            first = h
            first_dot = h_dot
    last = ti.static(len(arch.widths))
    slope = 1.0 + 0.0 * x
    for i in ti.static(range(arch.fans[last][0])):
        slope += theta[base + ti.static(arch.weight(last, 0) + i)] * h_dot[i]
    return x + _sum(arch, last, 0, theta, base, h), slope


@ti.func
def _hidden_slope(
    arch: ti.template(), layer: ti.template(), unit: ti.template(),
    theta: ti.template(), base, h_dot, first_dot, out,
):  # fmt: skip
    slope = 0.0 * h_dot[0]
    if ti.static(unit < arch.widths[layer]):
        for i in ti.static(range(arch.fans[layer][0])):
            slope += theta[base + ti.static(arch.weight(layer, unit) + i)] * h_dot[i]
        if ti.static(arch.residual and layer == len(arch.widths) - 1):
            slope += first_dot[unit]
        slope *= 1.0 - out[unit] * out[unit]
    return slope
