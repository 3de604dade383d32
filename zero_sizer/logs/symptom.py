"""A memory failure as a log tells it."""

from enum import Enum

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import Phase
from zero_sizer.util.interval import Interval
from zero_sizer.util.records import dataclass


class Kind(Enum):
    """How a job ran out of memory."""

    GPU = "gpu-out-of-memory"  # PyTorch's allocator says what it had
    GPU_UNKNOWN = "gpu-out-of-memory-without-figures"  # an error of the driver alone
    NCCL = "nccl-out-of-memory"  # outside of PyTorch's allocator
    HOST_KILLED = "host-process-killed"  # the kernel, SLURM or a container said so
    KILLED = "process-killed"  # signal 9 from whomever
    HOST = "host-allocation-failed"
    PINNING = "pinning-failed"
    SHARED = "shared-memory-full"  # /dev/shm, of the data loader's workers
    DISK = "disk-full"


DEVICES = {
    Kind.GPU: Device.GPU,
    Kind.GPU_UNKNOWN: Device.GPU,
    Kind.NCCL: Device.GPU,
    Kind.HOST_KILLED: Device.HOST,
    Kind.KILLED: Device.HOST,
    Kind.HOST: Device.HOST,
    Kind.PINNING: Device.HOST,
    Kind.SHARED: Device.HOST,
    Kind.DISK: Device.NVME,
}


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """One failure.

    Attributes:
        kind: how the job ran out.
        line: of the log, from 1.
        text: the line itself.
        phase: of the step, as the stack or the last ``see_memory_usage`` line tells; None where
            neither does.
        place: the DeepSpeed or PyTorch function that tells the phase; empty where none does.
        is_from_stack: a stack tells the phase, and not only what was logged before.
        rank: as the log names it; None where it does not.
        gpu: index of the GPU on its node.
        requested: bytes asked for; as exact as the message is.
        total, free, allocated, idle, in_use: bytes of the device, free, allocated by PyTorch,
            reserved by it without being allocated, and in use by this process.
        others: bytes that other processes have of the GPU.
        resident: bytes of a killed process in RAM.
    """

    kind: Kind
    line: int
    text: str
    phase: Phase | None = None
    place: str = ""
    is_from_stack: bool = False
    rank: int | None = None
    gpu: int | None = None
    requested: Interval | None = None
    total: int | None = None
    free: int | None = None
    allocated: int | None = None
    idle: int | None = None
    in_use: int | None = None
    others: int = 0
    resident: int | None = None

    @property
    def device(self) -> Device:
        """The device that was short."""
        return DEVICES[self.kind]

    @property
    def is_fragmented(self) -> bool:
        """True if PyTorch held enough for the request, in pieces that were too small."""
        return None not in (self.requested, self.idle) and self.idle >= self.requested.low  # type: ignore[operator,union-attr]
