"""Pictures of a report: which there are, how large, and what stands in their captions."""

import cv2
import numpy as np
import pytest

from fasternet_mm.report.render.pictures import efficiency_gap, figure2, figure8, joined_pictures, pictures
from fasternet_mm.report.schema import Layer, MultiplyAdds, Published, Roofline

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


def classifiers(device: str = 'cpu') -> list:
    """Three that were timed at two batch sizes, of which one is much slower than the FasterNet."""
    models = []
    for name, billions, p50, top1 in (('FasterNet-X', 2, 20, 78), ('Net-A', 1, 15, 77.5), ('Net-B', 4, 90, 79)):
        timed = [measurement('classifier', 'fused', p50 * size, device=device, batch_size=size) for size in (1, 8)]
        layers = [Layer('a', 'Conv', 0.6 * p50, 50.0, 3.0, 0.6), Layer('b', 'other', 0.4 * p50, 0.0, None, 0.4)]
        counted = MultiplyAdds(billions * 10**9, {}, [64, 96], 'made up')
        published = Published(name, gflops=billions, cpu_ms=30.0, gpu_fps=500.0, top1=top1, source='a made-up paper')
        floors = Roofline(1000.0, 50.0, 2.0 * billions, 3.0, layers, device, 'fp32', 1)
        models.append(model(name, 'classifier', published=published, measurements=timed, multiply_adds=counted,
                            rooflines=[floors], labels=['random weights']))  # fmt: skip
    return models


def test_classifiers_have_the_papers_figures_and_the_gap(report):
    report.models = classifiers()
    joined = {'figure2.png', 'figure7.png', 'figure8.png', 'efficiency_gap.png'}
    assert set(joined_pictures([report])) == joined
    assert set(pictures(report)) == joined | {'accuracy_over_latency.png', 'latency.png', 'roofline.png'}


def test_figure_7_is_left_out_where_it_is_figure_8(report):
    report.models = classifiers()[:2]
    report.models[1].published.top1 = 79.0
    assert 'figure7.png' not in joined_pictures([report])


def test_joined_reports_have_a_panel_for_each_device(report):
    report.models, other = classifiers(), made_up_report()
    other.models = classifiers('cuda:0')
    for draw in (figure2, figure8):
        assert len(draw([report, other]).axes) == 2 * len(draw([report]).axes)
    assert len(efficiency_gap([report, other]).axes[0].get_yticks()) == 6


def test_the_papers_panels_are_drawn_where_they_are_asked_for(report):
    report.models = classifiers()
    titles = [axis.get_title('left') or axis.get_title() for axis in figure8([report], with_paper=True).axes]
    assert len(titles) == 4 and sum('the paper, quoted' in title for title in titles) == 2


def test_the_captions_say_where_quoted_figures_are_from(report, monkeypatch):
    from matplotlib.figure import Figure

    written, original = [], Figure.text
    monkeypatch.setattr(Figure, 'text', lambda *a, **k: written.append(a[3]) or original(*a, **k))
    report.models = classifiers()
    joined_pictures([report])
    assert len(written) == 4
    for caption in written:
        for text in ('Made-up CPU', 'fp32', 'batch 1', 'torch 2.0.made.up', '2024-05-06', 'random weights'):
            assert text in caption
    assert all('quoted from a made-up paper, not measured here' in caption for caption in written[:3])


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
