"""A report of which nothing was measured, for tests of how a report is shown."""

from dataclasses import replace

from fasternet_mm.report.schema import (
    Comparison,
    Environment,
    Evaluation,
    Gpu,
    Host,
    Latency,
    Layer,
    Measurement,
    Missing,
    Model,
    MultiplyAdds,
    Published,
    Report,
    Roofline,
    Side,
    Snapshot,
    Split,
)

LABELS = (
    'random weights',
    'the machine was busy',
    'measured in fp16',
    'accuracy on 16 images only',
    'not on COCO val2017',
    'parts were timed one by one',
)
ERROR = 'CUDA out of memory while the made-up model ran'


def measurement(scope: str, mode: str, p50: float, **other) -> Measurement:
    samples = [p50 * (0.9 + 0.2 * index / 20) for index in range(21)]
    usual = dict(
        dtype='fp32', device='cuda:0', batch_size=1, shape=[64, 96], channels_last=False, threads=1,
        latency_ms=Latency(p50, 0.92 * p50, p50, 1.08 * p50, 1.1 * p50, n=21, warmup=3, samples=samples),
        throughput=1000 / p50, peak_memory=2**27, peak_memory_of='CUDA allocator',
    )  # fmt: skip
    return Measurement(scope, mode, **(usual | other))


def failed(scope: str, mode: str) -> Measurement:
    nothing = dict(latency_ms=None, throughput=None, peak_memory=None, peak_memory_of=None)
    return measurement(scope, mode, 777, error=ERROR, **nothing)


def model(name: str, kind: str, **other) -> Model:
    counted = MultiplyAdds(4_500_000_000, {'backbone': 2_000_000_000}, [64, 96], 'made up')
    usual = dict(config_sha256='0' * 64, parameters=1_230_000, multiply_adds=counted, complete=True)
    return Model(name, kind, **(usual | other))


def comparison(a: str, b: str, ratio: float, interval: list[float], verdict: str) -> Comparison:
    sides = [Side(name, 'eager', 'fp32') for name in (a, b)]
    return Comparison('detector', 'eager', 'fp32', 1, a, b, *sides, ratio, interval, verdict)


def made_up_report() -> Report:
    host = Host('Linux', 'Made-up CPU', 2, 0.5)
    gpu = Gpu('Made-up GPU', driver='1', sm_clock_mhz=1000, temperature_c=40, throttle_reasons=0)
    snapshot = Snapshot(host, 1, '3.11', dict(torch='2.0.made.up'), None, gpu)
    layers = [Layer('a', 'PConv', 1.0, 50.0, 3.0, 0.5), Layer('rest', 'other', 1.0, 0.0, None, 0.5)]
    parts = {'backbone': 8.0, 'neck': 4.0, 'head': 7.0}
    detector = model(
        'FasterNet-X',
        'detector',
        labels=['random weights'],
        deviations=['parameters 3.1 % off'],
        published=Published(box_ap=39.9, gpu_ms=54.3, source='a made-up paper', hardware='Some GPU'),
        measurements=[
            measurement('detector', 'eager', 20, labels=['the machine was busy']),
            measurement('detector', 'fused', 16, dtype='fp16', labels=['measured in fp16'], difference=1e-3),
            failed('detector', 'compile'),
            measurement('backbone', 'eager', 8),
        ],
        split=Split([64, 96], parts, 19.0, 20.0, -0.05, ['parts were timed one by one']),
        rooflines=[Roofline(1000.0, 50.0, 4.0, 3.0, layers, 'cuda:0', 'fp32', 1)],
    )
    labels = ['accuracy on 16 images only', 'not on COCO val2017']
    other = model(
        'ResNet-Y',
        'detector',
        evaluation=Evaluation({'coco/bbox_mAP': 0.251}, 16, 'made/up.json', labels),
        measurements=[measurement('detector', 'eager', 25)],
    )
    return Report(
        created='2024-05-06T07:08:09Z',
        command=['tools/report.py'],
        options=dict(repeats=20),
        environment=Environment(snapshot, replace(snapshot)),
        complete=True,
        missing=[Missing('NoNet', 'nobody builds it', None)],
        models=[detector, other, model('Classifier-Z', 'classifier', error='it could not be built')],
        comparisons=[
            comparison('FasterNet-X', 'ResNet-Y', 0.8, [0.75, 0.85], 'a is faster'),
            comparison('ResNet-Y', 'FasterNet-X', 1.01, [0.9, 1.1], 'within the noise'),
        ],
    )
