"""Read tensors from PyTorch files without running anything that stands in them.

A state dict opens with `torch.load(weights_only=True)`. A whole pickled module (FID-STORM's published file)
needs its
classes, which we neither have nor want: here every unknown class becomes an inert record, and the few
rebuild functions of torch are replaced by our own, which only note dtype, offset, size and stride. The data
are then read from the file as plain numbers. Both layouts are known: the zip of PyTorch 1.6 and later, and
the older chain of pickles.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ._errors import OriginalFileError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_PARTS = 10_000

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _Storage:
    """A block of numbers in the file, named but not yet read."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class _LazyTensor:
    """What `_rebuild_tensor_v2` would have made a tensor of."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, data: Mapping[str, bytes]) -> Tensor:
        if self.storage.key not in data:
            raise OriginalFileError(f"the data block {self.storage.key!r} is missing: the file is cut or damaged")
        raw = data[self.storage.key]
        item = torch.empty((), dtype=self.storage.dtype).element_size()
        count = len(raw) // item
        size, stride = self.size, self.stride
        last = self.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 in size:
            return torch.empty(size, dtype=self.storage.dtype)
        if min((*size, *stride, self.offset, 0)) < 0 or last >= count:
            raise OriginalFileError(
                f"a tensor of size {size} reaches past its data block of {count} numbers: the file is cut or damaged"
            )
        flat = torch.frombuffer(bytearray(raw), dtype=self.storage.dtype, count=count)
        return flat.as_strided(size, stride, self.offset).clone()


class InertObject:
    """Stands for an object of a class that is never imported; it only keeps what the pickle gave it."""

    class_name = ""

    def __new__(cls, *args: object, **kwargs: object) -> "InertObject":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.arguments = args
        self.items: list[object] = []
        self.entries: dict[object, object] = {}
        self.state: dict[object, object] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0] or state[1]
        self.state = dict(state) if isinstance(state, dict) else {}

    def append(self, item: object) -> None:
        self.__dict__.setdefault("items", []).append(item)

    def extend(self, items: list[object]) -> None:
        self.__dict__.setdefault("items", []).extend(items)

    def __setitem__(self, key: object, value: object) -> None:
        self.__dict__.setdefault("entries", {})[key] = value


def _inert_class(module: str, name: str) -> type[InertObject]:
    return type("InertObject", (InertObject,), {"class_name": f"{module}.{name}"})


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> _LazyTensor:
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise OriginalFileError("a tensor in the pickle is not built from a plain block of numbers")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise OriginalFileError("a tensor in the pickle has no plain size and stride")
    if not all(type(n) is int for n in (*size, *stride)):
        raise OriginalFileError("a tensor in the pickle has sizes that are not whole numbers")
    return _LazyTensor(storage, offset, size, stride)


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_FUNCTIONS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that knows plain containers and data blocks, and imports nothing."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin-1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in {("torch", "Size"), ("builtins", "tuple"), ("__builtin__", "tuple")}:
            return tuple
        if module in {"torch", "torch.cuda", "torch.storage"} and name in _STORAGES:
            return _STORAGES[name]
        return _FUNCTIONS.get((module, name)) or _inert_class(module, name)

    def persistent_load(self, pid: Any) -> object:
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise OriginalFileError("the pickle refers to something that is not a block of numbers")
        _, dtype, key, _, numel = pid[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(numel, int):
            raise OriginalFileError("the pickle holds numbers of a kind that is not supported")
        if len(pid) > 5 and pid[5] is not None:
            raise OriginalFileError("the pickle uses views of data blocks, which are not supported")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, numel))


def _state(value: object) -> Mapping[Any, Any]:
    return value.__dict__.get("state", {}) if isinstance(value, InertObject) else {}


def _is_module(value: object) -> bool:
    return "_modules" in _state(value)


def _parts(root: object) -> Iterator[tuple[str, InertObject]]:
    """A module and all modules inside it, with their dotted prefixes, in state-dict order."""
    stack, seen = [("", root)], 0
    while stack:
        prefix, value = stack.pop()
        if not isinstance(value, InertObject):
            continue
        seen += 1
        if seen > _MAX_PARTS:
            raise OriginalFileError("the pickled module has too many parts, or contains itself")
        yield prefix, value
        children = _state(value).get("_modules")
        if isinstance(children, Mapping):
            stack.extend((f"{prefix}{name}.", child) for name, child in reversed(list(children.items())))


def _named_values(root: object) -> Iterator[tuple[str, object]]:
    """Names and placeholders of a module's parameters and buffers."""
    for prefix, part in _parts(root):
        for group in ("_parameters", "_buffers"):
            entries = _state(part).get(group)
            if isinstance(entries, Mapping):
                yield from ((f"{prefix}{name}", entry) for name, entry in entries.items())


def find_state_dict(value: object) -> Mapping[Any, Any] | None:
    """The dict of tensors in a checkpoint: itself, or under one of the usual names."""
    if not isinstance(value, Mapping):
        return None
    for name in ("state_dict", "model_state_dict", "model", "net", "network", "weights"):
        inner = value.get(name)
        if isinstance(inner, Mapping) and inner:
            return inner
    return value


def _placeholders(root: object) -> tuple[dict[str, _LazyTensor], dict[str, str]]:
    for name in ("model", "net", "network"):  # a checkpoint that holds the module beside the optimiser
        if isinstance(root, Mapping) and _is_module(root.get(name)):
            root = root[name]
    if _is_module(root):
        named = _named_values(root)
    else:
        named = ((str(name), value) for name, value in (find_state_dict(root) or {}).items())
    tensors = {name: value for name, value in named if isinstance(value, _LazyTensor)}
    return tensors, {prefix.rstrip("."): part.class_name for prefix, part in _parts(root)}


def _load(file: BinaryIO) -> tuple[object, dict[str, _Storage]]:
    unpickler = _RestrictedUnpickler(file)
    try:
        return unpickler.load(), unpickler.storages
    except OriginalFileError:
        raise
    except Exception as error:  # a damaged or hostile pickle may fail in any way; nothing of it has run
        raise OriginalFileError(f"the pickle cannot be read without running it ({error})") from error


def _read_zip(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        heads = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(heads) != 1:
            raise OriginalFileError("the zip holds no single data.pkl, so it is not a PyTorch file")
        if entries[heads[0]].file_size > _MAX_PICKLE_BYTES:
            raise OriginalFileError("the pickle inside is too large for a network")
        stem = heads[0].removesuffix("data.pkl")
        if f"{stem}byteorder" in entries and archive.read(f"{stem}byteorder").strip() != b"little":
            raise OriginalFileError("the file was written on a big-endian machine, which is not supported")
        root, storages = _load(io.BytesIO(archive.read(heads[0])))
        tensors, classes = _placeholders(root)
        data = {}
        for key in {tensor.storage.key for tensor in tensors.values()}:
            entry = entries.get(f"{stem}data/{key}")
            if entry is None or entry.compress_type != zipfile.ZIP_STORED:
                raise OriginalFileError(f"the data block {key!r} is missing or compressed: not a PyTorch file")
            data[key] = archive.read(entry)
    del storages
    return {name: tensor.read(data) for name, tensor in tensors.items()}, classes


def _read_legacy(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with path.open("rb") as file:
        if _load(file)[0] != _LEGACY_MAGIC:
            raise OriginalFileError("a pickle, but not one written by torch.save")
        _load(file)  # protocol version
        _load(file)  # sizes of the writing machine's types
        root, storages = _load(file)
        keys, _ = _load(file)
        tensors, classes = _placeholders(root)
        data = {}
        for key in keys if isinstance(keys, list) else []:
            head = file.read(8)
            storage = storages.get(str(key))
            if len(head) != 8 or storage is None:
                raise OriginalFileError(f"the data block {key!r} is missing: the file is cut or damaged")
            size = int.from_bytes(head, "little") * torch.empty((), dtype=storage.dtype).element_size()
            if size > path.stat().st_size:
                raise OriginalFileError(f"the data block {key!r} is larger than the file: it is cut or damaged")
            data[str(key)] = file.read(size)
    return {name: tensor.read(data) for name, tensor in tensors.items()}, classes


def read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a PyTorch file, and the class names of a pickled module's parts (empty for a state dict).

    Raises:
        OriginalFileError: the file is damaged, no PyTorch file, or can only be read by running it.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whole modules and old files: the reader below says what is wrong with the rest
        loaded = None
    state = find_state_dict(loaded)
    if state is not None:
        return {str(k): v.detach() for k, v in state.items() if isinstance(v, Tensor)}, {}
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
