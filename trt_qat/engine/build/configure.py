"""A builder's network and config from `options.Options`: names become TensorRT's objects here."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from trt_qat.engine import compat
from trt_qat.engine.build.network_io import Network
from trt_qat.engine.build.options import Options, profiles
from trt_qat.engine.build.refusal import refusal
from trt_qat.errors import GraphError, InputError, nearest
from trt_qat.recipe.specs import BuildSpec


def make_network(trt: Any, builder: Any, onnx: Path, options: Options, log: Any) -> tuple[Any, Any]:
    """Return the parsed network and its parser, which must outlive it.

    Raises:
        GraphError: the parser refuses the file.
    """
    network = builder.create_network(compat.network_flags(trt, options.strong))
    parser = trt.OnnxParser(network, log)
    compat.native_norms(trt, parser)
    # From the file, so that weights outside it are found.
    if not parser.parse_from_file(str(onnx)):
        told = [str(parser.get_error(at)) for at in range(parser.num_errors)]
        raise GraphError(refusal(onnx, trt.__version__, told))
    return network, parser


def member(trt: Any, name: str) -> Any:
    """Return ``Class.MEMBER`` of the module, whether some version lacks it or none does."""
    if name in compat.GUARDED:
        return compat.find(trt, name)
    kind, _, rest = name.partition(".")
    return getattr(getattr(trt, kind), rest)


def configure(
    trt: Any, builder: Any, network: Any, spec: BuildSpec, options: Options, described: Network
) -> Any:
    """Return the builder's config.

    Raises:
        InputError: a profile or a pattern does not fit the network, or the version lacks an option.
    """
    config = builder.create_builder_config()
    for name in options.flags:
        config.set_flag(member(trt, name))
    for name in options.cleared:
        config.clear_flag(member(trt, name))
    for attribute, value in options.values.items():
        setattr(config, attribute, member(trt, value) if isinstance(value, str) else value)
    for name, limit in options.pools.items():
        config.set_memory_pool_limit(member(trt, name), limit)
    if options.sources is not None:
        bits = sum(1 << int(member(trt, name)) for name in options.sources)
        if not config.set_tactic_sources(bits):
            message = f"build.tactic_sources: TensorRT takes none of {list(options.sources)}"
            raise InputError(message)
    for index, ranges in enumerate(profiles(spec, described.inputs)):
        profile = builder.create_optimization_profile()
        for name, shape in ranges.items():
            profile.set_shape(name, shape.min, shape.opt, shape.max)
        if config.add_optimization_profile(profile) < 0:
            message = f"build.profiles[{index}]: TensorRT does not take it; see the log"
            raise InputError(message)
    if options.dla_core is not None and options.dla_core >= builder.num_DLA_cores:
        message = f"build.dla_core = {options.dla_core}: this machine has {builder.num_DLA_cores}"
        raise InputError(message)
    if not options.strong and spec.remainder == "fp16":
        _keep_fp32(trt, network, matching(spec.keep_fp32, described))
    return config


def matching(patterns: tuple[str, ...], described: Network) -> set[str]:
    """Return the names of the nodes that patterns of names, or operators, mean.

    Raises:
        InputError: a pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = {
            name
            for name, operator in described.nodes
            if operator == pattern or fnmatch.fnmatchcase(name, pattern)
        }
        if not hits:
            known = {word for node in described.nodes for word in node}
            close = ", ".join(nearest(pattern, known, 3))
            message = f"build.keep_fp32: {pattern!r} matches no node; nearest: {close}"
            raise InputError(message)
        found |= hits
    return found


def _keep_fp32(trt: Any, network: Any, names: set[str]) -> None:
    for at in range(network.num_layers if names else 0):
        layer = network.get_layer(at)
        if layer.name in names:
            compat.pin_fp32(trt, layer)
