"""A second device on a machine without a GPU: torch's "meta", whose tensors have no values.

Of itself torch lets some operations mix tensors of "meta" with others, which is an error on a GPU,
so that `one_device` looks at every operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

AWAY = torch.device("meta")
_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default}


class one_device(TorchDispatchMode):
    """Within it, torch computes with tensors of one device, and numbers (0-d) of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func is _aten.index.Tensor and args[0].device == AWAY:
            tensors = tensors[:1]  # its indices may come from the CPU
        behind = [tuple(x.shape) for x in tensors if x.device != AWAY and x.ndim > 0]
        if behind and func not in _COPIES and any(x.device == AWAY for x in tensors):
            raise RuntimeError(f"{func}: some tensors are on {AWAY}, those of {behind} are not")
        return func(*args, **(kwargs or {}))
