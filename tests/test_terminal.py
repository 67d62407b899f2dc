"Commands in a pseudo-terminal, where progress bars are drawn and Ctrl-C is typed."
import os, re, shutil, signal, sys, time

import pandas as pd, pytest

pytest.importorskip('pty')  # Windows has none
import pexpect, pexpect.fdpexpect, pty

from garbage_fastai.cli import main

TOY = ['--arch','test_resnet', '--weights','none', '--size','32', '--bs','8', '--augment','light', '--precision','fp32']

class Terminal:
    "A command in a terminal of its own; the imports are done, so it starts at once"
    def __init__(self, *args):
        self.pid,self.fd = pty.fork()
        if self.pid==0: self._run([str(a) for a in args])
        self.screen = pexpect.fdpexpect.fdspawn(self.fd, timeout=120, encoding='utf-8')

    def _run(self, args):
        code = 99
        try:
            sys.stdin,sys.stdout,sys.stderr = (open(fd, m, buffering=1, closefd=False) for fd,m in enumerate('rww'))
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
            main(args)
            code = 0
        except SystemExit as e: code = e.code or 0
        except BaseException as e: print(repr(e))
        finally: os._exit(code)

    def interrupt(self):
        "Type Ctrl-C"
        os.write(self.fd, b'\x03')

    def end(self):
        "Wait for the end; the exit code and what was on the screen, without the bars"
        try: self.screen.expect(pexpect.EOF)
        except OSError: pass
        _,status = os.waitpid(self.pid, 0)
        with pytest.raises(ProcessLookupError): os.killpg(self.pid, 0)  # nothing that it started stays
        os.close(self.fd)
        self.text = re.sub(r'[^\n]*\r(?!\n)', '', self.screen.before).replace('\r\n', '\n')
        return os.waitstatus_to_exitcode(status)

def done(*args):
    "What a command that ends well showed"
    t = Terminal(*args)
    code = t.end()
    assert code==0 and 'Traceback' not in t.text, t.text
    return t.text

def wait_for(what, seconds=60):
    end = time.time()+seconds
    while not what() and time.time()<end: time.sleep(.01)
    assert what()

def epochs_in(run): return len((run/'history.csv').read_text().splitlines())-1 if (run/'history.csv').exists() else 0

@pytest.fixture(scope='module')
def photos(sample_dir, tmp_path_factory):
    "Three classes: as few photos as a training needs"
    folder = tmp_path_factory.mktemp('few')/'photos'
    for c in ('glass','metal','paper'): shutil.copytree(sample_dir/c, folder/c)
    return folder

@pytest.fixture(scope='module')
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp('terminal')/'run'
    shown = done('train', photos, '--out', out, *TOY, '--epochs', 1)
    assert 'train_loss' in shown and 'report: ' in shown
    return out

EPOCHS = 15  # so many that Ctrl-C comes before the last

@pytest.mark.parametrize('workers', [0, 2])
def test_interrupted_training_goes_on(workers, photos, tmp_path):
    "As a person does it: Ctrl-C after an epoch, then --resume as advised"
    out = tmp_path/'run'
    args = 'train', photos, '--out', out, *TOY, '--epochs', EPOCHS, '--workers', workers
    t = Terminal(*args)
    wait_for(lambda: epochs_in(out)>=1)
    t.interrupt()
    assert t.end()==130
    assert 'go on with --resume' in t.text and t.text.count('garbage-fastai: stopped')==1 and 'Traceback' not in t.text, t.text
    shown = done(*args, '--resume')
    assert 'going on after' in shown and 'report: ' in shown
    assert epochs_in(out)==EPOCHS and list(pd.read_csv(out/'history.csv').epoch)==list(range(EPOCHS))

def test_all_epochs_were_made(photos, tmp_path, monkeypatch):
    "Killed between the last epoch and the evaluation: nothing is left for the bar to show"
    out = tmp_path/'run'
    args = 'train', photos, '--out', out, *TOY, '--epochs', 2
    with monkeypatch.context() as m:
        m.setattr('garbage_fastai.train.finish_run', lambda *a, **k: (_ for _ in ()).throw(RuntimeError('power cut')))
        assert Terminal(*args).end()==1
    assert 'going on after 2 of 2 epochs' in done(*args, '--resume')

def test_the_installed_command(photos, tmp_path):
    "Without a fork of this process: a new one, in a terminal"
    out = tmp_path/'run'
    args = [str(o) for o in ['-m','garbage_fastai','train', photos, '--out', out, *TOY, '--epochs', EPOCHS]]
    heed = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # as above, where it is ignored
    p = pexpect.spawn(sys.executable, args, timeout=120, encoding='utf-8', dimensions=(24,60), **heed)
    wait_for(lambda: epochs_in(out)>=1)
    p.sendintr()
    p.expect(pexpect.EOF)
    p.close()
    assert p.exitstatus==130 and 'garbage-fastai: stopped' in p.before
    again = pexpect.spawn(sys.executable, [*args, '--resume'], timeout=120, encoding='utf-8', dimensions=(24,60))
    again.expect('report: ')
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus==0

def test_commands_that_show_progress(run, photos, tmp_path):
    assert '12  glass' in done('scan', photos)
    assert 'predictions: ' in done('predict', run, photos, '--out', tmp_path/'p.csv')
    assert 'mean under stress' in done('evaluate', run, photos, '--stress')
    assert 'labels are probably wrong' in done('review', photos, '--out', tmp_path/'review', '--folds', 2)

def test_repetitions_and_experiments_show_progress(photos, tmp_path):
    assert 'pooled' in done('train', photos, '--out', tmp_path/'seeds', *TOY, '--epochs', 1, '--seeds', 2)
    changes = [o for s in ('size=32','epochs=1','augment=none') for o in ('--set', s)]
    assert 'a row a run' in done('experiment', 'resnet9', '--data', photos, '--seeds', 1, '--out', tmp_path/'ex', *changes, '--set', 'split=50/25/25')

def swallow(*args, **kwargs):
    "As a library with a bare `except:` does with Ctrl-C"
    try: time.sleep(60)
    except: pass
    time.sleep(60)

@pytest.mark.parametrize('part', ['garbage_fastai.train.scan_images', 'garbage_fastai.splits.group_photos', 'garbage_fastai.train.build_learner'])
def test_ctrl_c_that_a_library_swallows(part, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(part, swallow)
    t = Terminal('train', photos, '--out', tmp_path/'run', *TOY)
    time.sleep(3)
    t.interrupt()
    assert t.end()==130 and t.text.count('garbage-fastai: stopped')==1 and 'Traceback' not in t.text, t.text

@pytest.mark.parametrize('when', [.05, .3])
def test_ctrl_c_while_photos_are_looked_through(when, photos, tmp_path):
    "Workers of the scan end as well, and no run is left"
    t = Terminal('train', photos, '--out', tmp_path/'run', *TOY)
    time.sleep(when)
    t.interrupt()
    assert t.end()==130 and t.text.count('garbage-fastai: stopped')==1 and 'Traceback' not in t.text, t.text
    assert not (tmp_path/'run').exists()
