"""The processes of one job: that they meet, what they agree on, and what ends all of them.

What is small goes over a gloo group of our own, on the CPU, whose waiting has no end: while the
first process exports or compares, the others wait. A process that dies closes its connections,
which the others notice at once.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trt_qat import launched
from trt_qat.errors import InputError, ModelError, RankLost, TrtQatError, first_line
from trt_qat.qat.tensors import tensors_in

_PATIENCE = timedelta(days=7)
_FAILED, _SAID = "trt_qat/failed", "trt_qat/said"
_GONE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|gloo|NCCL|Timed out|[Ss]ocket|TCPStore"
)
_own: dict[int, Any] = {}  # by the identity of the default group, which can be made anew
_alone = [False]


def join() -> int:
    """Meet the other processes, where a launcher started several; every one of them must call it.

    Returns:
        How many there are.

    Raises:
        RankLost: they could not meet.
    """
    if _alone[-1] or not dist.is_available():
        return 1
    if not dist.is_initialized():
        if launched.world() < 2:
            return 1
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        with watched():
            dist.init_process_group(backend)
        atexit.register(_leave)
    if world() > 1 and id(dist.group.WORLD) not in _own:
        with watched():
            group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        _own.clear()
        _own[id(dist.group.WORLD)] = group
        launched.let_speak(_speaks)
        # Of processes that torch.multiprocessing started; accelerate asks for them.
        os.environ.setdefault("RANK", str(rank()))
        os.environ.setdefault("WORLD_SIZE", str(world()))
        os.environ.setdefault("LOCAL_RANK", str(rank()))
    return world()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """Return how many processes have met; 1: this one is alone."""
    if _alone[-1] or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


@contextlib.contextmanager
def alone(wanted: bool = True) -> Iterator[None]:
    """Let what a process does in the block be its own affair, in which no other takes part.

    Args:
        wanted: False: within such a block they all take part again.
    """
    _alone.append(wanted)
    try:
        yield
    finally:
        _alone.pop()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def refuse(what: str) -> None:
    """Raise an error where several processes have met.

    Raises:
        InputError: they have; ``what`` says what goes by one process's data.
    """
    if world() > 1:
        message = f"{what}, and here are {world()}; do it in one process, and train in several"
        raise InputError(message)


def is_first() -> bool:
    """Tell whether this process is the one that writes."""
    return rank() == 0


def gathered(value: Any) -> list[Any]:
    """Return what each process gives, in their order, to all of them."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    with watched():
        dist.all_gather_object(found, value, group=_group())
    return found


def from_first(value: Any, source: int = 0) -> Any:
    """Return what one process gives, to all of them."""
    if world() == 1:
        return value
    holder = [value if rank() == source else None]
    with watched():
        dist.broadcast_object_list(holder, src=source, group=_group())
    return holder[0]


def summed(values: Tensor) -> Tensor:
    """Return the sum over the processes of a tensor of the CPU, which is changed."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(values: Tensor) -> Tensor:
    """Return the largest over the processes, element by element, likewise."""
    return _reduced(values, dist.ReduceOp.MAX)


def _reduced(values: Tensor, how: Any) -> Tensor:
    if world() > 1:
        with watched():
            dist.all_reduce(values, op=how, group=_group())
    return values


def same(batch: Any) -> bool:
    """Tell whether all processes hold the same tensors; of none at all, that they do not."""
    if world() == 1:
        return True
    found = hashlib.sha256()
    for tensor in tensors_in(batch):
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return len(set(gathered(None if batch is None else found.hexdigest()))) == 1


def share_state(model: nn.Module, *, weights: bool = True) -> None:
    """Give all processes the first one's parameters and buffers, or its buffers alone.

    Raises:
        ModelError: their models are not of one kind.
    """
    if world() == 1:
        return
    state = {key: value for key, value in model.named_buffers() if value is not None}
    if weights:
        state |= dict(model.named_parameters())
    kinds = gathered([(key, str(value.dtype), tuple(value.shape)) for key, value in state.items()])
    if any(kind != kinds[0] for kind in kinds):
        at = next(number for number, kind in enumerate(kinds) if kind != kinds[0])
        odd = next(iter(sorted(set(kinds[at]) ^ set(kinds[0]))), kinds[at][:1])
        message = (
            f"the models of process 0 and of process {at} differ ({odd}); every process must make "
            "the same model"
        )
        raise ModelError(message)
    with watched(), torch.no_grad():
        for value in state.values():
            given = value.detach().cpu().contiguous()
            dist.broadcast(given, src=0, group=_group())
            if rank():
                value.copy_(given)


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Let all processes fail where one does; the block must hold no other word between them.

    Raises:
        RankLost: another process failed in the block.
    """
    failed: BaseException | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if world() > 1:
        told = gathered(None if failed is None else _told(failed))
        others = [each for number, each in enumerate(told) if each and number != rank()]
        if failed is None and others:
            raise _lost(others[0])
    if failed is not None:
        raise failed


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Leave word of why the block failed, for the others to find when this process is gone."""
    try:
        yield
    except RankLost:
        raise
    except Exception as error:
        if world() > 1:
            with contextlib.suppress(RuntimeError):
                _store().compare_set(_FAILED, "", json.dumps(_told(error)))
        raise


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Say in one sentence that another process is gone, which torch tells of by sockets.

    Raises:
        RankLost: one is.
    """
    try:
        yield
    except TrtQatError:
        raise
    except RuntimeError as error:
        if not _GONE.search(str(error)):
            raise
        if not dist.is_initialized():
            message = f"the processes of this job did not meet: {first_line(error)}"
            raise RankLost(message) from error
        raise _lost(_word()) from error


def _told(error: BaseException) -> dict[str, Any]:
    ours = isinstance(error, TrtQatError)
    what = str(error) if ours else f"{type(error).__name__}: {first_line(error)}"
    return {"rank": rank(), "what": what, "code": getattr(error, "exit_code", 1)}


def _lost(word: dict[str, Any] | None) -> RankLost:
    if word is None:
        return RankLost(
            f"another of the {world()} processes of this job is gone without a word: it was "
            "killed, or its machine is; start all of them again, with resume a training goes on "
            "from its checkpoint"
        )
    found = RankLost(f"process {word['rank']} of {world()} failed: {word['what']}", said=True)
    found.exit_code = int(word["code"])
    return found


def _word() -> dict[str, Any] | None:
    """Return what a process that failed has left, None where it had no time to."""
    try:
        store = _store()
        return json.loads(store.get(_FAILED)) if store.check([_FAILED]) else None
    except (RuntimeError, ValueError):  # the store was that process's
        return None


def _speaks() -> bool:
    try:
        return bool(_store().add(_SAID, 1) == 1)
    except RuntimeError:
        return True


def _group() -> Any:
    return _own[id(dist.group.WORLD)]


def _store() -> Any:
    """Return where the processes met.

    torch has no public way to it, and a second one would need a port of its own.
    """
    return dist.distributed_c10d._get_default_store()
