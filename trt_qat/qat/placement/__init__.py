"""Q/DQ placement: from any model to quantizers where TensorRT can fuse them.

trace    the model's traceable regions (torch.fx)
kinds    what each operation is to the placement rules
flow     the data flow over all regions
constants what a graph computes of parameters alone
layers   which weighted layers are quantized
unread   which are run by no traced code
fusion   what TensorRT fuses into the layer before it
rules    where the quantizers go
rewrite  putting them there
"""

from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.placement.demand import Plan
from trt_qat.qat.placement.flow import Flow, Vertex, build_flow, observe_links
from trt_qat.qat.placement.rewrite import Placed, WeightSource, enclose, rewrite
from trt_qat.qat.placement.rules import decide
from trt_qat.qat.placement.trace import Trace, trace, untouched
from trt_qat.qat.placement.unread import unread_layers

__all__ = [
    "Flow",
    "Placed",
    "Plan",
    "Trace",
    "Vertex",
    "WeightSource",
    "build_flow",
    "decide",
    "enclose",
    "evaluated",
    "observe_links",
    "rewrite",
    "trace",
    "unread_layers",
    "untouched",
]
