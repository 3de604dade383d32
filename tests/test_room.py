"""Room for one more of the largest tensor, beside a peak."""

from zero_sizer import capacity
from zero_sizer.advise.limits import Limits
from zero_sizer.advise.sweep import Use
from zero_sizer.capacity import Capacity, Fit
from zero_sizer.moments import Moment
from zero_sizer.peak import Peak
from zero_sizer.plan import Device

GPU = Capacity(num_bytes=100, outside_bytes=(5, 10))


def test_what_is_left_at_most_holds_the_largest_tensor_or_nobody_can_say():
    peak = Peak(num_bytes=80, moment=Moment.BACKWARD)
    assert [capacity.fit(peak, GPU, request) for request in (0, 15, 16)] == [
        Fit.YES,
        Fit.YES,
        Fit.UNKNOWN,
    ]
    assert capacity.fit(Peak(num_bytes=96, moment=Moment.BACKWARD), GPU, 16) is Fit.NO


def test_only_the_gpu_is_asked_in_one_piece_and_the_reader_is_told():
    peaks = {device: Peak(num_bytes=80, moment=Moment.BACKWARD) for device in Device}
    found = dict.fromkeys(Device, GPU)
    assert capacity.fits(peaks, found, 16) == {
        Device.GPU: Fit.UNKNOWN,
        Device.HOST: Fit.YES,
        Device.NVME: Fit.YES,
    }
    (said,) = capacity.findings(peaks, found, 16)
    assert said.code == "gpu-fragmentation"
    assert said.severity.value == "warning"


def test_a_search_leaves_the_same_room():
    limits = Limits(allowed=dict.fromkeys(Device, 90), with_request=95)
    use = {Device.GPU: Use(80, Moment.BACKWARD, request=15)}
    assert not limits.shortfalls(use, ())
    (short,) = limits.shortfalls({Device.GPU: Use(80, Moment.BACKWARD, request=18)}, ())
    assert short.missing_bytes == 3
