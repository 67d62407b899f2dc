"How a run is trained: photos from memory or disk, schedules, early stopping, logs."
import json

import pandas as pd, pytest

from garbage_fastai.callbacks import BestModel
from garbage_fastai.run import train_run
from test_cli import call, fails
from test_resume import SMALL, same

RECIPE = dict(arch='test_resnet', weights='none', freeze='none', size=32, epochs=3, bs=8, augment='light', precision='fp32', progress=False)

def losses(run): return pd.read_csv(run/'history.csv').drop(columns='time')

@pytest.fixture(scope='module')
def in_ram(sample_dir, tmp_path_factory): return train_run(sample_dir, tmp_path_factory.mktemp('runs')/'ram', cache='ram', **RECIPE)

@pytest.mark.parametrize('workers', [0,2])
def test_memory_and_disk_give_the_same_losses(workers, in_ram, sample_dir, tmp_path):
    run = train_run(sample_dir, tmp_path/'disk', cache='disk', workers=workers, **RECIPE)
    pd.testing.assert_frame_equal(losses(run), losses(in_ram), check_exact=True)
    assert (run/'predictions.csv').read_bytes() == (in_ram/'predictions.csv').read_bytes()

def test_too_many_photos_for_memory(sample_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('garbage_fastai.data.free_memory', lambda: 1000)
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *SMALL, '--cache','ram', says=["cache='ram'", "'disk'"])
    assert not (tmp_path/'run').exists()
    assert call('train', sample_dir, '--out', tmp_path/'run', *SMALL, '--epochs','1', '--workers','0') == 0
    assert 'reading from disk instead' in capsys.readouterr().out

@pytest.mark.parametrize('schedule', ['cyclic','smooth'])
def test_a_schedule_goes_on_where_it_was(schedule, in_ram, sample_dir, tmp_path, monkeypatch):
    "Killed in the second epoch, a run of three epochs ends with the same weights and losses"
    train_run(sample_dir, tmp_path/'whole', schedule=schedule, **RECIPE)
    trained = []
    def killed(self):
        trained.append(1)
        if len(trained)==2: raise RuntimeError('power cut')
        self.trained = True
    with monkeypatch.context() as m:
        m.setattr(BestModel, 'after_train', killed)
        with pytest.raises(RuntimeError, match='power cut'): train_run(sample_dir, tmp_path/'run', schedule=schedule, **RECIPE)
    train_run(sample_dir, tmp_path/'run', resume=True, progress=False)
    same(tmp_path/'run', tmp_path/'whole')
    assert not losses(tmp_path/'run').equals(losses(in_ram))

@pytest.mark.parametrize('args,says', [(['--schedule','linear'], ['linear', 'one-cycle, cyclic, smooth']), (['--cache','tape'], ['tape', 'auto, ram, disk'])])
def test_names_that_mean_nothing(args, says, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *SMALL, *args, says=says)
    assert not (tmp_path/'run').exists()
