"A training that is killed, stopped or out of space goes on, and ends as if nothing had happened."
import json, multiprocessing, os, random, resource, shutil, signal, subprocess, sys, time

import pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from conftest import ROOT
from garbage_fastai.checkpoint import read_checkpoint
from garbage_fastai.cli import main
from garbage_fastai.sort import take_shard
from garbage_fastai.train import train_run
from test_cli import call, fails, fingerprint

EPOCHS = 3
SMALL = ['--arch','test_resnet', '--weights','none', '--freeze','none', '--size','32', '--epochs',str(EPOCHS), '--bs','8', '--augment','light', '--precision','fp32']

def _child(args, log, limit):
    out = os.open(log, os.O_CREAT|os.O_WRONLY|os.O_TRUNC)
    for fd in (1,2): os.dup2(out, fd)
    sys.stdout,sys.stderr = (open(fd, 'w', buffering=1, closefd=False) for fd in (1,2))
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit,limit))
    main([str(a) for a in args])

def begin(log, *args, limit=None):
    "The command in a process of its own, whose imports are done; what it prints goes to `log`"
    p = multiprocessing.get_context('fork').Process(target=_child, args=(args, log, limit))
    p.start()
    return p

def end(p, code=0):
    p.join(300)
    assert p.exitcode == code, p.exitcode

def wait_for(what, p):
    while not what() and p.is_alive(): time.sleep(.01)

def kill(p):
    if p.is_alive(): os.kill(p.pid, signal.SIGKILL)
    p.join()

def epochs_in(run):
    "How many epochs are on record; the file may be looked at in the moment in which a run that goes on writes it again"
    return max(0, len((run/'history.csv').read_text().splitlines())-1) if (run/'history.csv').exists() else 0

def same(run, whole):
    "The two runs agree in every weight, prediction, figure and loss"
    a,b = (load_file(d/'model'/'model.safetensors') for d in (run, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for f in ('predictions.csv', 'metrics.json', 'splits.csv'): assert (run/f).read_bytes() == (whole/f).read_bytes(), f
    h,w = (pd.read_csv(d/'history.csv').drop(columns='time') for d in (run, whole))
    pd.testing.assert_frame_equal(h, w, check_exact=True)
    assert {p.name for p in run.iterdir()} == {p.name for p in whole.iterdir()}

@pytest.fixture(scope='module')
def whole(sample_dir, tmp_path_factory):
    "Finished runs that nothing interrupted, by number of workers, and the seconds they took"
    done = {}
    def get(workers):
        if workers not in done:
            out,start = tmp_path_factory.mktemp('whole')/'run',time.time()
            end(begin(out.parent/'log', 'train', sample_dir, '--out', out, *SMALL, '--workers', workers))
            done[workers] = out,time.time()-start
        return done[workers]
    return get

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

@given(files=st.lists(st.text(min_size=1), unique=True, max_size=60).map(sorted), n=st.integers(1, 70))
@settings(deadline=None)
def test_shards_are_everything_and_do_not_overlap(files, n):
    parts = [take_shard(files, i, n) for i in range(1, n+1)]
    assert sorted(f for p in parts for f in p) == files
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for i in (0, n+1):
        with pytest.raises(ValueError, match='shard'): take_shard(files, i, n)

def test_predict_in_shards(sample_dir, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = whole(0)[0]
    assert call('predict', model, sample_dir, '--out', 'all.csv') == 0
    for i in (1,2,3): assert call('predict', model, sample_dir, '--shard', f'{i}/3') == 0
    everything = pd.concat(pd.read_csv(f'predictions-{i}-of-3.csv') for i in (1,2,3)).sort_values('path').reset_index(drop=True)
    pd.testing.assert_frame_equal(everything, pd.read_csv('all.csv').sort_values('path').reset_index(drop=True), rtol=1e-4)
    assert call('predict', model, sample_dir/'glass', '--shard', '13/13', '--out', 'none.csv') == 0  # more parts than photos
    assert list(pd.read_csv('none.csv').columns) == list(everything.columns)
    for wrong in ('0/3', '4/3', '3'): fails(capsys, 2, 'predict', model, sample_dir, '--shard', wrong, says=[wrong, '1/8'])

def _job(tmp_path, script, *args, stub='', **env):
    "Run a batch script with stand-ins for the cluster and for the command; what they were called with"
    bin = tmp_path/'bin'
    bin.mkdir()
    for name,body in (('scontrol', ''), ('garbage-fastai', stub)):
        (bin/name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        (bin/name).chmod(0o755)
    env = {**os.environ, 'PATH': f"{bin}:{os.environ['PATH']}", 'SLURM_JOB_ID': '7', **env}
    return subprocess.Popen(['bash', ROOT/'slurm'/script, *args], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

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

def test_predict_job(tmp_path):
    assert _job(tmp_path, 'predict.sbatch', 'runs/first', 'photos', 'out', SLURM_ARRAY_TASK_ID='3', SLURM_ARRAY_TASK_COUNT='8').wait(60) == 0
    assert (tmp_path/'calls').read_text() == 'garbage-fastai predict runs/first photos --shard 3/8 --out out/part-3.csv\n'
