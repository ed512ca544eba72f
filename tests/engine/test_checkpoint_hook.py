"""No kill, at any moment, costs the last whole checkpoint."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner, find_latest_checkpoint

from fasternet_mm import files
from fasternet_mm.engine import AtomicCheckpointHook
from fasternet_mm.files import AtomicLocalBackend


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *inputs, mode='loss'):
        loss = (self.weight - torch.stack(inputs).mean()).square().sum()
        return dict(loss=loss) if mode == 'loss' else [loss]


class Killed(BaseException):
    pass


def run(work_dir, epochs, hooks=(), resume=False, **checkpoint):
    runner = Runner(
        Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[torch.ones(1) * i for i in range(4)], batch_size=2, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, **checkpoint)),
        custom_hooks=list(hooks),
        experiment_name=f'{work_dir}-{epochs}-{resume}',
        resume=resume,
        cfg=Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))),
    )
    runner.train()
    return runner


def test_keeps_what_it_is_told_to_keep(tmp_path):
    run(tmp_path, 5, max_keep_ckpts=2)
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['epoch_4.pth', 'epoch_5.pth']
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_5.pth')


@pytest.mark.parametrize('written', [0.0, 0.5, 1.0])
def test_a_kill_during_the_save_leaves_the_previous_checkpoint(tmp_path, written):
    replace, saves = files.os.replace, []

    def killed_on_the_third(source, target):
        if str(target).endswith('.pth'):
            saves.append(target)
            if len(saves) == 3:
                content = source.read_bytes()
                source.write_bytes(content[: int(len(content) * written)])
                raise Killed
        replace(source, target)

    with patch.object(files.os, 'replace', killed_on_the_third), pytest.raises(Killed):
        run(tmp_path, 5, max_keep_ckpts=1)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_2.pth']
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    resumed = run(tmp_path, 5, max_keep_ckpts=1, resume=True)
    assert resumed.epoch == 5
    assert sorted(p.name for p in tmp_path.glob('*.pth*')) == ['epoch_5.pth']  # and no remains


def test_a_kill_before_the_note_of_the_last_one_leaves_the_note_of_the_previous(tmp_path):
    replace = files.os.replace

    def killed(source, target):
        if str(target).endswith('last_checkpoint') and (tmp_path / 'epoch_3.pth').exists():
            raise Killed
        replace(source, target)

    with patch.object(files.os, 'replace', killed), pytest.raises(Killed):
        run(tmp_path, 5, max_keep_ckpts=1)
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']


def test_a_kill_before_the_old_one_is_deleted_leaves_both(tmp_path):
    def killed(self, path):
        raise Killed

    with patch.object(AtomicLocalBackend, 'remove', killed), pytest.raises(Killed):
        run(tmp_path, 5, max_keep_ckpts=1)
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    run(tmp_path, 5, max_keep_ckpts=1, resume=True)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_5.pth']


def test_checkpoints_that_are_folders_go_too(tmp_path, monkeypatch):
    def save_folder(self, out_dir, filename, *args, **kwargs):  # as DeepSpeed does
        Path(out_dir, filename).mkdir()
        Path(out_dir, filename, 'weights').touch()

    monkeypatch.setattr(Runner, 'save_checkpoint', save_folder)
    run(tmp_path, 4, max_keep_ckpts=2)
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['epoch_3.pth', 'epoch_4.pth']


def test_a_checkpoint_that_is_written_again_under_its_name_stays(tmp_path):
    run(tmp_path, 3, max_keep_ckpts=1, filename_tmpl='latest.pth')
    assert torch.load(tmp_path / 'latest.pth')['meta']['epoch'] == 3


def test_the_previous_best_goes_after_the_new_one_is_there(tmp_path):
    class Validate(Hook):
        def after_train_epoch(self, runner):
            order.append(('validated', runner.epoch))
            next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook)).after_val_epoch(
                runner, dict(ap=runner.epoch)
            )

    order = []
    put, remove = AtomicLocalBackend.put, AtomicLocalBackend.remove

    def noted(name, function):
        def call(self, *args):
            order.append((name, str(args[-1]).rsplit('/')[-1]))
            return function(self, *args)

        return call

    with (
        patch.object(AtomicLocalBackend, 'put', noted('put', put)),
        patch.object(AtomicLocalBackend, 'remove', noted('remove', remove)),
    ):
        run(tmp_path, 3, hooks=[Validate()], save_best='ap', rule='greater')
    best = [(what, name) for what, name in order if str(name).startswith('best')]
    assert best == [
        ('put', 'best_ap_epoch_0.pth'),
        ('put', 'best_ap_epoch_1.pth'),
        ('remove', 'best_ap_epoch_0.pth'),
        ('put', 'best_ap_epoch_2.pth'),
        ('remove', 'best_ap_epoch_1.pth'),
    ]


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / 'folder' / 'file'
    AtomicLocalBackend().put(b'whole', target)
    assert target.read_bytes() == b'whole' and [p.name for p in target.parent.iterdir()] == ['file']
