"""What a recipe decides, as frozen typed values: one class per stage, every field with a default.

The recipe's TOML tables have the names of the fields of `EngineSpec`. Defaults are the ones that
the benchmarks in ``benchmarks/`` measured; a field's description is what the CLI shows.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trt_qat.recipe.accuracy import Algorithm, RangeRule, RecoverySpec
from trt_qat.recipe.accuracy import DistillSpec as DistillSpec
from trt_qat.recipe.accuracy import PtqSpec as PtqSpec
from trt_qat.recipe.quantizing import QuantizeSpec as QuantizeSpec
from trt_qat.recipe.sparsity import MovingMasksSpec, masks_must_move
from trt_qat.recipe.sparsity import SparsitySpec as SparsitySpec
from trt_qat.recipe.spec import Fraction, Patterns
from trt_qat.recipe.spec import Spec as Spec
from trt_qat.recipe.task import TaskSpec as TaskSpec

TacticSourceName = Literal[
    "cublas", "cublas_lt", "cudnn", "edge_mask_convolutions", "jit_convolutions"
]


class ModelSpec(Spec):
    """Which network: a reference name or an import path, and the arguments of its factory."""

    factory: str = Field(description="reference name, or package.module:factory")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of it")
    weights: str | None = Field(
        default=None, description="float checkpoint (.pt or .safetensors); absent: trained by us"
    )


class DataSpec(Spec):
    """Which data: a built-in name, a folder of images by class, an .npz, or an import path."""

    source: str = Field(description="digits, fashion-mnist, a folder, an .npz, package.module:fn")
    path: str | None = Field(default=None, description="where a built-in set's files lie")
    size: int | None = Field(
        default=None, ge=1, description="pixels; images of a folder are resized to size x size"
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="images of a folder are converted; absent: as in the files"
    )
    mean: tuple[float, ...] = Field(
        default=(), description="subtracted from pixels in [0, 1], one or one a channel"
    )
    std: tuple[float, ...] = Field(default=(), description="divided by, after the mean")
    validation: Fraction = Field(default=0.1, description="part of the training split held back")
    seed: int = Field(default=0, description="of the split")
    workers: int = Field(default=0, ge=0, description="processes that read samples for training")
    corrupt: Fraction = Field(
        default=0.0, description="part of a folder's images that may be unreadable, and left out"
    )


class CalibrationSpec(Spec):
    """On which samples the ranges are measured, and by which algorithm."""

    samples: int = Field(default=512, ge=1, description="taken from the training split")
    batch_size: int = Field(default=64, ge=1)
    algorithm: Algorithm = "mse"
    percentile: float = Field(default=99.99, gt=0.0, le=100.0)
    averaging: float = Field(
        default=0.01, gt=0.0, le=1.0, description="weight of a batch in a moving average"
    )
    layers: dict[str, RangeRule] = Field(
        default_factory=dict, description="by patterns of the names in ranges.json; the last wins"
    )
    seed: int = Field(default=0, description="of the choice of samples")
    ranges: str | None = Field(
        default=None, description="a ranges.json to reuse instead of measuring"
    )


class TrainSpec(RecoverySpec):
    """One training run: float training and QAT have the same knobs and different defaults."""

    epochs: float = Field(default=10.0, gt=0.0)
    batch_size: int = Field(default=128, ge=1)
    accumulate: int = Field(default=1, ge=1, description="batches a step of the optimizer")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=2e-3, gt=0.0, description="peak learning rate")
    final_lr_ratio: Fraction = Field(default=0.01, description="of the peak, at the cosine's end")
    weight_decay: float = Field(default=0.05, ge=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="of SGD (Nesterov)")
    warmup: Fraction = Field(default=0.05, description="part of the steps")
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    clip_norm: float | None = Field(default=1.0, gt=0.0, description="of the gradient")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, else fp32"
    )
    augment: Literal["none", "shift", "shift_flip"] = Field(
        default="none", description="of the training images"
    )
    freeze_batchnorm: Fraction = Field(
        default=1.0, description="part of the steps after which BatchNorm statistics stand still"
    )
    seed: int = 0


class FinetuneSpec(TrainSpec, MovingMasksSpec):
    """QAT: a tenth of the float schedule from 1 % to 10 % of its rate (2004.09602)."""

    epochs: float = Field(default=2.0, gt=0.0)
    lr: float = Field(default=5e-4, gt=0.0)
    warmup: Fraction = 0.1


class ExportSpec(Spec):
    """How the QDQ ONNX is written.

    Weights of quantized layers are the same numbers in both forms, each rounded to its INT8 code:
    ``fp32`` writes the codes times their scale, not the float weights of training.
    """

    opset: int = Field(default=17, ge=13, le=21, description="17: TensorRT 8.6 to 11 read it")
    weights: Literal["int8", "fp32"] = Field(
        default="int8",
        description="INT8 codes behind DQ, or the same INT8-rounded values as FP32 behind Q and DQ",
    )
    dynamic_batch: bool = True
    verify: bool = Field(
        default=True,
        description="keep the file only if it computes what the model does at every Q/DQ pair",
    )
    input_names: Patterns = Field(
        default=(), description="in the order of the inputs; absent: names of forward's arguments"
    )
    output_names: Patterns = Field(
        default=(), description="in the order of the outputs; absent: keys of a dict, else torch's"
    )


class ShapeRange(Spec):
    """Shapes of one dynamic input: what it may be, and what the engine is tuned for."""

    min: tuple[int, ...]
    opt: tuple[int, ...] = Field(description="kernels are timed at it")
    max: tuple[int, ...]

    @model_validator(mode="after")
    def _ordered(self) -> ShapeRange:
        ranks = {len(self.min), len(self.opt), len(self.max)}
        sizes = zip(self.min, self.opt, self.max, strict=False)
        if len(ranks) != 1 or any(not 0 < low <= mid <= high for low, mid, high in sizes):
            message = "allowed is one rank, and 0 < min <= opt <= max in every dimension"
            raise ValueError(message)
        return self


class PreflightSpec(Spec):
    """Whom preflight asks beside its rules."""

    confirm: Literal["auto", "rtx", "none"] = Field(
        default="auto",
        description="rtx: the parser of TensorRT for RTX, its builder too where it knows the "
        "target; auto: if it is installed",
    )


class BuildSpec(Spec):
    """How TensorRT makes the engine. None, and what is not said otherwise, is TensorRT's default.

    Ours differ in three: the float remainder is FP16, 2:4 kernels may be chosen, and the inspector
    gets its details.
    """

    backend: Literal["auto", "tensorrt", "rtx"] = Field(
        default="auto",
        description="auto: TensorRT where it and a GPU are, else TensorRT for RTX (rtx)",
    )
    more_targets: Patterns = Field(
        default=(), description="rtx: targets that the plan must run on beside the recipe's"
    )
    timeout_s: float | None = Field(
        default=None, gt=0.0, description="rtx: of the compiler's process; absent: 3600"
    )
    compare_fp16: bool = Field(
        default=True, description="rtx: build an FP16 form too, and say which of them moves less"
    )
    remainder: Literal["fp16", "fp32"] = Field(
        default="fp16", description="what is not INT8 computes in it; TensorRT's default is fp32"
    )
    keep_fp32: Patterns = Field(
        default=(), description="node names, patterns of them, or operators that stay FP32"
    )
    typing: Literal["auto", "strong", "weak"] = Field(
        default="auto", description="auto: strong from TensorRT 10 on; 11 has no weak typing"
    )
    sparse_weights: bool = Field(
        default=True, description="let 2:4 kernels compete; TensorRT's default is false"
    )
    batch: tuple[int, int, int] = Field(
        default=(1, 8, 32), description="min, opt and max of a dynamic first dimension"
    )
    profiles: tuple[dict[str, ShapeRange], ...] = Field(
        default=(), description="optimization profiles by input, in the place of batch"
    )
    workspace_mib: int | None = Field(default=None, ge=1, description="absent: all device memory")
    optimization_level: int | None = Field(default=None, ge=0, le=5, description="absent: 3")
    avg_timing_iterations: int | None = Field(default=None, ge=1)
    max_tactics: int | None = Field(default=None, ge=1, description="timed for each layer")
    tactic_sources: tuple[TacticSourceName, ...] | None = None
    max_aux_streams: int | None = Field(default=None, ge=0)
    tiling: Literal["none", "fast", "moderate", "full"] | None = None
    timing_cache: str = Field(
        default="auto", description="auto: one a GPU and version, none, or a file"
    )
    timing_cache_only: bool = Field(
        default=False, description="a kernel that is not in the cache is an error"
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    refit: Literal["none", "all", "identical", "individual"] = "none"
    strip_weights: bool = Field(default=False, description="a plan without weights, to be refitted")
    weight_streaming: bool = False
    tf32: bool = True
    strict_nans: bool = False
    dla_core: int | None = Field(default=None, ge=0, description="absent: the GPU")
    gpu_fallback: bool = Field(default=True, description="of layers that the DLA lacks")
    verbosity: Literal["detailed", "layer_names_only", "none"] = Field(
        default="detailed", description="of the inspector; TensorRT's default is layer_names_only"
    )

    @field_validator("batch")
    @classmethod
    def _ordered_batch(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not 0 < value[0] <= value[1] <= value[2]:
            message = "allowed is 0 < min <= opt <= max"
            raise ValueError(message)
        return value


class Tolerances(Spec):
    """When a run is good enough."""

    argmax_agreement: Fraction = Field(default=0.999, description="torch fake-quant against ONNX")
    accuracy_gap: Fraction = Field(default=0.001, description="the same two, in accuracy")
    accuracy_loss: Fraction = Field(default=0.01, description="QAT below FP32 at most")
    regression: Fraction = Field(
        default=0.001, description="below the baseline's metric, before trt-qat check minds"
    )
    significance: Fraction = Field(
        default=0.05, description="two-sided p-value below which a difference is not chance"
    )
    size_growth: float = Field(default=0.05, ge=0.0, description="of a file, over the baseline's")
    latency_growth: float = Field(default=0.05, ge=0.0, description="of p50, over the baseline's")
    chosen_loss: Fraction = Field(
        default=0.5, description="of sparse kernels chosen: the choice differs between builds"
    )


class EngineSpec(Spec):
    """One deployable engine: everything between a float model and its plan."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: ModelSpec
    data: DataSpec
    task: TaskSpec = TaskSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    sparsity: SparsitySpec = SparsitySpec()
    quantize: QuantizeSpec = QuantizeSpec()
    ptq: PtqSpec = PtqSpec()
    distill: DistillSpec = DistillSpec()
    train: TrainSpec = TrainSpec()
    finetune: FinetuneSpec = FinetuneSpec()
    export: ExportSpec = ExportSpec()
    preflight: PreflightSpec = PreflightSpec()
    build: BuildSpec = BuildSpec()
    tolerances: Tolerances = Tolerances()
    target: str | None = Field(default=None, description="GPU that preflight judges for")

    @field_validator("finetune")
    @classmethod
    def _masks_that_can_move(cls, value: FinetuneSpec, info: ValidationInfo) -> FinetuneSpec:
        sparsity = info.data.get("sparsity")  # absent where it is wrong itself
        if sparsity is not None:
            masks_must_move(value, sparsity)
        return value
