"""What a number was measured on, and what of it belongs beside the number."""

import torch

from fasternet_mm.report.measure import environment
from fasternet_mm.report.measure.environment import load_labels, throttle_labels
from fasternet_mm.report.schema import Gpu, Host, Snapshot

from .measuring import CPU


def snapshot(load: float, gpu: Gpu | None = None) -> Snapshot:
    return Snapshot(Host('', '', 2, load), 1, '', {}, None, gpu)


def test_a_busy_or_throttled_machine_is_labelled(monkeypatch):
    assert 'the CPU was busy: load average 1.9' in load_labels(snapshot(1.9))[0]
    assert load_labels(snapshot(0.1)) == []
    (busy,) = load_labels(snapshot(1.9, Gpu('', utilization_percent=80.0)))
    assert 'the GPU was busy' in busy
    assert load_labels(snapshot(1.9, Gpu('', utilization_percent=0.0))) == []
    cuda = torch.device('cuda')
    for reasons, label in ((0, []), (1, []), (5, ['the GPU was throttled: reasons 0x4'])):
        monkeypatch.setattr(environment, '_gpu', lambda device, reasons=reasons: Gpu('', throttle_reasons=reasons))
        assert throttle_labels(cuda) == label
    assert throttle_labels(CPU) == []


def test_what_nvidia_smi_says(monkeypatch):
    asked = []

    def answer(*command, cwd=None):
        asked.append(command)
        return '570.86, 1980, [N/A], 41, 120.50, 0, 0x0000000000000004'

    monkeypatch.setattr(environment, '_output', answer)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda index: 'NVIDIA H200')
    properties = type('Properties', (), dict(uuid='1234-5678'))()
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda index: properties)
    found = environment._gpu(torch.device('cuda', 0))
    assert asked[0][-2:] == ('-i', 'GPU-1234-5678')  # whatever CUDA_VISIBLE_DEVICES calls it
    assert found.sm_clock_mhz == 1980 and found.max_sm_clock_mhz is None
    assert found.power_w == 120.5 and found.throttle_reasons == 4 and found.driver == '570.86'
