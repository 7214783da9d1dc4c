"""Spread a training or a search over several processes, started by torchrun.

A script that `torchrun` starts N times becomes N ranks of one run, on one machine or several. Its
only change is a call of `join()` before `taichi_raster.init`:

    import meta, taichi_raster as tr
    meta.join()
    tr.init(arch="cpu")

    torchrun --nproc-per-node 2 --max-restarts 3 train.py

Every rank draws the same batch, solves its share of the instances, and gets the mean over all. N
processes give the result of one, up to rounding. Each has its own Taichi runtime: on a CPU `join`
gives it a part of the cores, on a machine with several GPUs its own GPU.

Collectives raise `WorkerLost` when a rank has died or hangs. `torchrun --max-restarts` then
restarts all ranks, and a trainer with `resume="auto"` resumes from its last checkpoint.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from meta.outer.estimator import Shard

logger = logging.getLogger(__name__)

TIMEOUT = 120.0
"""Seconds that ranks wait for one another, by default. It bounds how unequal their steps may be."""

Result = TypeVar("Result")


class WorkerLost(RuntimeError):
    """Another rank died or did not answer within the timeout; the message says what to do."""


@dataclass(frozen=True)
class World:
    """The processes of a run: this one's rank, their number, and how long they wait (seconds).

    Every method but `shard` is collective: all ranks call it, in the same order. With one process
    they do nothing. Ranks exchange pickled objects of their own; none is read from a file.
    """

    rank: int = 0
    size: int = 1
    timeout: float = TIMEOUT

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    def shard(self, total: int, name: str = "batch_size") -> Shard:
        """This rank's contiguous share of `total` instances; shares differ by one at most.

        Raises ValueError, naming the argument `name`, if there are more processes than instances.
        """
        if self.size > total:
            raise ValueError(
                f"{name}: {total} instances cannot be spread over {self.size} processes; start at "
                f"most {total} processes, or raise {name}"
            )
        begin, end = self.rank * total // self.size, (self.rank + 1) * total // self.size
        return Shard(tuple(range(begin, end)), total)

    def gather(self, thing: Result) -> list[Result]:
        """What every rank passed, by rank."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        with self._collective():
            dist.all_gather_object(things, thing)
        return things

    def from_main(self, function: Callable[[], Result]) -> Result:
        """Call `function` on rank 0 alone; every rank returns its result or raises its error."""
        if self.size == 1:
            return function()
        sent: list[Any] = [None]
        if self.is_main:
            try:
                sent = [(function(), None)]
            except Exception as raised:  # noqa: BLE001 - on every rank, below
                sent = [(None, _portable(raised))]
        with self._collective():
            dist.broadcast_object_list(sent, src=0)
        result, error = sent[0]
        if error is not None:
            raise error
        return result

    def raise_any(self, error: Exception | None) -> None:
        """Raise on every rank an error of any rank: there the error itself, elsewhere a copy."""
        errors = self.gather(_portable(error))
        if error is not None:
            raise error
        for rank, other in enumerate(errors):
            if other is not None:
                raise type(other)(f"rank {rank} failed: {other}")

    def mean(self, tensors: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Mean over ranks, each with its weight (>= 0, not all 0); names and shapes are equal.

        One all_reduce in float64. A rank of weight 0 may hold anything.
        """
        if self.size == 1:
            return dict(tensors)
        device = _device()
        values = [t.detach().to(device, torch.float64).reshape(-1) for t in tensors.values()]
        values = [weight * value if weight > 0 else torch.zeros_like(value) for value in values]
        own = torch.tensor([weight], dtype=torch.float64, device=device)
        flat = torch.cat([*values, own])
        with self._collective():
            dist.all_reduce(flat)
        flat = flat[:-1] / flat[-1]
        pieces = flat.split([tensor.numel() for tensor in tensors.values()])
        return {
            name: piece.reshape(tensor.shape).to(tensor)
            for (name, tensor), piece in zip(tensors.items(), pieces, strict=True)
        }

    def require_equal(self, what: str, value: str) -> None:
        """Raise RuntimeError unless all ranks pass the same text."""
        values = self.gather(value)
        if len(set(values)) > 1:
            raise RuntimeError(
                f"the ranks' {what} differ ({', '.join(values)}): build the method from the same "
                "seeds and start all ranks with the same program and arguments"
            )

    @contextmanager
    def _collective(self) -> Iterator[None]:
        try:
            if dist.get_backend() == "gloo":  # names the rank that does not come
                dist.monitored_barrier(timeout=timedelta(seconds=self.timeout))
            yield
        except RuntimeError as error:
            said = str(error).strip().splitlines()[0]
            raise WorkerLost(
                f"rank {self.rank} of {self.size}: another process died or kept the others waiting "
                f"for more than {self.timeout:g} s ({said}); start again, resuming from the last "
                "checkpoint (torchrun --max-restarts does so by itself)"
            ) from error


_joined: World | None = None


def join(timeout: float = TIMEOUT, backend: str | None = None) -> World:
    """Join the run that `torchrun` started this process for; without torchrun, a run of one.

    Call it before `taichi_raster.init`, so that this process gets its part of the machine: a share
    of the cores (unless TI_CPU_MAX_NUM_THREADS is set), or its own GPU. Later calls return the same
    `World`; `world` calls it if the script has not.

    Args:
        timeout: seconds that ranks wait for one another, > 0.
        backend: of torch.distributed; "nccl" where each local rank has a GPU, else "gloo".
    """
    global _joined
    if not timeout > 0:
        raise ValueError(f"timeout must be > 0 seconds, got {timeout}")
    if _joined is not None:
        return _joined
    if not dist.is_initialized():
        if not (_started_by_torchrun() and int(os.environ["WORLD_SIZE"]) > 1):
            return World()
        chosen = backend or ("nccl" if _gpu_each() else "gloo")
        _take_part_of_machine(gpu=chosen == "nccl")
        # with gloo, `World` waits no longer than timeout; to start, processes may take longer
        bound = timedelta(seconds=timeout if chosen == "nccl" else max(timeout, TIMEOUT))
        store, rank, size = next(rendezvous("env://", timeout=bound))
        fresh = _fresh_store(store, rank, size, bound)
        _import_before_group()
        dist.init_process_group(chosen, store=fresh, rank=rank, world_size=size, timeout=bound)
        atexit.register(_leave)
    _joined = World(dist.get_rank(), dist.get_world_size(), timeout)
    logger.info("rank %d of %d, by %s", _joined.rank, _joined.size, dist.get_backend())
    return _joined


def _import_before_group() -> None:
    """Import what binds the group of that moment to its default arguments, for good.

    Torch itself imports it during a training. `_leave` would then join no thread.
    """
    importlib.import_module("torch.distributed.nn.functional")


def _leave() -> None:
    """Join torch's communication threads before the interpreter shuts down.

    A thread that frees a tensor during shutdown ends the process with "terminate called without an
    active exception", and torchrun would restart a finished run. The threads are joined when the
    last reference to the group goes: hence the collection of cycles.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def world() -> World:
    """The processes of this run; joins them first if `join` was not called."""
    return join()


def _started_by_torchrun() -> bool:
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def _fresh_store(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """A part of the store without addresses of an earlier attempt.

    torchrun may keep the store over restarts, and gloo would then connect to processes that no
    longer exist. Rank 0 chooses a fresh prefix, and tells it to each rank under a key that the rank
    made up itself.
    """
    own = uuid.uuid4().hex
    store.set(f"hello/{rank}", own)
    if rank > 0:
        try:
            store.wait([f"name/{own}"], timeout)
        except RuntimeError as error:
            raise WorkerLost(f"rank {rank} of {size} found no rank 0 within {timeout}") from error
        name = store.get(f"name/{own}").decode()
        store.set(f"{name}/{rank}", "here")
        return PrefixStore(name, store)
    missing = set(range(1, size))
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"hello/{other}"]):  # perhaps of an earlier attempt: then ask again
                store.set(f"name/{store.get(f'hello/{other}').decode()}", own)
            if store.check([f"{own}/{other}"]):
                missing.discard(other)
        if missing and time.monotonic() > deadline:
            raise WorkerLost(f"of {size} ranks, {sorted(missing)} did not start within {timeout}")
        time.sleep(0.02)
    return PrefixStore(own, store)


def _take_part_of_machine(gpu: bool) -> None:
    """Set the threads and the GPU of this rank; a Taichi that already runs keeps its own."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    has = getattr(os, "sched_getaffinity", None)  # not on every system
    threads = max(1, (len(has(0)) if has else os.cpu_count() or 1) // local)
    os.environ.setdefault("TI_CPU_MAX_NUM_THREADS", str(threads))
    torch.set_num_threads(min(torch.get_num_threads(), threads))
    if not gpu or local == 1:
        return
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_initialized():
        torch.cuda.set_device(place)
    else:  # Taichi always takes the first that it sees
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[place] if seen else str(place)


def _gpu_each() -> bool:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return dist.is_nccl_available() and torch.cuda.device_count() >= local


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _portable(error: Exception | None) -> Exception | None:
    """The error in a form that other ranks can raise."""
    if error is None:
        return None
    try:
        copied = pickle.loads(pickle.dumps(error))
        type(copied)("")  # it can be made from a text
        return copied
    except Exception:  # noqa: BLE001 - an error of some unusual make
        return RuntimeError(f"{type(error).__name__}: {error}")
