"""What a report measures, and what stays when something fails."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from fasternet_mm.report import (
    Limits,
    Options,
    Reporter,
    check_continues,
    from_config,
    from_timm,
    new_report,
)
from fasternet_mm.report.measure import environment
from fasternet_mm.report.measure.breakdown import roofline
from fasternet_mm.report.measure.counting import count_detector, count_parameters
from fasternet_mm.report.measure.environment import load_labels, throttle_labels
from fasternet_mm.report.measure.modes import fused
from fasternet_mm.report.measure.subject import Subject
from fasternet_mm.report.paper.suites import Row
from fasternet_mm.report.render.output import markdown
from tests.helpers import REPO
from tests.helpers.networks import settled

CPU = torch.device('cpu')
FAST = Limits(warmup=0.0, min_seconds=0.0, repeats=2)


@pytest.fixture
def detector(tiny_config):
    path = str(tiny_config())
    return from_config(load_config(path), path, None)


@pytest.fixture
def classifier(tiny_classifier_config):
    return from_config(Config.fromfile(tiny_classifier_config), str(tiny_classifier_config), None)


def run(subjects, **options) -> dict:
    options = Options(**dict(dict(device=CPU, shape=(64, 64), limits=FAST, evaluate=False), **options))
    saved = []
    reporter = Reporter(new_report(options, ['report.py']), options, lambda r: saved.append(copy.deepcopy(r)), str)
    reporter.run(subjects, None)
    assert saved and not saved[0]['complete']  # on the way already
    reporter.finish()
    json.dumps(saved[-1])
    return saved[-1]


def test_a_classifier_in_every_mode_and_dtype(classifier):
    report = run([classifier], modes=['eager', 'fused'], dtypes=['fp32', 'bf16'], batch_sizes=[1, 2])
    (model,) = report['models']
    rows = model['measurements']
    assert len(rows) == 2 * 2 * 2 * 2  # scope, mode, dtype, batch size
    assert all(row['error'] is None and row['latency_ms']['n'] >= 2 for row in rows)
    for row in rows:
        assert row['throughput'] == pytest.approx(1e3 * row['batch_size'] / row['latency_ms']['p50'])
        reference = (row['mode'], row['dtype']) == ('eager', 'fp32')
        assert (row['difference'] is None) == reference
        if not reference:
            assert row['difference'] < (1e-5 if row['dtype'] == 'fp32' else 5e-2)
        assert ('in bf16' in row['labels']) == (row['dtype'] == 'bf16')
    assert report['complete'] and 'random weights' in model['labels']
    pairs = {(one['a'], one['b']) for one in report['comparisons']}
    assert ('classifier [fused bf16]', 'classifier [eager fp32]') in pairs
    assert ('classifier [fused]', 'classifier [eager]') in pairs


def test_the_fast_forms_of_a_trained_detectors_backbone(detector):
    """Its output norms stay: alone, a backbone has no neck that could take them."""
    settled(detector.model)
    (model,) = run([detector], modes=['eager', 'deploy', 'onnxruntime'], scopes=['backbone'])['models']
    assert [row['error'] for row in model['measurements']] == [None] * 3


@pytest.mark.parametrize('mode', ['deploy', 'onnxruntime', 'openvino'])
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_the_fast_forms_of_a_classifier(classifier, mode, dtype):
    report = run([classifier], modes=[mode], dtypes=[dtype], batch_sizes=[1])
    rows = report['models'][0]['measurements']
    assert {row['scope'] for row in rows} == {'classifier', 'backbone'}
    for row in rows:
        if (mode, dtype) == ('onnxruntime', 'bf16'):
            assert row['error'] == 'mode onnxruntime is for --device cpu in fp32' and row['latency_ms'] is None
        else:
            assert row['error'] is None and row['latency_ms']['n'] >= 2
            assert row['difference'] < (1e-4 if dtype == 'fp32' else 5e-2)


def test_modes_that_are_not_for_this_model_or_machine(classifier, detector):
    timm = from_timm('timm://fasternet_t0')
    report = run([classifier, timm], modes=['graphs', 'deploy'], batch_sizes=[1], scopes=['classifier'])
    ours, theirs = [[row['error'] for row in model['measurements']] for model in report['models']]
    assert ours == ['mode graphs is for --device cuda', None]
    assert theirs[1] == 'mode deploy: neither a FasterNet nor a backbone with switch_to_deploy()'
    (row,) = run([detector], modes=['openvino'], scopes=['detector'])['models'][0]['measurements']
    assert row['error'] == 'mode openvino is for backbones and classifiers, not for whole detectors'


def test_a_training_step_beside_timms(classifier):
    timm = from_timm('timm://fasternet_t0')
    report = run([classifier, timm], batch_sizes=[2], scopes=['training'])
    rows = [row for model in report['models'] for row in model['measurements']]
    assert [row['scope'] for row in rows] == ['training', 'training'] and not [row for row in rows if row['error']]
    assert all(row['latency_ms']['n'] >= 2 and row['peak_memory_of'] == 'tensors' for row in rows)
    # weights, gradients and AdamW's two states, and not much more of such small images
    states = 4 * 4 * sum(parameter.numel() for parameter in timm.model.parameters())
    assert states < rows[1]['peak_memory'] < 2 * states
    assert len(report['comparisons']) == 1
    (row,) = run([classifier], modes=['deploy'], batch_sizes=[2], scopes=['training'])['models'][0]['measurements']
    assert row['error'] == 'mode deploy cannot be trained; --scope training takes --mode eager'


def test_the_floors_under_a_backbone(classifier):
    report = run([classifier], modes=['eager', 'deploy'], batch_sizes=[4], scopes=['backbone', 'roofline'])
    (model,) = report['models']
    floors, counted = model['rooflines'][0], model['multiply_adds']['parts']['backbone']
    assert floors['batch_size'] == 4
    assert floors['arithmetic_floor_ms'] == pytest.approx(4 * 2 * counted / floors['matmul_gflops'] / 1e6)
    weights = 4 * sum(p.numel() for m in classifier.model.backbone.modules() if isinstance(m, torch.nn.Conv2d)
                      for p in m.parameters())  # fmt: skip
    assert floors['memory_floor_ms'] > weights / floors['copy_gb_per_s'] / 1e6
    assert 'How near the backbones are to the floors' in markdown(report) and 'deploy ' in markdown(report)


def test_floors_for_each_dtype_and_batch_size(classifier):
    settings = dict(modes=['eager'], dtypes=['fp32', 'bf16'], batch_sizes=[1, 4], scopes=['backbone', 'roofline'])
    (model,) = run([classifier], **settings)['models']
    found = {(floors['dtype'], floors['batch_size']): floors for floors in model['rooflines']}
    assert set(found) == {(row['dtype'], row['batch_size']) for row in model['measurements']}
    assert all(floors['memory_floor_ms'] > 0 for floors in found.values())


def test_a_detector_its_split_and_its_layers(detector):
    report = run([detector], modes=['eager', 'fused'])
    (model,) = report['models']
    assert model['error'] is None
    assert {row['scope'] for row in model['measurements']} == {'backbone', 'detector'}
    split = model['split']
    names = ['preprocessing', 'backbone', 'neck', 'RPN', 'RoI heads', 'post-processing', 'everything else']
    assert list(split['parts']) == names and all(value > 0 for value in split['parts'].values())
    assert split['total_ms'] == pytest.approx(sum(split['parts'].values()))
    assert split['disagreement'] == pytest.approx(split['total_ms'] / split['whole_ms'] - 1)
    kinds = {layer['kind'] for layer in model['rooflines'][0]['layers']}
    assert kinds == {'stem', 'BN', 'PConv', 'PWConv', 'merging', 'activation', 'other'}
    assert sum(layer['share'] for layer in model['rooflines'][0]['layers']) == pytest.approx(1)


def test_photographs_where_there_are_some_and_noise_where_not(detector, tmp_path):
    labels = run([detector], scopes=['detector'])['models'][0]['measurements'][0]['labels']
    assert labels == ['on 4 preprocessed images of the test set, in turn, of 192x192']
    detector = replace(detector, batches={})  # what was prepared once is kept
    detector.cfg.test_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    (row,) = run([detector], scopes=['detector'])['models'][0]['measurements']
    assert row['labels'] == ['on noise of 64 x 64 instead of photographs'] and row['latency_ms']['n'] >= 2


def test_models_of_one_run_are_compared_in_turn(classifier):
    other = copy.deepcopy(classifier)
    other.name = 'other'
    report = run([classifier, other], modes=['eager', 'fused'], batch_sizes=[1], scopes=['classifier'])
    pairs = {(one['a'], one['b'], one['mode']) for one in report['comparisons']}
    assert pairs == {
        ('other', 'classifier', 'eager'),
        ('other', 'classifier', 'fused'),
        ('classifier [fused]', 'classifier [eager]', 'fused'),
        ('other [fused]', 'other [eager]', 'fused'),
        ('other [fused]', 'classifier [eager]', 'fused'),
    }
    assert all(one['interval'][0] <= one['ratio'] <= one['interval'][1] for one in report['comparisons'])


@pytest.mark.parametrize('lost', ['head.fc', 'backbone.patch_embed.proj', 'backbone.stages.6.blocks.0.mlp.3'])
def test_a_mode_that_is_wrong_is_not_timed(classifier, monkeypatch, lost):
    """Also where random weights leave little of the image beside the biases."""
    torch.nn.init.constant_(classifier.model.head.fc.bias, 100.0)

    def broken(model):
        torch.nn.init.zeros_(model.get_submodule(lost).weight)
        return model

    monkeypatch.setattr('fasternet_mm.report.measure.modes.fused', broken)
    rows = run([classifier], modes=['eager', 'fused'], batch_sizes=[1], scopes=['classifier'])['models'][0][
        'measurements'
    ]
    assert rows[0]['latency_ms'] is not None and rows[1]['latency_ms'] is None
    assert rows[1]['error'].startswith('fused fp32 is wrong: its outputs differ from eager fp32')


@pytest.mark.parametrize('lost', ['rpn_head.rpn_reg', 'roi_head.bbox_head.fc_cls', 'roi_head.mask_head.conv_logits'])
def test_a_detector_whose_heads_are_wrong_is_not_timed(detector, monkeypatch, lost):
    def broken(model):
        torch.nn.init.zeros_(model.get_submodule(lost).weight)
        return model

    monkeypatch.setattr('fasternet_mm.report.measure.modes.fused', broken)
    (model,) = run([detector], modes=['fused'], scopes=['detector'])['models']
    assert model['measurements'][0]['error'].startswith('fused fp32 is wrong')


def test_fusing_nothing_is_said():
    plain = Subject('plain', 'classifier', torch.nn.Conv2d(3, 8, 3).eval())
    (row,) = run([plain], modes=['fused'], batch_sizes=[1])['models'][0]['measurements']
    assert 'nothing was fused: no BN follows a convolution' in row['labels']


def test_accuracy_is_of_the_mode_and_on_the_device_that_are_measured(detector, monkeypatch, tmp_path):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cuda')  # as where there is a GPU
    seen = []
    step = type(detector.model).test_step

    def watched(self, data):
        norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in self.modules())
        seen.append((norms, torch.is_autocast_enabled('cpu'), next(self.parameters()).device.type))
        return step(self, data)

    monkeypatch.setattr(type(detector.model), 'test_step', watched)
    options = Options(CPU, modes=['fused'], dtypes=['bf16'], scopes=[])
    reporter = Reporter(new_report(options, []), options, lambda report: None, str)
    reporter.run([detector], tmp_path)
    evaluation = reporter.report['models'][0]['evaluation']
    assert evaluation['error'] is None and 'accuracy of fused bf16' in evaluation['labels']
    assert set(seen) == {(4, True, 'cpu')}  # the output norms follow no convolution


def test_running_out_of_memory_ends_one_batch_size_alone(classifier, monkeypatch):
    forward = type(classifier.model).forward

    def limited(self, inputs, *args, **kwargs):
        if len(inputs) > 2:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return forward(self, inputs, *args, **kwargs)

    monkeypatch.setattr(type(classifier.model), 'forward', limited)
    rows = run([classifier], batch_sizes=[1, 2, 4], scopes=['classifier'])['models'][0]['measurements']
    assert [(row['batch_size'], row['error']) for row in rows] == [(1, None), (2, None), (4, 'out of memory')]


def test_the_others_go_on_without_a_model_that_fails_on_the_way(classifier, monkeypatch):
    other = copy.deepcopy(classifier)
    other.name = 'other'
    calls = []

    def fails_in_the_end(self, feats):
        calls.append(feats)
        if len(calls) > 30:
            raise RuntimeError('[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory')
        return torch.zeros(1, 1000)

    other.model.head.forward = fails_in_the_end.__get__(other.model.head)
    limits = Limits(0.0, 0.0, 100)
    report = run([classifier, other], batch_sizes=[1], scopes=['classifier'], limits=limits)
    (a,), (b,) = (model['measurements'] for model in report['models'])
    assert a['error'] is None and a['latency_ms']['n'] == 100
    assert b['error'] == 'out of memory' and b['latency_ms'] is None


@pytest.mark.parametrize(('option', 'value'), [('modes', 'fast'), ('dtypes', 'int8')])
def test_what_does_not_exist_is_refused_by_name(option, value):
    with pytest.raises(UserError, match=f"{option[:-1]} '{value}' does not exist; choose from"):
        Options(CPU, **{option: [value]})


def test_table_4s_multiply_adds_are_reproduced():
    from tests.helpers.golden import TABLES

    columns = {row['backbone']: row for row in TABLES['table4_coco_mask_rcnn_1x']}
    for arch in 'sml':
        path = REPO / 'configs' / f'mask_rcnn_fasternet_{arch}.py'
        with torch.device('meta'):
            model = from_config(Config.fromfile(path), str(path), None).model
        counted, row = count_detector(model, (800, 1280)), columns[f'FasterNet-{arch.upper()}']
        assert counted['table4'] / 1e9 == pytest.approx(row['gflops_1280x800'], rel=0.01)
        # the convention that mmdet prints is 7 G above: the mask head's upsampling and its last convolution
        assert (counted['total'] - counted['table4']) / 1e9 == pytest.approx(6.744, abs=1e-3)
        assert sum(counted['parts'].values()) == counted['total']
        assert round(count_parameters(model) / 1e6, 1) == row['params_m']


def test_fusing_keeps_the_activations_of_timms_norms():
    timm = pytest.importorskip('timm')
    model = timm.create_model('mobilenetv2_100').eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        want = model(images)
        torch.testing.assert_close(fused(model)(images), want, rtol=1e-4, atol=1e-5)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_layers_are_counted_as_torch_counts(classifier):
    from fasternet_mm.report.measure.counting import multiply_adds

    images = torch.randn(1, 3, 64, 64)
    layers = roofline(classifier.model.backbone, images, repeats=1)['layers']
    convolutions = [layer for layer in layers if layer['kind'] in ('stem', 'PConv', 'PWConv', 'merging')]
    arithmetic = sum(layer['gflops'] * layer['ms'] * 1e6 for layer in convolutions)
    assert arithmetic == pytest.approx(2 * multiply_adds(lambda: classifier.model.backbone(images)), rel=1e-6)
    assert not [m for m in classifier.model.modules() if 'forward' in vars(m)]  # nothing stays behind


ROWS = [
    Row('FasterNet-T2', dict(params_m=1.0, gflops=0.1), (64, 64), lambda: torch.nn.Conv2d(3, 8, 3), None),
    Row('Broken', {}, (64, 64), lambda: 1 / 0, None),
    Row('Other', {}, (64, 64), lambda: torch.nn.Conv2d(3, 8, 3), None),
    Row('Lost', dict(params_m=2.0), (64, 64), None, 'no installed package builds it'),
]


def suite_options(**more) -> Options:
    return Options(CPU, batch_sizes=[1], scopes=['classifier'], evaluate=False, limits=FAST, **more)


def run_rows(rows, report=None, options=None):
    options = options or suite_options()
    report = report or new_report(options, ['report.py'], 'table3')
    said = []
    reporter = Reporter(report, options, lambda r: None, said.append)
    reporter.run_suite(rows, None)
    reporter.finish()
    return report, said


def test_a_suite_survives_a_model_and_says_what_is_missing():
    report, _ = run_rows(ROWS)
    models = {model['name']: model for model in report['models']}
    assert list(models) == ['FasterNet-T2', 'Broken', 'Other']
    assert models['Broken']['error'] == 'not built: ZeroDivisionError: division by zero'
    assert report['missing'] == [
        dict(name='Lost', reason='no installed package builds it', published=dict(params_m=2.0))
    ]
    ((a, b),) = {(one['a'], one['b']) for one in report['comparisons']}
    assert (a, b) == ('Other', 'FasterNet-T2')
    assert any('parameters 0.00, -100.0 % off' in line for line in models['FasterNet-T2']['deviations'])


def test_a_suite_goes_on_where_it_stopped():
    report, _ = run_rows(ROWS[:1])
    kept = copy.deepcopy(report['models'][0])
    report['models'].append(dict(copy.deepcopy(kept), name='Other'))
    report['models'][1]['complete'] = False  # interrupted there
    report, said = run_rows(ROWS, report)
    assert report['models'][0]['measurements'] == kept['measurements']
    assert [model['name'] for model in report['models']] == ['FasterNet-T2', 'Broken', 'Other'] and report['complete']
    assert report['models'][2]['measurements'][0]['latency_ms'] is not None
    assert [line for line in said if line.startswith('[')] == ['[1/2] Broken', '[2/2] Other']


def test_other_options_do_not_go_on():
    report = json.loads(json.dumps(new_report(suite_options(), [], 'table3')))
    check_continues(report, new_report(suite_options(), [], 'table3'))
    with pytest.raises(UserError, match='--resume: the report (has|was made with) options .*use another --out'):
        check_continues(report, new_report(suite_options(modes=['fused']), [], 'table3'))


def test_a_busy_or_throttled_machine_is_labelled(monkeypatch):
    host = dict(load_average=1.9, cores=2)
    assert 'the CPU was busy: load average 1.9' in load_labels(dict(host=host, gpu=None))[0]
    assert load_labels(dict(host=dict(load_average=0.1, cores=2), gpu=None)) == []
    gpu = dict(utilization_percent=80.0)
    (busy,) = load_labels(dict(host=host, gpu=gpu))
    assert 'the GPU was busy' in busy
    assert load_labels(dict(host=host, gpu=dict(utilization_percent=0.0))) == []
    cuda = torch.device('cuda')
    for reasons, label in ((0, []), (1, []), (5, ['the GPU was throttled: reasons 0x4'])):
        monkeypatch.setattr(environment, '_gpu', lambda device, reasons=reasons: dict(throttle_reasons=reasons))
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
    assert found['sm_clock_mhz'] == 1980 and 'max_sm_clock_mhz' not in found
    assert found['power_w'] == 120.5 and found['throttle_reasons'] == 4 and found['driver'] == '570.86'


def test_a_config_of_neither_library(tmp_path):
    with pytest.raises(UserError, match="default_scope is 'mmseg', but a report is for configs of mmdet or mmpretrain"):
        from_config(Config(dict(default_scope='mmseg', model=dict())), 'x.py', None)


def test_subjects_say_what_they_are(classifier):
    identity = classifier.identity()
    assert identity['name'] == 'classifier' and len(identity['config_sha256']) == 64
    assert identity['checkpoint'] is None and isinstance(classifier, Subject)
