"The command line as a user meets it: what it leaves, what it says, how it ends."
import importlib, json, os, random, shutil, signal, subprocess, sys, time, types
from functools import partial

import pandas as pd, pytest, torch
from PIL import Image
from safetensors.torch import load_file
from fastai.callback.core import Callback

from conftest import (
    ROOT, EPOCHS, SMALL, TINY, _job, begin, call, end, epochs_in, fails, fingerprint, kill, same, wait_for)
from garbage_fastai.train import train_run
from garbage_fastai.checkpoint import read_checkpoint
from garbage_fastai.callbacks import BestModel, EarlyStop

def test_train_leaves_what_it_promises(first_run):
    assert sorted(p.name for p in first_run.iterdir()) == ['config.json', 'confusion_matrix.png', 'history.csv', 'history.png', 'maps', 'metrics.json', 'model', 'predictions.csv', 'report.html', 'splits.csv']
    metrics = json.loads((first_run/'metrics.json').read_text())
    preds = pd.read_csv(first_run/'predictions.csv').query("split=='test'")
    assert metrics['n'] == len(preds) and metrics['accuracy'] == pytest.approx((preds.predicted==preds.label).mean())
    lo,hi = metrics['accuracy_ci95']
    assert lo <= metrics['accuracy'] <= hi and set(metrics['per_class']) == set(preds.label)
    assert len(pd.read_csv(first_run/'history.csv')) == 1
    assert json.loads((first_run/'config.json').read_text())['arch'] == 'resnet10t'
    assert {p.name for p in (first_run/'model').iterdir()} == {'README.md', 'model.json', 'model.safetensors'}

def test_a_run_is_not_overwritten_unasked(first_run, sample_dir, tmp_path, capsys):
    before = fingerprint(first_run)
    fails(capsys, 2, 'train', sample_dir, '--out', first_run, *TINY, says='--overwrite')
    fails(capsys, 2, 'train', sample_dir, '--out', sample_dir, *TINY, says='other files')
    fails(capsys, 2, 'train', tmp_path/'nowhere', '--out', first_run, '--overwrite', *TINY, says='nowhere')
    assert fingerprint(first_run) == before
    again = tmp_path/'again'
    shutil.copytree(first_run, again)
    (again/'notes.txt').write_text('mine')
    assert call('train', sample_dir, '--out', again, '--overwrite', *TINY, '--seed', 7) == 0
    assert json.loads((again/'config.json').read_text())['seed'] == 7
    assert (again/'notes.txt').read_text() == 'mine'

def test_same_seed_same_model(first_run, sample_dir, tmp_path):
    assert call('train', sample_dir, '--out', tmp_path/'again', *TINY) == 0
    a,b = ((d/'predictions.csv').read_text() for d in (first_run, tmp_path/'again'))
    assert a == b

def test_leaks_are_named_and_what_they_do(sample_dir, tmp_path, capsys):
    "A photo of test that stands in train once more is said on the command line, in the figures and in the report"
    photos = tmp_path/'photos'
    shutil.copytree(sample_dir, photos)
    rows = [(p, ('train','train','valid','test')[i%4]) for i,p in enumerate(sorted(photos.rglob('*.jpg')))]
    twin = next(p for p,s in rows if s=='test' and p.parent.name=='glass')
    rows.append((shutil.copy(twin, twin.with_name('zz-again.jpg')), 'train'))
    pd.DataFrame(rows, columns=['path','split']).to_csv(tmp_path/'split.csv', index=False)
    assert call('train', photos, '--out', tmp_path/'run', '--split', tmp_path/'split.csv', *TINY) == 0
    out = capsys.readouterr().out
    assert 'have a duplicate in train' in out and twin.name in out
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    preds = pd.read_csv(tmp_path/'run'/'predictions.csv').query("split=='test'")
    rest = preds[preds.path.map(os.path.basename) != twin.name]
    assert metrics['leaked'] >= 1 and 0 <= metrics['accuracy_without_leaked'] <= 1
    if metrics['leaked'] == 1: assert metrics['accuracy_without_leaked'] == pytest.approx((rest.predicted==rest.label).mean())
    report = (tmp_path/'run'/'report.html').read_text()
    assert 'a duplicate in train' in report and 'When to ask a person' in report

@pytest.mark.parametrize('extra', [[], ['--weights','auto','--freeze','5','--arch','tf_efficientnet_lite0']], ids=['from scratch', 'head first'])
def test_a_loss_that_is_no_number_ends_the_training(extra, sample_dir, tmp_path, capsys):
    args = 'train', sample_dir, '--out', tmp_path/'run', *TINY, *extra, '--head-epochs', 1, '--precision', 'fp32', '--epochs', 2, '--lr', '1e30'
    for _ in range(2):  # the second time with --resume, which has nothing to go on from
        fails(capsys, 1, *args, says=['loss became', 'in epoch 1 of 2 at learning rate', 'smaller --lr'])
        assert '--resume' not in capsys.readouterr().out and not (tmp_path/'run').exists()
        args = *args, '--resume'

def test_a_loss_that_is_no_number_later_on(sample_dir, tmp_path, capsys, monkeypatch):
    "The best weights so far stay, the checkpoint doesn't: from it the same would happen again"
    from garbage_fastai.callbacks import StopOnNaN
    real = StopOnNaN.after_batch
    def spoil(self):
        if self.epoch==1: self.learn.loss = self.loss*float('nan')
        real(self)
    monkeypatch.setattr(StopOnNaN, 'after_batch', spoil)
    first_run = tmp_path/'run'
    fails(capsys, 1, 'train', sample_dir, '--out', first_run, *TINY, '--epochs', 3, says=['loss became NaN in epoch 2 of 3'])
    assert sorted(p.name for p in (first_run/'models').iterdir()) == ['best.pth'] and (first_run/'history.csv').exists()
    monkeypatch.undo()
    assert call('train', sample_dir, '--out', first_run, *TINY, '--epochs', 3, '--resume') == 0
    assert 'going on after' not in capsys.readouterr().out and len(pd.read_csv(first_run/'history.csv')) == 3

def test_a_poisoned_checkpoint_is_refused(tmp_path):
    from garbage_fastai.checkpoint import Checkpoint
    with pytest.raises(ValueError, match='NaN or infinite: remove it'): Checkpoint(tmp_path/'c.pth').restore(dict(model={'w': torch.tensor([1., float('nan')])}))

@pytest.mark.parametrize('what', ['run', 'model', 'model/model.safetensors'])
def test_an_own_model_is_a_start(what, first_run, sample_dir, tmp_path, capsys):
    "With the same classes everything is taken: with no epochs it predicts what it predicted"
    weights = first_run if what=='run' else first_run/what
    args = '--size', 32, '--epochs', 0, '--head-epochs', 0, '--precision', 'fp32', '--bs', 16
    assert call('train', sample_dir, '--out', tmp_path/'again', '--weights', weights, *args) == 0  # the network is that of the model
    assert 'body and head are taken' in capsys.readouterr().out
    old,new = (load_file(d/'model'/'model.safetensors') for d in (first_run, tmp_path/'again'))
    assert old.keys() == new.keys() and all(torch.equal(old[k], new[k]) for k in old)
    olds,news = (json.loads((d/'model'/'model.json').read_text()) for d in (first_run, tmp_path/'again'))
    assert [olds[k] for k in ('arch','vocab','mean','std')] == [news[k] for k in ('arch','vocab','mean','std')]
    assert pd.read_csv(first_run/'predictions.csv').predicted.tolist() == pd.read_csv(tmp_path/'again'/'predictions.csv').predicted.tolist()

def test_an_own_model_with_other_classes(first_run, sample_dir, tmp_path, capsys):
    photos = tmp_path/'photos'
    for c in ('glass','metal','paper'): shutil.copytree(sample_dir/c, photos/f'my {c}')
    args = '--size', 32, '--epochs', 0, '--head-epochs', 2, '--precision', 'fp32', '--bs', 16, '--weights', first_run
    assert call('train', photos, '--out', tmp_path/'other', *args) == 0
    assert 'body is taken, the head begins anew' in capsys.readouterr().out
    old,new = (load_file(d/'model'/'model.safetensors') for d in (first_run, tmp_path/'other'))
    assert all(torch.equal(old[k], new[k]) for k in old if k.startswith('0.')) and new['1.8.weight'].shape[0] == 3
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'x', *args, '--arch', 'resnet18', says=['is a model of resnet10t', 'give --arch resnet10t'])
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'x', *args, '--weights', sample_dir, says=['holds no model'])
    shutil.copy(first_run/'model'/'model.safetensors', tmp_path/'alone.safetensors')
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'x', *args, '--arch', 'resnet10t', '--weights', tmp_path/'alone.safetensors', says=['alone.safetensors', 'model.json'])

@pytest.mark.parametrize('workers,kills', [(0,3), (2,1)])
def test_killed_at_random_moments(workers, kills, whole, sample_dir, tmp_path):
    "SIGKILL, again and again: each time no more than the epoch in progress is lost"
    run,(ref,seconds) = tmp_path/'run',whole(workers)
    args = 'train', sample_dir, '--out', run, *SMALL, '--workers', workers, '--resume'
    before = 0
    for i in range(kills):
        p = begin(tmp_path/'log', *args)
        if i==0: wait_for(lambda: epochs_in(run)>=1, p)
        time.sleep(random.uniform(0, .5*seconds))
        kill(p)
        file = run/'models'/'checkpoint.pth'
        if not file.exists(): continue  # killed before the first epoch, or in the moment after all was done
        done = read_checkpoint(file)['epoch']
        assert done >= max(before, epochs_in(run)-1)
        before = done
    end(begin(tmp_path/'log', *args))
    same(run, ref)

def test_full_disk_during_a_checkpoint(sample_dir, whole, tmp_path):
    "The checkpoint before stays, one line says what is wrong, and with space again the run ends as it would have"
    run,ref = tmp_path/'run',whole(0)[0]
    args = 'train', sample_dir, '--out', run, *SMALL, '--workers', 0, '--resume'
    weights = (ref/'model'/'model.safetensors').stat().st_size
    end(begin(tmp_path/'log', *args, limit=int(2.5*weights)), 1)  # room for the weights, but not for the optimizer and the averages as well
    lines = (tmp_path/'log').read_text().splitlines()
    said = [l for l in lines if l.startswith('garbage-fastai: ')]
    assert len(said) == 1 and 'checkpoint.pth' in said[0], lines
    assert any('go on with --resume' in l for l in lines), lines
    assert read_checkpoint(run/'models'/'checkpoint.pth')['epoch'] == 0
    assert sorted(p.name for p in (run/'models').iterdir()) == ['best.pth', 'checkpoint.pth']
    end(begin(tmp_path/'log', *args))
    same(run, ref)

def test_interrupted_and_limited(sample_dir, whole, tmp_path):
    "Ctrl-C leaves a run to go on with, and so does a limit of time, with its own exit code"
    run,ref = tmp_path/'run',whole(0)[0]
    args = 'train', sample_dir, '--out', run, *SMALL, '--workers', 0, '--resume'
    p = begin(tmp_path/'log', *args)
    wait_for(lambda: epochs_in(run)>=1, p)
    os.kill(p.pid, signal.SIGINT)
    end(p, 130)
    log = (tmp_path/'log').read_text()
    assert 'go on with --resume' in log and 'Traceback' not in log
    end(begin(tmp_path/'log', *args, '--time-limit', '1s'), 3)
    log = (tmp_path/'log').read_text()
    assert 'time limit' in log and 'going on after' in log and not (run/'report.html').exists()
    end(begin(tmp_path/'log', 'train', sample_dir, '--out', run, '--resume', '--time-limit', '1h30m'))  # the rest is as it was
    same(run, ref)

def test_what_goes_on_and_what_does_not(sample_dir, whole, tmp_path, capsys, monkeypatch):
    run = tmp_path/'run'
    data = tmp_path/'photos'
    shutil.copytree(sample_dir, data)
    shutil.copytree(whole(0)[0], run)
    config = json.loads((run/'config.json').read_text())
    (run/'config.json').write_text(json.dumps({**config, 'data': str(data)}))
    table = (run/'splits.csv').read_text()
    (run/'splits.csv').write_text(table.replace(str(sample_dir), str(data)))
    before = fingerprint(run)
    assert call('train', data, '--out', run, '--resume') == 0
    assert capsys.readouterr().out.splitlines() == [f'{run} holds this run, and it is finished']
    fails(capsys, 2, 'train', data, '--out', run, '--resume', '--epochs', EPOCHS+1, says=[f'epochs {EPOCHS} and not {EPOCHS+1}', '--overwrite'])
    fails(capsys, 2, 'train', sample_dir, '--out', run, '--resume', says=['data', str(sample_dir)])
    fails(capsys, 2, 'train', data, '--out', run, '--resume', '--overwrite', says=['--resume', '--overwrite'])
    fails(capsys, 2, 'train', data, '--out', run, '--time-limit', '5 hours', says=['5 hours', '5h50m'])
    fails(capsys, 2, 'train', data, '--out', data, '--resume', says='other files')
    fails(capsys, 2, 'train', tmp_path/'nowhere', '--out', tmp_path/'new', '--resume', *SMALL, says='nowhere')
    assert fingerprint(run) == before and not (tmp_path/'new').exists()
    (run/'report.html').unlink()
    monkeypatch.setattr('garbage_fastai.train.scan_images', lambda *a, **k: pytest.fail('the photos were looked through again'))
    (data/'glass'/'glass_001.jpg').rename(data/'glass'/'other.jpg')
    fails(capsys, 2, 'train', data, '--out', run, '--resume', says=['changed', 'glass_001.jpg'])
    (data/'glass'/'other.jpg').rename(data/'glass'/'glass_001.jpg')
    assert call('train', data, '--out', run, '--resume') == 0  # killed before its first checkpoint
    assert (run/'report.html').exists()

def test_a_head_that_was_trained_is_kept(sample_dir, tmp_path, monkeypatch):
    "Stopped after the head, a run goes on with it, also where the weights from before are mixed in"
    recipe = dict(size=32, epochs=1, bs=16, head_epochs=2, wise=.5, precision='fp32', progress=False)
    train_run(sample_dir, tmp_path/'whole', **recipe)
    monkeypatch.setattr('garbage_fastai.callbacks.BestModel.after_train', lambda self: (_ for _ in ()).throw(RuntimeError('power cut')))
    with pytest.raises(RuntimeError, match='power cut'): train_run(sample_dir, tmp_path/'run', **recipe)
    monkeypatch.undo()
    monkeypatch.setattr('garbage_fastai.train.fit_head', lambda *a, **k: pytest.fail('the head was trained again'))
    train_run(sample_dir, tmp_path/'run', resume=True)  # with progress bars
    same(tmp_path/'run', tmp_path/'whole')

@pytest.mark.parametrize('script', ['train.sbatch', 'predict.sbatch'])
def test_batch_scripts_are_bash(script):
    assert subprocess.run(['bash', '-n', ROOT/'slurm'/script]).returncode == 0

@pytest.mark.parametrize('stub,restarts,code,requeued', [('exit 0',0,0,False), ('exit 3',0,0,True), ('exit 3',50,1,False), ('exit 2',0,2,False)],
                         ids=['done', 'time limit', 'too often', 'failed'])
def test_train_job_queues_itself_again(stub, restarts, code, requeued, tmp_path):
    p = _job(tmp_path, 'train.sbatch', 'my photos', 'runs/first', '--epochs', '60', stub=stub, SLURM_RESTART_COUNT=str(restarts))
    assert p.wait(60) == code
    calls = (tmp_path/'calls').read_text().splitlines()
    assert calls[0] == 'garbage-fastai train my photos --out runs/first --resume --time-limit 5h50m --epochs 60'
    assert (calls[1:] == ['scontrol requeue 7']) == requeued

def test_train_job_is_signalled(tmp_path):
    p = _job(tmp_path, 'train.sbatch', 'photos', 'runs/first', stub='exec sleep 60')
    while not (tmp_path/'calls').exists(): time.sleep(.05)
    p.send_signal(signal.SIGUSR1)
    assert p.wait(30) == 0 and 'scontrol requeue 7' in (tmp_path/'calls').read_text()

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
