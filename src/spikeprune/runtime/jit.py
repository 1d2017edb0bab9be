"""Native code without a compiler: LLVM code, written in Python, becomes machine code in the process, once a key.

llvmlite is optional (the extra `runtime`). Whoever compiles asks `available` first and has another way.
"""

import ctypes
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from spikeprune.errors import MissingExtra

try:
    import llvmlite.binding as llvm
    from llvmlite import ir
except ImportError:
    llvm = ir = None

__all__ = ["Function", "available", "compiled", "compiling_for", "ir", "unshared"]

Function = Callable[..., None]

_lock = threading.Lock()
_functions: dict[Hashable, Function] = {}
_kept: list[Any] = []  # LLVM frees the code with its engine
_processor: ContextVar[str | None] = ContextVar("processor", default=None)


def available() -> bool:
    """Whether llvmlite is installed, so that `compiled` works.

    Example:
        >>> available()
        True
    """
    return llvm is not None


def compiled(key: Hashable, write: Callable[[Any], None]) -> Function:
    """Return the function that `write` puts into an empty `llvmlite.ir.Module`, compiled at the first call with this key.

    It takes addresses, 64-bit integers and floats as Python numbers, returns nothing, and runs without the interpreter's lock.

    Args:
        key: what tells this function from all others of the process.
        write: adds one function, which returns nothing, to the module that it is given.

    Raises:
        MissingExtra: llvmlite is not installed.

    Example:
        >>> def write(module):
        ...     kind = ir.FunctionType(ir.VoidType(), [ir.FloatType().as_pointer(), ir.FloatType()])
        ...     function = ir.Function(module, kind, "put")
        ...     code = ir.IRBuilder(function.append_basic_block())
        ...     code.store(function.args[1], function.args[0])
        ...     code.ret_void()
        >>> place = ctypes.c_float()
        >>> compiled("put", write)(ctypes.addressof(place), 0.5)
        >>> place.value
        0.5
    """
    key = (_processor.get(), key)
    if (function := _functions.get(key)) is None:
        if not available():
            raise MissingExtra.of("llvmlite", "runtime", "native code")
        with _lock:
            if (function := _functions.get(key)) is None:
                function = _functions[key] = _compile(write)
    return function


def unshared(write: Callable[[Any], None]) -> Function:
    """Compile a function that lives as long as it is referred to, for whom `compiled` would keep too many.

    Raises:
        MissingExtra: llvmlite is not installed.
    """
    if not available():
        raise MissingExtra.of("llvmlite", "runtime", "native code")
    with _lock:
        function, engine = _assemble(write, speed=0)
    function.engine = engine  # type: ignore[attr-defined]
    return function


@contextmanager
def compiling_for(processor: str) -> Iterator[None]:
    """Compile what is asked for in here for another processor, by LLVM's name of it; this one must have all its instructions.

    Example:
        >>> with compiling_for("generic"):
        ...     available()
        True
    """
    token = _processor.set(processor)
    try:
        yield
    finally:
        _processor.reset(token)


def _compile(write: Callable[[Any], None]) -> Function:
    function, engine = _assemble(write, speed=3)
    _kept.append(engine)
    return function


def _assemble(write: Callable[[Any], None], speed: int) -> tuple[Function, Any]:
    """Compile; the function lives as long as the engine."""
    module = ir.Module()
    write(module)
    (function,) = (f for f in module.functions if not f.is_declaration)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    other = _processor.get()
    features = "" if other else llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple().create_target_machine(other or llvm.get_host_cpu_name(), features, opt=speed)
    code = llvm.parse_assembly(str(module))
    code.verify()
    if speed:
        tuning = llvm.create_pipeline_tuning_options(speed_level=speed)
        tuning.loop_vectorization = True
        passes = llvm.create_pass_builder(target, tuning)
        passes.getModulePassManager().run(code, passes)
    engine = llvm.create_mcjit_compiler(code, target)
    engine.finalize_object()
    kinds = [_ctype(argument.type) for argument in function.args]
    return ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(function.name)), engine


def _ctype(kind: Any) -> Any:
    if isinstance(kind, ir.PointerType):
        return ctypes.c_void_p
    return ctypes.c_float if isinstance(kind, ir.FloatType) else ctypes.c_int64
