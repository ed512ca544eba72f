"""Pictures of a report: which there are, how large, and what stands in their captions."""

import cv2
import numpy as np
import pytest

from fasternet_mm.report.render.pictures import pictures

from .made_up import made_up_report, measurement, model


@pytest.fixture
def report():
    return made_up_report()


def test_pictures(report):
    drawn = pictures(report)
    assert set(drawn) == {'accuracy_over_latency.png', 'latency.png', 'split.png', 'roofline.png'}
    for name, content in drawn.items():
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width = picture.shape[:2]
        assert 800 <= width <= 1600 and 200 <= height <= 1600, name
        assert picture.std() > 5, name


def test_no_picture_without_data(report):
    for one in report.models:
        one.measurements, one.split, one.rooflines = [], None, []
    assert pictures(report) == {}


def test_the_picture_of_latencies_grows_with_its_rows(report):
    def height(report):
        return cv2.imdecode(np.frombuffer(pictures(report)['latency.png'], np.uint8), cv2.IMREAD_COLOR).shape[0]

    before = height(report)
    report.models += [model(f'Net-{n}', 'detector', measurements=[measurement('detector', 'eager', n + 5)])
                         for n in range(20)]  # fmt: skip
    assert height(report) > before + 20 * 20


@pytest.mark.parametrize('name', ['accuracy_over_latency.png', 'latency.png', 'split.png'])
def test_labels_stand_in_the_captions(report, name, monkeypatch):
    from matplotlib.figure import Figure

    written = []
    original = Figure.text
    monkeypatch.setattr(Figure, 'text', lambda *a, **k: written.append(a[3]) or original(*a, **k))
    wanted = {
        'accuracy_over_latency.png': ['random weights', 'the machine was busy', 'not on COCO val2017'],
        'latency.png': ['random weights', 'the machine was busy', 'measured in fp16'],
        'split.png': ['random weights', 'parts were timed one by one'],
    }[name]
    pictures(report)
    caption = written[['accuracy_over_latency.png', 'latency.png', 'split.png'].index(name)]
    for text in (*wanted, 'Made-up GPU', 'fp32', 'batch 1', 'torch 2.0.made.up', '2024-05-06'):
        assert text in caption
