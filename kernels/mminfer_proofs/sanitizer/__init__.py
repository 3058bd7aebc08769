"""A sanitizer for compiled kernels: the PTX that Triton made, executed on the CPU with NumPy, one CTA at a time.

Checks, as NVIDIA's compute-sanitizer names them:

memcheck    every byte of every access to global memory lies inside one argument, and of a store inside one that the
            launch says it stores; accesses to shared memory lie inside what was declared; all are aligned
initcheck   nothing is read before it is written: shared memory, copies under way, the arguments that are stored
racecheck   no byte is touched by two warps between barriers, or by two CTAs, one of them writing
synccheck   barriers, jumps and exchanges within warps are reached by all threads, or none

and counts: bytes, 32-byte sectors and the ideal, wavefronts of shared memory and the ideal.
"""

from mminfer_proofs.sanitizer.execution import Execution, Far, execute

__all__ = ["Execution", "Far", "execute"]
