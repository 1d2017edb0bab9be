"""A folded network for other engines: as ONNX, rounded to whole numbers if asked, and in ONNX Runtime or OpenVINO on one thread."""

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import MissingExtra

OPSET = 17
Call = Callable[[], Any]


def needed(package: str) -> Any:
    """Import an optional package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        with quiet():
            return import_module(package)
    except ImportError as error:
        raise MissingExtra.of(package, "bench", "this row") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what other packages warn of: it says nothing of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def onnx(net: nn.Module, x: Tensor) -> bytes:
    """Write a network as an ONNX file, for this shape of input, constants folded."""
    needed("onnx")
    buffer = io.BytesIO()
    export: Any = torch.onnx.export
    with quiet(), torch.no_grad():
        export(net, (x,), buffer, dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["y"])
    return buffer.getvalue()


def dynamic(model: bytes) -> bytes:
    """Round weights to int8, a step for each output; activations are rounded as they come."""
    tools = needed("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model)
        with quiet():
            tools.quantize_dynamic(before, after, weight_type=tools.QuantType.QInt8, per_channel=True)
        return after.read_bytes()


def static(model: bytes, batches: Sequence[Tensor]) -> bytes:
    """Round weights to int8, a step for each output, and what layers read to uint8, by what batches show; spikes stay exact.

    Layers are those with weights; what lies between them stays float32.
    """
    tools = needed("onnxruntime.quantization")

    class Once(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._left = [{"x": x.numpy()} for x in batches]

        def get_next(self) -> dict[str, Any] | None:
            return self._left.pop() if self._left else None

    kinds = {"weight_type": tools.QuantType.QInt8, "activation_type": tools.QuantType.QUInt8}
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model)
        with quiet():
            tools.quantize_static(
                before, after, Once(), quant_format=tools.QuantFormat.QDQ, per_channel=True,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options={"WeightSymmetric": True}, **kinds,
            )  # fmt: skip
        return after.read_bytes()


def in_onnxruntime(model: bytes, x: Tensor) -> Call:
    """Give a call that runs a model on an input, on one thread."""
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: session.run(None, given)[0]


def in_openvino(model: bytes, x: Tensor) -> Call:
    """Give a call that runs a model on an input, on one thread, in float32 or in what the model rounds to."""
    core = needed("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    with quiet():
        request = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings).create_infer_request()
    given = x.numpy()

    def run() -> Any:
        request.infer([given], share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data

    return run
