"How a run is trained: photos from memory or disk, schedules, early stopping, logs."
import importlib, json, os, sys, types
from functools import partial

import pandas as pd, pytest
from fastai.callback.core import Callback
from PIL import Image

from garbage_fastai.callbacks import BestModel, EarlyStop
from garbage_fastai.train import train_run
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

def test_backgrounds_change_in_any_precision(sample_dir, tmp_path, precision, capsys):
    "Head, then body, with the packaged weights: as in `train --background .25`"
    args = ['--size','32', '--epochs','1', '--bs','16', '--background','.25']
    assert call('train', sample_dir, '--out', tmp_path/'run', *args) == 0
    config = json.loads((tmp_path/'run'/'config.json').read_text())
    assert (config['precision'], config['precision_used'], config['background']) == ('auto', precision, .25)
    preds = pd.read_csv(tmp_path/'run'/'predictions.csv')
    again = tmp_path/'again.csv'
    assert call('predict', tmp_path/'run'/'model', sample_dir, '--out', again) == 0
    both = preds.assign(name=preds['path'].map(os.path.basename)).merge(pd.read_csv(again).assign(name=lambda t: t['path'].map(os.path.basename)), on='name')
    assert len(both)==len(preds) and (both['confidence_x']-both['confidence_y']).abs().max() < 2e-4

def test_too_many_photos_for_memory(sample_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('garbage_fastai.data.free_memory', lambda: 1000)
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *SMALL, '--cache','ram', says=["--cache ram", "'disk'"])
    assert not (tmp_path/'run').exists()
    assert call('train', sample_dir, '--out', tmp_path/'run', *SMALL, '--epochs','1', '--workers','0') == 0
    assert 'reading from disk instead' in capsys.readouterr().out

def killed_in(epoch, monkeypatch, data, run, **recipe):
    "Train, and fail in this epoch when its training is over"
    trained = []
    def killed(self):
        trained.append(1)
        if len(trained)==epoch: raise RuntimeError('power cut')
        self.trained = True
    with monkeypatch.context() as m:
        m.setattr(BestModel, 'after_train', killed)
        with pytest.raises(RuntimeError, match='power cut'): train_run(data, run, **recipe)

@pytest.mark.parametrize('schedule', ['cyclic','smooth'])
def test_a_schedule_goes_on_where_it_was(schedule, in_ram, sample_dir, tmp_path, monkeypatch):
    "Killed in the second epoch, a run of three epochs ends with the same weights and losses"
    train_run(sample_dir, tmp_path/'whole', schedule=schedule, **RECIPE)
    killed_in(2, monkeypatch, sample_dir, tmp_path/'run', schedule=schedule, **RECIPE)
    train_run(sample_dir, tmp_path/'run', resume=True, progress=False)
    same(tmp_path/'run', tmp_path/'whole')
    assert not losses(tmp_path/'run').equals(losses(in_ram))

def test_early_stopping(sample_dir, tmp_path, monkeypatch, capsys):
    "Stopped early, killed before that or killed after it: the run ends in the same way"
    recipe = {**RECIPE, 'epochs':9, 'patience':2, 'lr':1e-3}
    monkeypatch.setattr('garbage_fastai.train.EarlyStop', partial(EarlyStop, min_delta=9.))  # nothing is better than the first epoch
    train_run(sample_dir, tmp_path/'whole', **recipe)
    assert len(losses(tmp_path/'whole')) == 3 and 'early stopping' in capsys.readouterr().out
    run = tmp_path/'run'
    killed_in(3, monkeypatch, sample_dir, run, **recipe)
    assert Image.open(run/'history.png').size == (900,320)  # drawn while it trained
    def cut(*args): raise RuntimeError('power cut')
    with monkeypatch.context() as m:
        m.setattr('garbage_fastai.train.finish_run', cut)
        with pytest.raises(RuntimeError, match='power cut'): train_run(sample_dir, run, resume=True, progress=False)
    assert len(losses(run)) == 3
    train_run(sample_dir, run, resume=True, time_limit=600, progress=False)
    same(run, tmp_path/'whole')

def test_logs(sample_dir, tmp_path, monkeypatch, capsys):
    "A log that can't be written is told before anything is done; fastai's callback gets the run's folder"
    find = importlib.util.find_spec
    with monkeypatch.context() as m:
        m.setattr(importlib.util, 'find_spec', lambda name, *a: None if name=='tensorboard' else find(name, *a))
        fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *SMALL, '--log','tensorboard', says='pip install tensorboard')
    assert not (tmp_path/'run').exists()
    class Board(Callback):
        def __init__(self, log_dir, **kwargs): self.log_dir = log_dir
        def after_epoch(self):
            self.log_dir.mkdir(exist_ok=True)
            with open(self.log_dir/'log', 'a') as f: print(self.recorder.log[2], file=f)
    for name,attrs in (('tensorboard', {}), ('fastai.callback.tensorboard', dict(TensorBoardCallback=Board))):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for k,v in attrs.items(): setattr(module, k, v)
        monkeypatch.setitem(sys.modules, name, module)
    run = train_run(sample_dir, tmp_path/'run', log='tensorboard', **RECIPE)
    assert [float(o) for o in (run/'tensorboard'/'log').read_text().split()] == pytest.approx(losses(run).valid_loss)
    assert json.loads((run/'config.json').read_text())['log'] == 'tensorboard'
    train_run(sample_dir, run, overwrite=True, **RECIPE)
    assert not (run/'tensorboard').exists()

@pytest.mark.parametrize('args,says', [(['--schedule','linear'], ['linear', 'one-cycle, cyclic or smooth']), (['--cache','tape'], ['tape', 'auto, ram or disk']),
                                       (['--log','paper'], ['paper', 'tensorboard or wandb'])])
def test_names_that_mean_nothing(args, says, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *SMALL, *args, says=says)
    assert not (tmp_path/'run').exists()
