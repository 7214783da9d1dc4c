"""Renderers and softnesses behave as torch users expect of modules."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta import Adam, Method
from taichi_raster.softness.schedule import as_progress, as_shift

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def learned(seed: int = 0) -> tr.SoftRasterizer:
    """A renderer with something to learn in every part."""
    edge = tr.MLPSoftness((2, 2), scale=tr.Knots([0.2, 0.05]), progress=True, seed=seed)
    with torch.no_grad():
        for name, value in edge.named_parameters():
            if "weights" in name:
                g = torch.Generator().manual_seed(seed + len(name))
                value.add_(0.3 * torch.randn(value.shape, generator=g, dtype=value.dtype))
    gamma = tr.Knots([0.1 * (seed + 1), 0.02])
    alpha = tr.TConorm("yager", tr.Knots([1.5 + seed]))
    background = nn.Parameter(torch.tensor([0.1 + 0.2 * seed]))
    return tr.SoftRasterizer(12, edge, tr.SoftmaxDepth(gamma), alpha, background)


def fixed() -> tr.SoftRasterizer:
    """A renderer of plain numbers, and one parameter."""
    scale = nn.Parameter(torch.tensor(0.1))
    return tr.SoftRasterizer(12, tr.Distribution("logistic", scale), alpha=tr.TConorm("yager", 1.5))


def image(renderer: nn.Module, progress: float = 0.3) -> Tensor:
    g = torch.Generator().manual_seed(3)
    xy, colours = torch.rand(1, 4, 3, 2, generator=g) * 2 - 1, torch.rand(1, 4, 3, 1, generator=g)
    faces = tr.lift_triangles(xy, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    return renderer(faces, colours, progress=progress).detach()


def test_everything_that_holds_numbers_is_a_module() -> None:
    parts: list[object] = [
        *learned().children(),
        tr.SharpRasterizer(),
        tr.HardDepth(),
        tr.MLPDepth(),
        tr.OverDepth(),
        tr.DistributionDepth("logistic"),
        tr.tabulate(tr.MLPSoftness((2, 2))),
        tr.Constant(1.0),
        tr.Geometric(0.1, 0.01),
        tr.Knots([1.0]),
        tr.Softening(tr.Distribution("logistic")),
        tr.LaplacianLoss(torch.tensor([[0, 1, 2]]), 3),
        Method(learned(), Adam(), tr.Constant(0.1), 2),
    ]
    assert all(isinstance(part, nn.Module) for part in parts)


def test_a_state_dict_carries_all_that_is_learnable() -> None:
    one, other = learned(0), learned(1)
    expected = image(one)
    assert float((image(other) - expected).abs().max()) > 0.01
    state = one.state_dict()
    assert {name for name, _ in one.named_parameters()} <= set(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(image(other), expected)
    assert torch.equal(image(other, 0.9), image(one, 0.9))


def test_numbers_that_are_not_learnable_are_arguments_and_not_state() -> None:
    scale = torch.tensor(0.1, requires_grad=True) * 1  # somebody else's, in a graph
    edge = tr.Distribution("logistic", scale)
    assert not tr.SoftRasterizer(8, edge, background=(0.1, 0.2)).state_dict()
    assert edge.scale(as_progress(None, 1)) is scale


def _holding_tensors() -> list[nn.Module]:
    """Modules that were given tensors wherever they take some."""
    value = torch.tensor([0.3, 0.4], dtype=torch.float64)
    mesh = tr.icosphere(0, dtype=torch.float64)
    return [
        tr.Constant(value),
        tr.Geometric(value, value / 2),
        tr.Knots([0.1, 0.2]),
        as_shift("shift", -value),
        tr.TConorm("yager", value),
        tr.TConorm(),
        tr.SoftmaxDepth(value, value),
        tr.DistributionDepth("gamma", value, value, value, value),
        tr.MLPDepth(gamma=value, background_z=value),
        tr.OverDepth(value),
        tr.HardDepth(),
        tr.Distribution("gamma", value, False, value, value),
        tr.MLPSoftness(scale=value),
        tr.SoftRasterizer(8, background=value),
        tr.SharpRasterizer(8, background=value),
        tr.Softening(tr.Distribution("logistic", value), lr=value),
        tr.SmoothOffsets(mesh, 1.0),
        tr.LaplacianLoss(mesh.faces, 12),
        tr.FlatteningLoss(mesh.faces, 12),
        tr.NormalConsistencyLoss(mesh.faces, 12),
        tr.EdgeLengthLoss(mesh.faces, 12),
    ]


@pytest.mark.parametrize("module", _holding_tensors(), ids=lambda m: type(m).__name__)
def test_every_tensor_of_a_module_moves_with_it(module: nn.Module) -> None:
    for part in module.modules():
        assert not [name for name, value in vars(part).items() if isinstance(value, Tensor)]
    learnable = list(module.parameters())
    moved = copy.deepcopy(module).to("meta")
    held = [*moved.parameters(), *moved.buffers()]
    assert all(value.device.type == "meta" for value in held)
    assert len(list(moved.parameters())) == len(learnable)


def _scenes() -> list[object]:
    """Everything public that holds a scene's tensors, and is no module."""
    mesh = tr.plane(1, 1)
    value, vector = torch.tensor([0.3]), torch.tensor([[0.1, 0.2, 0.3]])
    view, corners = tr.orbit(2.0, 10.0, 20.0), mesh.vertices[mesh.faces][None]
    return [
        mesh,
        tr.collate([mesh, tr.box()]),
        tr.PerspectiveCamera(view, value),
        tr.PinholeCamera(view, vector[:, :2], vector[:, 1:], value),
        tr.OrthographicCamera(view, value, vector[:, :2]),
        tr.AmbientLight(vector),
        tr.DirectionalLight(vector, vector),
        tr.PointLight(vector, vector),
        tr.Material(vector, value),
        tr.UVTexture(mesh.corner_uv(), torch.rand(1, 2, 2, 3), "clamp"),
        tr.SurfaceTexture(torch.rand(1, 2, 2, 2, 3), corners),
        tr.clip_near(corners + 1, corners),
        tr.PerspectiveCamera(view).project_faces(mesh.vertices[None], mesh.faces, corners),
        tr.HardBuffers(mesh.faces[None], corners, corners[..., 0]),
    ]


def _tensors_in(value: object) -> list[Tensor]:
    values = value if isinstance(value, tuple) else vars(value).values()
    found = [
        [each] if isinstance(each, Tensor) else _tensors_in(each) if isinstance(each, tuple) else []
        for each in values
    ]
    return [tensor for part in found for tensor in part]


@pytest.mark.parametrize("scene", _scenes(), ids=lambda s: type(s).__name__)
def test_every_tensor_of_a_scene_moves_with_it(scene) -> None:
    before, after = _tensors_in(scene), _tensors_in(scene.to("cpu", torch.float64))
    assert type(scene.to(torch.float64)) is type(scene) and len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new.dtype == (torch.float64 if old.is_floating_point() else old.dtype)
        assert torch.equal(old.double(), new.double())
    assert all(a is b for a, b in zip(before, _tensors_in(scene.to("cpu")), strict=True))
    with pytest.raises(TypeError, match=r"^dtype: "):
        scene.to(torch.int32)


P_OF = {"yager": 1.5, "schweizer_sklar": -0.7, "hamacher": 0.0}


@pytest.mark.parametrize("name", P_OF)
def test_the_parameter_of_a_conorm_is_a_schedule(name: str) -> None:
    for value in (P_OF[name], torch.tensor(P_OF[name]), nn.Parameter(torch.tensor(P_OF[name]))):
        alpha = tr.TConorm(name, value)
        assert isinstance(alpha.p, tr.Schedule) and alpha.at(torch.ones(())) == P_OF[name]
        own = [value] if isinstance(value, nn.Parameter) else []
        assert [*map(id, alpha.parameters())] == [*map(id, own)]
        assert list(alpha.state_dict()) == ["p.value"] * len(own)
    assert isinstance(tr.TConorm().p, tr.Schedule)


class _Falling(tr.Schedule):
    def forward(self, u: Tensor) -> Tensor:
        return -1 - u


def test_a_negative_parameter_may_follow_progress() -> None:
    alpha = tr.TConorm("schweizer_sklar", _Falling())
    assert float(alpha.at(torch.tensor(0.5))) == -1.5


def test_state_dicts_with_the_parameter_itself_still_load() -> None:
    def make(p: float) -> tr.SoftRasterizer:
        return tr.SoftRasterizer(8, alpha=tr.TConorm("yager", nn.Parameter(torch.tensor(p))))

    renderer = make(1.5)
    renderer.load_state_dict({"alpha.p": torch.tensor(2.5)})
    assert float(renderer.alpha.at(torch.ones(()))) == 2.5
    alone = make(1.5).alpha
    alone.load_state_dict({"p": torch.tensor(2.5)})
    assert alone.state_dict() == {"p.value": torch.tensor(2.5)}


@pytest.mark.parametrize("learnable", [True, False])
def test_pickles_with_the_parameter_itself_still_load(learnable: bool) -> None:
    value = torch.tensor(1.5)
    old = tr.TConorm("yager", 2.0)
    del old._modules["p"]  # as it was before p was always a schedule
    if learnable:
        old._parameters["p"] = nn.Parameter(value)
    else:
        old.__dict__["p"] = value
    found = pickle.loads(pickle.dumps(old))
    assert float(found.at(torch.ones(()))) == 1.5
    assert list(found.state_dict()) == (["p.value"] if learnable else [])


@pytest.mark.parametrize("make", [learned, fixed])
def test_copies_and_pickles_render_the_same_and_share_nothing(make) -> None:
    original = make()
    expected = image(original)
    whole = io.BytesIO()
    torch.save(original, whole)
    whole.seek(0)
    copies = (
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
        torch.load(whole, weights_only=False),
    )
    for twin in copies:
        assert torch.equal(image(twin), expected)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1.5)
        assert not torch.equal(image(twin), expected)
    assert torch.equal(image(original), expected)


@pytest.mark.parametrize(
    "softness",
    [
        tr.tabulate(tr.MLPSoftness((2, 2), scale=0.1)),
        tr.Distribution("gamma", 0.1, shape=2.0),
        tr.MLPSoftness((2, 2), progress=True),
    ],
    ids=["table", "distribution", "network"],
)
def test_softnesses_alone_are_copied_and_pickled(softness: tr.EdgeSoftness) -> None:
    u = torch.tensor(0.3, dtype=torch.float64)
    state = softness.at(u, 1e-6)
    for twin in (copy.deepcopy(softness), pickle.loads(pickle.dumps(softness))):
        found = twin.at(u, 1e-6)
        assert found.reach == state.reach and torch.equal(found.scale, state.scale)
        assert torch.equal(found.shape, state.shape)
        assert (found.weights is None) == (state.weights is None)
        if state.weights is not None and found.weights is not None:
            assert torch.equal(found.weights, state.weights)
        assert twin.state_dict().keys() == softness.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_modules_go_to_another_precision_and_images_stay_in_that_of_init(dtype) -> None:
    renderer = learned()
    expected = image(renderer)
    moved = copy.deepcopy(renderer).to(dtype)
    assert {p.dtype for p in moved.parameters()} == {dtype}
    found = image(moved)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < (0.02 if dtype == torch.float16 else 1e-5)


DEPTHS = (tr.SoftmaxDepth, tr.HardDepth, tr.OverDepth, lambda: tr.OverDepth(0.1))


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_default_device_does_not_concern_what_a_renderer_makes_itself(depth) -> None:
    xy, z = torch.rand(1, 4, 3, 2) * 2 - 1, torch.tensor([1.0, 2.0, 3.0, 4.0])
    faces, colours = tr.lift_triangles(xy, z), torch.rand(1, 4, 3, 1)

    def images() -> list[Tensor]:
        soft = tr.SoftRasterizer(8, tr.MLPSoftness(init=None), depth())
        return [soft(faces, colours), tr.SharpRasterizer(8)(faces, None)]

    expected = images()
    with torch.device("meta"):
        found = images()
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_a_method_round_trips() -> None:
    one = Method(learned(0), Adam(), tr.Knots([0.1, 0.01]), 3)
    other = pickle.loads(pickle.dumps(Method(learned(1), Adam(), tr.Knots([0.2, 0.02]), 3)))
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(other.state_dict()[k], v) for k, v in one.state_dict().items())
    assert other.steps == 3 and other.rule == one.rule
