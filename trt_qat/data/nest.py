"""Nests of arrays: what a batch holds, tuples and dicts with arrays at their ends.

In a batch every array has the samples along its first axis. A list whose members are no arrays has
one member a sample, as the boxes of an image have no shape in common with the next one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError

Nest = Any
Array = NDArray[Any]
Rows = NDArray[np.int64]


def is_array(value: Any) -> bool:
    """Tell whether a value is an array, a tensor of the CPU or a number."""
    return hasattr(value, "__array__") or isinstance(value, (bool, int, float, complex))


def by_sample(value: Any) -> bool:
    """Tell whether a list has one member a sample, instead of one array a part."""
    return isinstance(value, list) and not all(is_array(member) for member in value)


def mapped(value: Nest, change: Callable[[Any], Any]) -> Nest:
    """Return the nest with every array in it changed; other leaves stay."""
    if isinstance(value, Mapping):
        return {key: mapped(member, change) for key, member in value.items()}
    if by_sample(value):
        return [mapped(member, change) for member in value]
    if isinstance(value, (tuple, list)):
        return tuple(mapped(member, change) for member in value)
    return change(value) if is_array(value) else value


def as_arrays(value: Nest) -> Nest:
    """Return the nest with every tensor and number as a numpy array."""
    return mapped(value, _array)


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):  # a tensor, without importing torch
        value = value.detach().cpu()
    return np.asarray(value)


def leaves(value: Nest, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every array of a nest with its path of keys and positions."""
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from leaves(member, (*path, str(key)))
    elif isinstance(value, (tuple, list)):
        for position, member in enumerate(value):
            yield from leaves(member, (*path, str(position)))
    elif is_array(value):
        yield path, value


def count(batch: Nest, where: str = "a batch") -> int:
    """Return the number of samples in a batch.

    Raises:
        DataError: it holds none, or its parts have different numbers of them.
    """
    sizes = set(_sizes(batch))
    if len(sizes) != 1:
        found = f"parts of {sorted(sizes)} samples" if sizes else "no array"
        message = f"{where} holds {found}; every part must have one entry a sample"
        raise DataError(message)
    return sizes.pop()


def _sizes(value: Nest) -> Iterator[int]:
    if by_sample(value):
        yield len(value)
    elif isinstance(value, (Mapping, tuple, list)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _sizes(member)
    elif is_array(value) and np.ndim(value):
        yield len(value)


def rows(batch: Nest, chosen: Rows | slice) -> Nest:
    """Return the chosen samples of a batch."""
    if isinstance(batch, Mapping):
        return {key: rows(member, chosen) for key, member in batch.items()}
    if by_sample(batch):
        return batch[chosen] if isinstance(chosen, slice) else [batch[int(at)] for at in chosen]
    if isinstance(batch, (tuple, list)):
        return tuple(rows(member, chosen) for member in batch)
    return batch[chosen] if is_array(batch) and np.ndim(batch) else batch


def stacked(samples: Sequence[Nest]) -> Nest:
    """Return samples as a batch: arrays of one shape are stacked, all else is a list."""
    first = samples[0]
    if isinstance(first, Mapping) and _stackable(samples):
        return {key: stacked([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)) and _stackable(samples):
        return tuple(stacked(members) for members in zip(*samples, strict=True))
    if is_array(first) and _stackable(samples):
        return np.stack([_array(sample) for sample in samples])
    return [as_arrays(sample) for sample in samples]


def _stackable(samples: Sequence[Nest]) -> bool:
    """Tell whether all samples have the same keys, and arrays of the same shapes."""
    shapes = [
        [(path, np.shape(leaf)) for path, leaf in leaves(sample)] for sample in map(_plain, samples)
    ]
    return all(shape == shapes[0] for shape in shapes)


def _plain(sample: Nest) -> Nest:
    return sample if isinstance(sample, (Mapping, tuple, list)) else (sample,)


def joined(batches: Sequence[Nest]) -> Nest:
    """Return batches of one structure as one."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {key: joined([batch[key] for batch in batches]) for key in first}
    if by_sample(first):
        return [sample for batch in batches for sample in batch]
    if isinstance(first, (tuple, list)):
        return tuple(joined(members) for members in zip(*batches, strict=True))
    if is_array(first) and np.ndim(first):
        return np.concatenate(list(batches))
    return first


def digest_of(value: Nest) -> bytes:
    """Return 16 bytes that tell one nest from another: of paths, types, shapes and content."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in leaves(value):
        array = np.ascontiguousarray(_array(leaf))
        found.update(f"{'.'.join(path)} {array.dtype.str} {array.shape};".encode())
        found.update(array.tobytes())
    return found.digest()


def identities(batch: Nest) -> NDArray[np.int64]:
    """Return a number for the content of every sample, ``(N,) int64``."""
    whole = as_arrays(batch)
    digests = (digest_of(rows(whole, slice(at, at + 1))) for at in range(count(whole)))
    return np.array([int.from_bytes(digest[:8], "little", signed=True) for digest in digests])


def shapes(value: Nest) -> dict[str, list[int]]:
    """Return the shape of every array by its path, as ``labels.boxes``; a lone one has ``""``."""
    return {".".join(path): list(np.shape(leaf)) for path, leaf in leaves(value)}


def feed_of(inputs: Nest, names: Sequence[str]) -> dict[str, Array]:
    """Return a batch's inputs as a runner takes them.

    Args:
        inputs: an array, or a nest of them.
        names: of the model's inputs; taken as the keys of a dict where it has all of them, else
            in the order of the arrays.

    Raises:
        DataError: there are more or fewer arrays than inputs.
    """
    whole = as_arrays(inputs)
    if isinstance(whole, Mapping) and set(names) <= set(whole):
        return {name: whole[name] for name in names}
    arrays = [leaf for _, leaf in leaves(whole)]
    if len(arrays) != len(names):
        message = f"the data gives {len(arrays)} inputs, the model takes {', '.join(names)}"
        raise DataError(message)
    return dict(zip(names, arrays, strict=True))


def structure(value: Nest, names: Sequence[str]) -> Nest:
    """Return the form of a nest as JSON, with a name in place of every array, for `restored`.

    Args:
        value: a nest.
        names: of its arrays, in the order of `leaves`.
    """
    return _form(value, iter(names))


def _form(value: Nest, names: Iterator[str]) -> Nest:
    if isinstance(value, Mapping):
        return {"dict": {str(key): _form(member, names) for key, member in value.items()}}
    if isinstance(value, (tuple, list)):
        kind = "list" if by_sample(value) else "tuple"
        return {kind: [_form(member, names) for member in value]}
    if is_array(value):
        return next(names)
    return {"value": value if isinstance(value, (str, type(None))) else str(value)}


def restored(form: Nest, arrays: Mapping[str, Array]) -> Nest:
    """Return named arrays in the form that `structure` wrote down."""
    if isinstance(form, str):
        return arrays[form]
    ((kind, inner),) = form.items()
    if kind == "dict":
        return {key: restored(member, arrays) for key, member in inner.items()}
    if kind in ("tuple", "list"):
        members = [restored(member, arrays) for member in inner]
        return members if kind == "list" else tuple(members)
    return inner
