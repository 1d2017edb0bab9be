"""One batch size as a CUDA graph: a whole run is one launch, which is what small batches wait for."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

WARM = 3  # runs before the capture: libraries choose and compile in them


@final
class Graph:
    """Replays a run on buffers of its own.

    Args:
        run: gives what is returned for an input on a CUDA device; it allocates there and nowhere else, and asks the device nothing.
        x: an example of the input.

    Raises:
        RuntimeError: the run does something that CUDA cannot record.
    """

    def __init__(self, run: Callable[[Tensor], list[Tensor]], x: Tensor) -> None:
        self._x = x.clone()
        before, aside = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(before)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                run(self._x)
        before.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads may go on
            self._outputs = run(self._x)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Run on an input of the example's shape; give outputs that later calls leave alone."""
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(self._done)  # the buffers may still be those of a call on another stream
        self._x.copy_(x)
        self._graph.replay()
        found = [out.clone() for out in self._outputs]
        self._done.record(stream)
        return found
