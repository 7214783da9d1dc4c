"""Pixels of a row that see one face alone, all over: their colours, and the adjoints of that.

A colour is a ratio of two linear functions there, and the share of a corner in it another. All
adjoints are linear in a few sums over the pixels. With m_i the share of corner i, a_ic its
attributes, g_c the adjoint of a pixel, and mean = sum_ic g_c a_ic m_i:

    M_ic = sum over pixels of g_c m_i,    N_i = sum over pixels of mean m_i.

Nothing moves alpha: the face still covers the pixels where it moves.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.areas.adjoints import Adjoints
from taichi_raster.kernels.areas.layout import Face, Pair


@ti.data_oriented
class Runs(Adjoints):
    """Functions of `count` pixels, number `p` and those right of it; (x, y) is the first centre.

    `pair` is the pair of the tile and the face.
    """

    @ti.func
    def unmixed(self, m: ti.template(), f, x, y):
        """What each corner has a share in, up to a factor: (at a point, slopes in x).

        Then the slopes in x and y of barycentric coordinates, times w.
        """
        share, in_x, in_y = self.barycentric(m, f, x, y)
        if ti.static(self.view.perspective and (not self.view.orthographic)):
            for i in ti.static(range(3)):
                w = m.faces[Face.SIZE * f + Face.W + i]
                share[i] *= w
                in_x[i] *= w
                in_y[i] *= w
        return share, in_x, in_y

    @ti.func
    def show_run(self, m: ti.template(), pair, p, count, x, y):
        """Write the pixels' colours."""
        size = ti.static(self.view.channels)
        f = m.listed[pair]
        share, in_x, _in_y = self.unmixed(m, f, x, y)
        whole, slope = share.sum(), in_x.sum()
        colour = ti.Vector.zero(self.real, max(size, 1))
        change = ti.Vector.zero(self.real, max(size, 1))
        for c in ti.static(range(size)):
            for i in ti.static(range(3)):
                value = m.attributes[(3 * f + i) * size + c]
                colour[c] += share[i] * value
                change[c] += in_x[i] * value
        for i in range(count):
            t = ti.cast(i, self.real)
            factor = 1 + 0 * t
            if ti.static(self.view.perspective and (not self.view.orthographic)):
                factor = 1 / (whole + slope * t)
            into = (size + 1) * (p + i)
            for c in ti.static(range(size)):
                m.values[into + c] = (colour[c] + change[c] * t) * factor
            m.values[into + size] = factor * 0 + 1

    @ti.func
    def pass_run(self, m: ti.template(), pair, p, count, x, y):
        """Add to the pair what the pixels' adjoints give."""
        size = ti.static(self.view.channels)
        f = m.listed[pair]
        share, in_x, in_y = self.unmixed(m, f, x, y)
        whole, slope = share.sum(), in_x.sum()
        # Of corners 1 and 2; corner 0 has what is left.
        base = ti.Vector.zero(self.real, max(size, 1))
        second = ti.Vector.zero(self.real, max(size, 1))
        third = ti.Vector.zero(self.real, max(size, 1))
        for c in ti.static(range(size)):
            base[c] = m.attributes[3 * size * f + c]
            second[c] = m.attributes[(3 * f + 1) * size + c] - base[c]
            third[c] = m.attributes[(3 * f + 2) * size + c] - base[c]
        sums = ti.Matrix.zero(self.real, 3, max(size, 1))
        means = ti.Vector.zero(self.real, 3)
        for i in range(count):
            t = ti.cast(i, self.real)
            factor = 1 + 0 * t
            if ti.static(self.view.perspective and (not self.view.orthographic)):
                factor = 1 / (whole + slope * t)
            u = (share[1] + in_x[1] * t) * factor
            v = (share[2] + in_x[2] * t) * factor
            mean = 0 * t
            for c in ti.static(range(size)):
                g = m.values[(size + 1) * (p + i) + c]
                mean += g * (base[c] + u * second[c] + v * third[c])
                sums[0, c] += g
                sums[1, c] += g * u
                sums[2, c] += g * v
            means[0] += mean
            means[1] += mean * u
            means[2] += mean * v
        means[0] -= means[1] + means[2]
        into = 3 * size * pair
        for c in ti.static(range(size)):
            sums[0, c] -= sums[1, c] + sums[2, c]
            for i in ti.static(range(3)):
                self.add(m.colours, into + i * size + c, sums[i, c])
        # What corner i has a share in, times the change of colour towards corner j.
        to_x = ti.Vector.zero(self.real, 3)
        to_y = ti.Vector.zero(self.real, 3)
        into = Pair.SIZE * pair
        for j in ti.static(range(3)):
            for i in ti.static(range(3)):
                change = -means[i]
                for c in ti.static(range(size)):
                    towards = base[c]
                    if ti.static(j == 1):
                        towards += second[c]
                    if ti.static(j == 2):
                        towards += third[c]
                    change += sums[i, c] * towards
                to_x[i] -= change * in_x[j]
                to_y[i] -= change * in_y[j]
                if ti.static(i == j and self.view.perspective and (not self.view.orthographic)):
                    w = m.faces[Face.SIZE * f + Face.W + i]
                    self.add(m.pairs, into + Pair.W + i, change / w)
        for i in ti.static(range(3)):
            factor = 1 + 0 * whole
            if ti.static(self.view.perspective and (not self.view.orthographic)):
                factor = 1 / m.faces[Face.SIZE * f + Face.W + i]
            self.add(m.pairs, into + 2 * i, to_x[i] * factor)
            self.add(m.pairs, into + 2 * i + 1, to_y[i] * factor)
