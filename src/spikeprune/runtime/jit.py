"""Native code without a compiler: LLVM code, written in Python, becomes machine code in the process, once a key.

llvmlite is optional (the extra `runtime`). Whoever compiles asks `available` first and has another way.
"""

import ctypes
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from spikeprune.errors import MissingExtra
from spikeprune.runtime import cache

try:
    import llvmlite.binding as llvm
    from llvmlite import ir
except ImportError:
    llvm = ir = None

__all__ = ["Function", "available", "compiled", "compiling_for", "ir"]

Function = Callable[..., None]

ENTRY = "spikeprune_native"
EFFORT = 2  # of LLVM, up to 3, which takes longer and makes nothing faster here
KINDS: dict[str, Any] = {"address": ctypes.c_void_p, "float": ctypes.c_float, "whole": ctypes.c_int64}

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
                function = _functions[key] = _compile(key, write)
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


def _compile(key: Hashable, write: Callable[[Any], None]) -> Function:
    """Compile a function that is never freed; one that this package writes is kept on disk as well."""
    target = _target()
    name = cache.name_of(key, target.triple, _cpu(), llvm.llvm_version_info) if _own(key, write) else None
    found = None if name is None else cache.read(name)
    if found is None:
        module = _written(write)
        kinds = [_name(argument.type) for argument in _only(module).args]
        found = kinds, target.emit_object(_optimized(module, target))
        if name is not None:
            cache.write(name, *found)
    function, engine = _loaded(*found, target)
    _kept.append(engine)
    return function


def _own(key: Hashable, write: Callable[[Any], None]) -> bool:
    """Whether a function is one of this package's kernels, told by its key in all processes alike."""
    module = getattr(getattr(write, "func", write), "__module__", "")
    return module.startswith("spikeprune.runtime.") and " at 0x" not in repr(key)


def _cpu() -> tuple[str, str]:
    """Give the processor's name and features, as LLVM has them."""
    other = _processor.get()
    return (other, "") if other else _host()


@lru_cache(maxsize=1)
def _host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = _cpu()
    return llvm.Target.from_default_triple().create_target_machine(
        name, features, opt=EFFORT, reloc="pic", codemodel="jitdefault", jit=True
    )


def _written(write: Callable[[Any], None]) -> Any:
    module = ir.Module()
    write(module)
    _only(module).name = ENTRY
    return module


def _only(module: Any) -> Any:
    (function,) = (f for f in module.functions if not f.is_declaration and f.linkage != "internal")
    return function


def _optimized(module: Any, target: Any) -> Any:
    code = llvm.parse_assembly(str(module))
    code.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=EFFORT)
    tuning.loop_vectorization = True
    tuning.loop_unrolling = tuning.loop_interleaving = False  # kernels are written in vectors: more of the same is only larger
    passes = llvm.create_pass_builder(target, tuning)
    passes.getModulePassManager().run(code, passes)
    return code


def _loaded(kinds: Sequence[str], code: bytes, target: Any) -> tuple[Function, Any]:
    """Make machine code callable; it lives as long as the engine."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return ctypes.CFUNCTYPE(None, *(KINDS[kind] for kind in kinds))(engine.get_function_address(ENTRY)), engine


def _name(kind: Any) -> str:
    if isinstance(kind, ir.PointerType):
        return "address"
    return "float" if isinstance(kind, ir.FloatType) else "whole"
