"""What can go wrong, as one tree; each leaf has its own exit code on the command line.

::

    MminferError
    ├── UsageError               2    the command line or a setting contradicts itself
    ├── RefusedError             4    the verdict is one that --fail-on names
    ├── SlideUnreadableError    10    the slide is damaged, incomplete, or none of its tiles can be read
    ├── SlideFormatError        11    no reader knows this format or its encoding, or it holds no slide image
    ├── ScaleUnknownError       12    µm per pixel are missing or implausible
    ├── PatientValueError       13    a patient or manifest value is not in the vocabulary, or impossible
    ├── OutputError             14    the output folder is full, read-only, or locked by another run
    ├── DatasetError            15    a data set, or what it is made from, is damaged or contradicts itself or the card
    ├── BundleError             20    a bundle differs from its checksums or card, or is of another version
    ├── EngineUnavailableError  21    the engine or precision does not exist on this machine
    ├── ParityError             22    an engine's numbers differ from the reference by more than the tolerance
    ├── TransientIOError       104    storage failed for a moment; the same command may succeed later
    ├── ScanBusyError          105    the engine is behind the scanner, and the session does not block
    ├── MemoryExhaustedError   175    there was not enough memory, the computer's or the GPU's
    ├── NativeCrashError       176    a native library crashed on a slide
    └── GpuLostError           177    the GPU stopped working

A message says what is wrong, why, and what to do next. It names a slide by its id, never by its path.
"""

from collections.abc import Sequence


class MminferError(Exception):
    """Base of every error that a user can cause or must act on.

    Args:
        message: what is wrong, why, and what to do next.
        names: names of files in the message, which are left out of it where a slide's name is hidden.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class UsageError(MminferError):
    """The command line or a setting contradicts itself."""

    exit_code = 2


class RefusedError(MminferError):
    """The verdict is one that the caller asked to be treated as a failure."""

    exit_code = 4


class SlideUnreadableError(MminferError):
    """The slide is damaged, incomplete, or none of its tiles can be read."""

    exit_code = 10


class SlideFormatError(MminferError):
    """No reader knows this format or its encoding, or the file holds no slide image."""

    exit_code = 11


class ScaleUnknownError(MminferError):
    """µm per pixel are missing or implausible."""

    exit_code = 12


class PatientValueError(MminferError):
    """A patient or manifest value is not in the vocabulary, or impossible."""

    exit_code = 13


class OutputError(MminferError):
    """The output folder cannot be written: full, read-only, or locked by another run."""

    exit_code = 14


class DatasetError(MminferError):
    """A data set, or what it is made from, is damaged or contradicts itself or the model card."""

    exit_code = 15


class BundleError(MminferError):
    """A model bundle differs from its checksums or its card, or this version cannot read it."""

    exit_code = 20


class EngineUnavailableError(MminferError):
    """The engine or precision does not exist on this machine."""

    exit_code = 21


class ParityError(MminferError):
    """An engine's numbers differ from the reference by more than the tolerance."""

    exit_code = 22


class TransientIOError(MminferError):
    """Storage failed for a moment; the same command may succeed later."""

    exit_code = 104


class ScanBusyError(MminferError):
    """The engine is behind the scanner, and the session does not block: push the frame again later."""

    exit_code = 105


class MemoryExhaustedError(MminferError):
    """There was not enough memory, the computer's or the GPU's."""

    exit_code = 175


class NativeCrashError(MminferError):
    """A native library crashed on a slide, also when the slide was scored alone."""

    exit_code = 176


class GpuLostError(MminferError):
    """The GPU stopped working: nothing will run on it in this process again."""

    exit_code = 177


class Stopped(BaseException):
    """The process was asked to stop: by Ctrl-C (SIGINT), or by SIGTERM.

    Args:
        exit_code: 128 and the signal's number.
        message: what is kept, and how to go on.
    """

    def __init__(self, exit_code: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.exit_code = exit_code
