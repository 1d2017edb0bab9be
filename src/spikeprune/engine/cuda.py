"""A compiled network on a GPU: dense layers over all timesteps at once, fused neurons, and CUDA graphs for small batches.

The same engine runs on a CPU as well, without graphs and with neurons in torch; that is how it is tested where there is no GPU.
"""

import threading
from collections import OrderedDict
from typing import NoReturn, final

import torch
from torch import Tensor

from spikeprune.engine.choice import Choice, table
from spikeprune.engine.cuda_graph import Graph
from spikeprune.engine.cuda_run import INNERMOST, Dense, innermost
from spikeprune.engine.cuda_sparse import DENSE, SPARSE, Trial, candidates, tried
from spikeprune.engine.engine import KEPT, Agreement, compared
from spikeprune.engine.plan import Neuron, Plan, Synapse
from spikeprune.engine.reference import Output, given
from spikeprune.errors import LayoutError, PlanError

SMALL = 16  # samples: larger batches keep a GPU busy for longer than their launches take
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@final
class CudaEngine:
    """A network that runs on a GPU; made by `compile` with ``device="cuda"``.

    Call it with batches on that device, of any number of samples. One call is queued at a time; others wait.

    Attributes:
        plan: what it computes.
        device: where.
        dtype: of weights and of values between layers; membranes, readouts and outputs are float32.
        choices: what runs each layer, and why.
        no_graphs: why small batches are not captured as CUDA graphs, or "".

    Args:
        plan: what to compute.
        device: a CUDA device; also the CPU, for tests.
        dtype: float32, bfloat16 or float16.
        trials: what came out for linear layers with 2:4 weights, by the number of the operation.
    """

    def __init__(
        self, plan: Plan, device: torch.device, dtype: torch.dtype = torch.float32, trials: dict[int, Trial] | None = None
    ) -> None:
        self.plan, self.device, self.dtype = plan, device, dtype
        trials = trials or {}
        sparse = {number: trial.sparse for number, trial in trials.items() if trial.sparse is not None}
        self._dense = Dense(plan, device, dtype, sparse)
        self.choices = _choices(self._dense, trials)
        self.no_graphs = _no_graphs(plan, device)
        self._graphs: OrderedDict[int, Graph] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def tuned(plan: Plan, x: Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> "CudaEngine":
        """Make the engine of a plan; linear layers with 2:4 weights run as such where that is faster on an example.

        Args:
            plan: what to compute.
            x: the example, as the plan's input says, on any device.
            device: where to run.
            dtype: float32, bfloat16 or float16.

        Raises:
            LayoutError: the example is not what the plan takes.
        """
        value, found = given(plan, x, dtype, device), candidates(plan) if device.type == "cuda" else []
        with torch.no_grad(), torch.cuda.device_of(value):  # type: ignore[no-untyped-call]
            sources = {plan.operations[number].inputs[0] for number in found}
            inputs = Dense(plan, device, dtype).run(value, sources) if found else {}
            trials = {}
            for number in found:
                op = plan.operations[number]
                assert isinstance(op, Synapse)
                trials[number] = tried(op, inputs[op.inputs[0]].to(dtype))
        return CudaEngine(plan, device, dtype, trials)

    def __call__(self, x: Tensor) -> Output:
        """Run all timesteps from rest.

        Args:
            x: as the plan's input says: (T, N, *shape), (N, T, *shape) or (N, *shape), on the engine's device.

        Returns:
            What the network returns, float32 on the same device; several outputs as a tuple. A value over time is (T, N, ...).

        Raises:
            LayoutError: x has another shape or T, or lies elsewhere.
        """
        if isinstance(x, Tensor) and x.device != self.device:
            raise LayoutError(
                f"the engine runs on {self.device}, but was given a tensor on {x.device}; x.to({str(self.device)!r})."
            )
        value = given(self.plan, x, self.dtype, self.device)
        with self._lock, torch.no_grad(), torch.cuda.device_of(value):  # type: ignore[no-untyped-call]
            samples = value.shape[1 if self.plan.input.over_time else 0]
            graph = self._graph(samples, value) if samples <= SMALL and not self.no_graphs else None
            outputs = self._run(value) if graph is None else graph(value)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def step(self, x: Tensor) -> NoReturn:
        """Refuse: timesteps one by one are for the engine on the CPU.

        Raises:
            PlanError: always.
        """
        raise PlanError(
            "an engine on a GPU runs all timesteps at once; for timesteps one by one compile for the CPU: device='cpu'."
        )

    def reset(self) -> NoReturn:
        """Refuse, as `step`; every call begins at rest.

        Raises:
            PlanError: always.
        """
        raise PlanError(
            "an engine on a GPU keeps nothing between calls; for timesteps one by one compile for the CPU: device='cpu'."
        )

    def explain(self) -> str:
        """Tell what runs each layer and its neurons, and whether small batches are CUDA graphs."""
        graphs = (
            f"no CUDA graphs: {self.no_graphs}"
            if self.no_graphs
            else f"batches of up to {SMALL} samples are CUDA graphs, one a size; the last {KEPT} sizes are kept"
        )
        outside = [f"{op.name} runs as the network calls it: {op.reason}" for op in self.plan.outside]
        told = f"weights and values are {str(self.dtype)[6:]} on {self.device}, membranes float32"
        return "\n".join([table(self.choices), told, graphs, *outside, *self.plan.notes])

    def agreement(self, x: Tensor) -> Agreement:
        """Compare this engine with its plan in float64, sample by sample.

        Args:
            x: a batch, as for a call.
        """
        return compared(self.plan, self(x), x)

    def _run(self, x: Tensor) -> list[Tensor]:
        found = self._dense.run(x, frozenset(self.plan.outputs))
        outputs = [found[number] for number in self.plan.outputs]
        if self.dtype == torch.float64:
            return outputs
        return [out.float() for out in outputs]

    def _graph(self, samples: int, x: Tensor) -> Graph | None:
        if samples not in self._graphs:
            try:
                self._graphs[samples] = Graph(self._run, innermost(x, over_time=self.plan.input.over_time))
            except RuntimeError as error:
                self.no_graphs = f"CUDA recorded none ({str(error).splitlines()[0]})"
                self._graphs.clear()
                return None
            while len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(samples)
        return self._graphs[samples]


def place(device: torch.device | str) -> torch.device:
    """Give a device that an engine can run on, with its number if it is a CUDA device.

    Raises:
        PlanError: there is no such device, or engines do not run on it.

    Example:
        >>> place("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise PlanError(f"device is {device!r}, but must be 'cpu', 'cuda' or 'cuda:' and a number.") from None
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type != "cuda":
        raise PlanError(f"device is {str(found)!r}, but engines run on 'cpu' and 'cuda'.")
    if not torch.cuda.is_available():
        raise PlanError(
            f"device is {str(found)!r}, but torch {torch.__version__} finds no CUDA device. Install a torch with CUDA on a machine with a GPU, "
            "or compile for the CPU: device='cpu'."
        )
    number = torch.cuda.current_device() if found.index is None else found.index
    if number >= torch.cuda.device_count():
        raise PlanError(f"device is {str(found)!r}, but there are {torch.cuda.device_count()} CUDA devices, from 'cuda:0' on.")
    return torch.device("cuda", number)


def _no_graphs(plan: Plan, device: torch.device) -> str:
    if device.type != "cuda":
        return f"the engine runs on {device}"
    return f"{plan.outside[0].name} runs as the network calls it" if plan.outside else ""


def _choices(dense: Dense, trials: dict[int, Trial]) -> list[Choice]:
    """Tell what runs each layer and its neurons, in their order."""
    found = []
    for number, op in enumerate(dense.plan.operations):
        if isinstance(op, Synapse):
            found.append(_layer(number, op, trials.get(number)))
        elif isinstance(op, Neuron):
            kernel = "neurons: torch" if dense.torch_neurons else "neurons: Triton"
            found.append(Choice(number, op.name, kernel, note=dense.torch_neurons))
    return found


def _layer(number: int, op: Synapse, trial: Trial | None) -> Choice:
    kernel = "dense channels_last" if op.weight.dim() in INNERMOST else DENSE
    notes = [trial.note] if trial is not None and trial.note else []
    if not op.over_time:
        notes.append("once for all timesteps")
    if trial is not None and trial.sparse is not None:
        kernel = SPARSE
    alive = float((op.weight != 0).double().mean())
    return Choice(number, op.name, kernel, density=alive, measured=trial.measured if trial else {}, note="; ".join(notes))
