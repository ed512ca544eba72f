"""What is measured in each mode, and that it is the same network."""

from dataclasses import replace

import pytest
import torch

from fasternet_mm.report import Options, Reporter, Subject, from_timm, new_report
from fasternet_mm.report.measure.modes import fused
from tests.helpers.networks import settled

from .measuring import CPU, run

SCOPES = ['backbone', 'classifier']


def test_a_classifier_in_every_mode_and_dtype(classifier):
    report = run([classifier], modes=['eager', 'fused'], dtypes=['fp32', 'bf16'], batch_sizes=[1, 2], scopes=SCOPES)
    (model,) = report.models
    rows = model.measurements
    assert len(rows) == 2 * 2 * 2 * 2  # scope, mode, dtype, batch size
    assert all(row.error is None and row.latency_ms.n >= 2 for row in rows)
    for row in rows:
        assert row.throughput == pytest.approx(1e3 * row.batch_size / row.latency_ms.p50)
        reference = (row.mode, row.dtype) == ('eager', 'fp32')
        assert (row.difference is None) == reference
        if not reference:
            assert row.difference < (1e-5 if row.dtype == 'fp32' else 5e-2)
        assert ('in bf16' in row.labels) == (row.dtype == 'bf16')
    assert report.complete and 'random weights' in model.labels
    pairs = {(one.a, one.b) for one in report.comparisons}
    assert ('classifier [fused bf16]', 'classifier [eager fp32]') in pairs
    assert ('classifier [fused]', 'classifier [eager]') in pairs


def test_the_fast_forms_of_a_trained_detectors_backbone(detector):
    """Its output norms stay: alone, a backbone has no neck that could take them."""
    settled(detector.model)
    (model,) = run([detector], modes=['eager', 'deploy', 'onnxruntime'], scopes=['backbone']).models
    assert [row.error for row in model.measurements] == [None] * 3


@pytest.mark.parametrize('mode', ['deploy', 'onnxruntime', 'openvino'])
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_the_fast_forms_of_a_classifier(classifier, mode, dtype):
    report = run([classifier], modes=[mode], dtypes=[dtype], batch_sizes=[1], scopes=SCOPES)
    rows = report.models[0].measurements
    assert {row.scope for row in rows} == {'classifier', 'backbone'}
    for row in rows:
        if (mode, dtype) == ('onnxruntime', 'bf16'):
            assert row.error == 'mode onnxruntime is for --device cpu in fp32' and row.latency_ms is None
        else:
            assert row.error is None and row.latency_ms.n >= 2
            assert row.difference < (1e-4 if dtype == 'fp32' else 5e-2)


def test_modes_that_are_not_for_this_model_or_machine(classifier, detector):
    timm = from_timm('timm://fasternet_t0')
    report = run([classifier, timm], modes=['graphs', 'deploy'], batch_sizes=[1], scopes=['classifier'])
    ours, theirs = [[row.error for row in model.measurements] for model in report.models]
    assert ours == ['mode graphs is for --device cuda', None]
    assert theirs[1] == 'mode deploy: neither a FasterNet nor a backbone with switch_to_deploy()'
    (row,) = run([detector], modes=['openvino'], batch_sizes=[2], scopes=['detector']).models[0].measurements
    assert row.error == 'mode openvino: the file of a whole detector takes one image at a time'


def test_a_detector_of_a_suite_becomes_a_file(detector):
    """It has no config of its own: how a picture is read is the suite's."""
    subject = replace(detector, cfg=None, pipeline=detector.cfg)
    (row,) = run([subject], modes=['openvino'], scopes=['detector']).models[0].measurements
    assert row.error is None and row.file_size > 0 and row.agreement.off < 0.01


def test_a_training_step_beside_timms(classifier):
    timm = from_timm('timm://fasternet_t0')
    report = run([classifier, timm], batch_sizes=[2], scopes=['training'])
    rows = [row for model in report.models for row in model.measurements]
    assert [row.scope for row in rows] == ['training', 'training'] and not [row for row in rows if row.error]
    assert all(row.latency_ms.n >= 2 and row.peak_memory_of == 'tensors' for row in rows)
    # weights, gradients and AdamW's two states, and not much more of such small images
    states = 4 * 4 * sum(parameter.numel() for parameter in timm.model.parameters())
    assert states < rows[1].peak_memory < 2 * states
    assert len(report.comparisons) == 1
    (row,) = run([classifier], modes=['deploy'], batch_sizes=[2], scopes=['training']).models[0].measurements
    assert row.error == 'mode deploy cannot be trained; --scope training takes --mode eager'


def test_photographs_where_there_are_some_and_noise_where_not(detector, tmp_path):
    labels = run([detector], scopes=['detector']).models[0].measurements[0].labels
    made = 'random weights, made to give 50 detections a picture: 50 came out'
    assert labels == ['on 4 preprocessed images of the test set, in turn, of 192x192', made]
    detector = replace(detector, batches={}, made_to_find=None)  # what was prepared once is kept
    detector.cfg.test_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    (row,) = run([detector], scopes=['detector']).models[0].measurements
    assert row.labels == ['on noise of 64 x 64 instead of photographs', made] and row.latency_ms.n >= 2


@pytest.mark.parametrize('lost', ['head.fc', 'backbone.patch_embed.proj', 'backbone.stages.6.blocks.0.mlp.3'])
def test_a_mode_that_is_wrong_is_not_timed(classifier, monkeypatch, lost):
    """Also where random weights leave little of the image beside the biases."""
    torch.nn.init.constant_(classifier.model.head.fc.bias, 100.0)

    def broken(model):
        torch.nn.init.zeros_(model.get_submodule(lost).weight)
        return model

    monkeypatch.setattr('fasternet_mm.report.measure.modes.fused', broken)
    rows = run([classifier], modes=['eager', 'fused'], batch_sizes=[1], scopes=['classifier']).models[0].measurements
    assert rows[0].latency_ms is not None and rows[1].latency_ms is None
    assert rows[1].error.startswith('fused fp32 is wrong: its outputs differ from eager fp32')


@pytest.mark.parametrize('lost', ['rpn_head.rpn_reg', 'roi_head.bbox_head.fc_cls', 'roi_head.mask_head.conv_logits'])
def test_a_detector_whose_heads_are_wrong_is_not_timed(detector, monkeypatch, lost):
    def broken(model):
        torch.nn.init.zeros_(model.get_submodule(lost).weight)
        return model

    monkeypatch.setattr('fasternet_mm.report.measure.modes.fused', broken)
    (model,) = run([detector], modes=['fused'], scopes=['detector']).models
    assert model.measurements[0].error.startswith('fused fp32 is wrong')


def test_fusing_nothing_is_said():
    plain = Subject('plain', 'classifier', torch.nn.Conv2d(3, 8, 3).eval())
    (row,) = run([plain], modes=['fused'], batch_sizes=[1]).models[0].measurements
    assert 'nothing was fused: no BN follows a convolution' in row.labels


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
    evaluation = reporter.report.models[0].evaluation
    assert evaluation.error is None and 'accuracy of fused bf16' in evaluation.labels
    assert set(seen) == {(4, True, 'cpu')}  # the output norms follow no convolution


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


def test_compiling_is_at_its_best_and_leaves_the_compilers_settings_as_they_were(classifier, monkeypatch):
    dynamo, inductor, seen = torch._dynamo.config, torch._inductor.config, []
    before = dynamo.cache_size_limit, inductor.freezing
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, mode: seen.append((mode, inductor.freezing)))

    forward = type(classifier.model.backbone).forward

    def watched(self, images):
        if seen:
            assert (dynamo.cache_size_limit, inductor.freezing) == (64, True)  # where it would be traced
        return forward(self, images)

    monkeypatch.setattr(type(classifier.model.backbone), 'forward', watched)
    (row,) = run([classifier], modes=['compile'], batch_sizes=[1], scopes=['classifier']).models[0].measurements
    assert seen == [('default', True)] and row.error is None
    assert (dynamo.cache_size_limit, inductor.freezing) == before == (8, False)
