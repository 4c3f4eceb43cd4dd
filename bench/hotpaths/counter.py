"""Counting instructions: a process under Valgrind's callgrind asks it to count from one line to another.

Valgrind runs a program on a processor of its own making, so a count is the same on a busy machine, in a container and
on a virtual machine without performance counters, and needs no privilege. Outside of Valgrind the requests do nothing.
"""

import ctypes
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["MACHINES", "Counter"]

#: valgrind.h's "special instruction sequence" as a function (request block) -> result: rotations that change nothing,
#: and a no-op between them that Valgrind takes for a request. By architecture, as machine code.
_CODE: Final = {
    # mov rax,rdi; xor edx,edx; rol rdi,3; rol rdi,13; rol rdi,61; rol rdi,51; xchg rbx,rbx; mov rax,rdx; ret
    "x86_64": "4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3",
    # mov x4,x0; mov x3,#0; ror x12,x12,#3; ror x12,x12,#13; ror x12,x12,#51; ror x12,x12,#61; orr x10,x10,x10;
    # mov x0,x3; ret
    "aarch64": "e40300aa 030080d2 8c0dcc93 8c35cc93 8ccdcc93 8cf5cc93 4a010aaa e00303aa c0035fd6",
}
#: Processors that this can be done on.
MACHINES: Final = frozenset(_CODE)

#: callgrind.h's requests.
_TOOL: Final = ord("C") << 24 | ord("T") << 16
_ZERO, _DUMP_AS, _START, _STOP = (_TOOL + number for number in (1, 3, 4, 5))
#: A request and its arguments.
_WORDS: Final = 6


class Counter:
    """Asks callgrind, begun with `--instr-atstart=no`, to count. OSError on a processor that is not among MACHINES."""

    def __init__(self) -> None:
        code = _CODE.get(platform.machine())
        if code is None:
            raise OSError(f"instructions can't be counted on {platform.machine()}: only on {', '.join(sorted(_CODE))}")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(bytes.fromhex(code))
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(address)

    @contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """Count inside the block, and have the count dumped under a name."""
        text = ctypes.create_string_buffer(name.encode())
        self._request(_START)
        self._request(_ZERO)
        yield
        self._request(_DUMP_AS, ctypes.addressof(text))
        self._request(_STOP)

    def _request(self, number: int, argument: int = 0) -> None:
        block = (ctypes.c_size_t * _WORDS)(number, argument)
        self._call(ctypes.addressof(block))
