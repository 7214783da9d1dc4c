"""The faces of each tile: a GPU's two ways to list them give what a CPU's way gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.engine import tile_lists
from taichi_raster.engine.engine import Engine, on_engine
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def strewn_faces(faces: int) -> Tensor:
    """(2, F, 3, 3): triangles large and small, within the image, across its border, and beyond."""
    g = torch.Generator().manual_seed(faces)
    centre = 2.6 * torch.rand(2, faces, 1, 2, generator=g, dtype=torch.float64) - 1.3
    size = 10 ** (-2 * torch.rand(2, faces, 1, 1, generator=g, dtype=torch.float64))
    corners = centre + size * torch.randn(2, faces, 3, 2, generator=g, dtype=torch.float64)
    z = 1 + 5 * torch.rand(2, faces, 3, 1, generator=g, dtype=torch.float64)
    return torch.cat([corners, z], -1)


def lists(
    current: Engine, call: Call, x: Tensor, background: Tensor, way: str
) -> tuple[list[int], list[int]]:
    """Where each tile's list begins, and the lists."""
    fields = current.scratch
    current.place(call, x, background)  # on a CPU
    if way != "CPU":
        transfer.clear(fields, fields.tile_begin, call.batch * call.tiles + 2)
        transfer.clear(fields, fields.tile_faces, fields.capacity("tile_faces"))
        before = tile_lists.MARKS
        tile_lists.MARKS = 0 if way == "sorted" else before
        try:
            tile_lists.list_faces(current.cache, fields, call, True, x)
        finally:
            tile_lists.MARKS = before
    begin = transfer.read(fields, fields.tile_begin, x, call.batch * call.tiles + 1).tolist()
    return begin, transfer.read(fields, fields.tile_faces, x, begin[-1]).tolist()


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Call, Tensor, Tensor]]:
    """The calls that are rendered, with their inputs."""
    found: list[tuple[Call, Tensor, Tensor]] = []
    place = Engine.place

    def noting(self: Engine, call: Call, x: Tensor, background: Tensor) -> None:
        found.append((call, x, background))
        place(self, call, x, background)

    monkeypatch.setattr(Engine, "place", noting)
    return found


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize(("faces", "size"), [(1, (8, 8)), (40, (77, 130)), (40, (5, 3))])
def test_all_ways_list_the_same_faces_in_the_same_order(
    faces: int, size: tuple[int, int], cull: bool, caught: list[tuple[Call, Tensor, Tensor]]
) -> None:
    edge = tr.Distribution("logistic", 0.005)
    tr.SoftRasterizer(size, edge, near=1.0, far=5.0, cull_backfaces=cull).silhouette(
        strewn_faces(faces)
    )
    ((call, x, background),) = caught
    begin, listed = on_engine(lists, call, x, background, "CPU")
    assert begin == sorted(begin) and len(listed) == begin[-1]
    assert faces == 1 or len(listed) > call.tiles
    for way in ("marked", "sorted"):
        assert on_engine(lists, call, x, background, way) == (begin, listed)


def test_no_face_in_sight_gives_empty_lists(caught: list[tuple[Call, Tensor, Tensor]]) -> None:
    away = strewn_faces(3) + torch.tensor([50.0, 0.0, 0.0], dtype=torch.float64)
    tr.SoftRasterizer((20, 30), near=1.0, far=9.0).silhouette(away)
    ((call, x, background),) = caught
    for way in ("CPU", "marked", "sorted"):
        begin, listed = on_engine(lists, call, x, background, way)
        assert begin == [0] * (call.batch * call.tiles + 1) and not listed


def test_more_pairs_than_an_index_can_name_are_refused(
    caught: list[tuple[Call, Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tr.SoftRasterizer(8, near=1.0, far=9.0).silhouette(strewn_faces(3))
    ((call, x, background),) = caught
    monkeypatch.setattr(Tensor, "cumsum", lambda *_: torch.tensor([1 << 31]))
    with pytest.raises(MemoryError, match=r"more than 2\^31 entries.* raise the threshold"):
        on_engine(lists, call, x, background, "sorted")
