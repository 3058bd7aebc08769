"""Kernels of the network's tail, and the same functions in plain PyTorch. They know tensors and nothing of slides.

Importing this package loads neither PyTorch nor Triton; import the module you need.
"""
