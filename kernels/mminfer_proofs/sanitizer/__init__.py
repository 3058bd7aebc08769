"""A sanitizer for compiled kernels: the PTX that Triton made, executed on the CPU with NumPy, one CTA at a time.

Checks, as NVIDIA's compute-sanitizer names them:

memcheck    every access to global memory is inside one argument, and every store inside an argument that the launch
            declares as stored; accesses to shared memory are inside its declared size; all are aligned
initcheck   nothing is read before it is written: shared memory, unfinished copies, the arguments that are stored
racecheck   no two warps access a byte between barriers, and no two CTAs at all, if one of them writes
synccheck   barriers, jumps and exchanges within warps are reached by all threads or by none

It counts bytes, 32-byte sectors and wavefronts of shared memory, the last two also as they would ideally be.
"""

from mminfer_proofs.sanitizer.execution import Execution, Far, execute

__all__ = ["Execution", "Far", "execute"]
