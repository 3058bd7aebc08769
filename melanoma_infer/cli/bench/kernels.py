"""`mminfer bench kernels`: check and time every Triton kernel beside plain PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.bench.saving import CompareOption, SaveOption, frame, save_run, say_changes, since, teller
from melanoma_infer.cli.console import say, say_json
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from melanoma_infer.bench.kernels import KernelRow
    from melanoma_infer.bundle.bundle import Bundle

HEADER = ("kernel", "by", "precision", "tiles/s", "p20-p80", "× torch", "of a copy", "error", "allowed")


def kernels(
    bundle: opt.BundleOption = "demo",
    kernel: Annotated[
        list[str] | None, typer.Option(help="Only this kernel; repeat the option for more.  [default: all]")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16.  [default: fp16 on a GPU, else fp32]")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size in tiles.")] = 8,
    save: SaveOption = None,
    compare: CompareOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Check and time every Triton kernel on the GPU beside plain PyTorch. Without a GPU only PyTorch is timed."""
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.runtime.cores import available_cores

    before = earlier_run(compare, "kernels") if compare is not None else None
    opened = open_bundle(bundle)
    rows = _timed(opened, kernel or [], precision, batch, tell=teller(json=json))
    from melanoma_infer.bench.kernels import conclusion, picture  # they need PyTorch, which is there now

    result = {
        **frame("kernels", opened, available_cores()),
        "rows": [asdict(row) for row in rows],
        "sentence": conclusion(rows),
    }
    changed = since(result, before)
    if save is not None:
        save_run(save, result, picture(rows))
    if json:
        say_json(result)
        return
    say(table([row.cells for row in rows], HEADER))
    say_changes(changed, compare)
    say(result["sentence"])


def _timed(
    bundle: Bundle, names: list[str], precision: str | None, batch: int, tell: Callable[[str], None]
) -> list[KernelRow]:
    """One row per kernel and provider, for the named kernels or for all.

    Raises:
        UsageError: there is no such kernel or precision, or the bundle's network does not use the kernels.
        EngineUnavailableError: PyTorch does not load here, or a kernel's answer is wrong.
    """
    try:
        import torch

        from melanoma_infer.bench.kernels import sizes_of, time_kernels
        from melanoma_infer.engines.torch_device import DTYPES
        from mminfer_kernels.catalogue import KERNELS
        from mminfer_kernels.errors import KernelError
    except ImportError as error:
        missing = {"torch": "PyTorch", "triton": "Triton"}.get(error.name or "", error.name or "a package")
        raise EngineUnavailableError(
            f"The kernels need {missing}, which cannot be imported here. Install it: pip install 'mminfer[torch]'"
        ) from error
    if unknown := sorted(set(names) - set(KERNELS)):
        raise UsageError(f"--kernel {unknown[0]}: no such kernel. Choose from {', '.join(KERNELS)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = precision or ("fp16" if device == "cuda" else "fp32")
    chosen = next((each for each in DTYPES if each == wanted), None)
    if chosen is None:
        raise UsageError(f"--precision {wanted}: not supported by the kernels. Choose from {', '.join(DTYPES)}.")
    problem = sizes_of(bundle.card, batch, chosen)
    try:
        return list(time_kernels(problem, chosen, device, kernels=names or KERNELS, tell=tell))
    except KernelError as error:
        raise EngineUnavailableError(f"{error} Do not use --engine triton on this machine.") from error
