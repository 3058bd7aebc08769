"""Proofs about the kernels that need no GPU: compiled resources, bytes moved, and a sanitizer for the compiled code.

They are for the developers of `mminfer_kernels` and are not part of the wheel. Each command is `python -m
mminfer_proofs.<name>`: `aot`, `traffic`, `sanitize`.
"""
