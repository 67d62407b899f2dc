"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import contextlib, io, random, shutil, time

import numpy as np, pandas as pd, pytest

from conftest import begin, call, end, fails, kill, wait_for
from garbage_fastai.experiments import run_experiment
from garbage_fastai.sample import draw_sample
from garbage_fastai.predictions import read_predictions

def test_two_classes_by_sift(tmp_path):
    "Probabilities of both, and the more likely one is what the machine says"
    folder = draw_sample(tmp_path/'photos', n=12, size=(96,96))
    for c in ('glass','metal','plastic','trash'): shutil.rmtree(folder/c)
    with contextlib.redirect_stdout(io.StringIO()): run_experiment('sift_svm', folder, seeds=1, out=tmp_path/'runs', progress=False, size=(96,96), words=20)
    preds = read_predictions(next((tmp_path/'runs').rglob('predictions.csv')))
    assert np.allclose(preds[['cardboard','paper']].sum(axis=1), 1, atol=1e-4) and preds['predicted'].nunique() == 2

SMALL = [o for s in ('arch=test_resnet', 'size=32', 'epochs=2', 'bs=8', 'split=50/25/25') for o in ('--set', s)]

MEASURED = ['recipe','changes','data','split','split_hash','seed','size','epochs','photos','n','accuracy_valid','accuracy','macro_f1']

def test_killed_experiment_gives_the_same_table(sample_dir, tmp_path):
    "SIGKILL during the second run, and again: the rows are those of a batch that nothing interrupted, each there once"
    args = lambda out: ('experiment', 'resnet9', '--data', sample_dir, '--seeds', 2, '--out', tmp_path/out, '--results', tmp_path/f'{out}.csv', *SMALL)
    start = time.time()
    end(begin(tmp_path/'log', *args('whole')))
    seconds,file = time.time()-start,tmp_path/'killed.csv'
    for i in range(2):
        log = tmp_path/f'log{i}'
        p = begin(log, *args('killed'))
        wait_for(lambda: log.exists() and 'seed-43' in log.read_text(), p)
        time.sleep(random.uniform(0, .3*seconds))
        kill(p)
        assert len(pd.read_csv(file)) >= 1
    end(begin(tmp_path/'log', *args('killed')))
    whole,killed = (pd.read_csv(tmp_path/f'{o}.csv') for o in ('whole','killed'))
    pd.testing.assert_frame_equal(killed[MEASURED], whole[MEASURED], check_exact=True)
    before = file.read_text()
    end(begin(tmp_path/'log', *args('killed')))
    assert file.read_text() == before and list(whole['seed']) == [42,43]
    file.unlink()
    end(begin(tmp_path/'log', *args('killed')))  # lost rows come back from the runs
    pd.testing.assert_frame_equal(pd.read_csv(file)[MEASURED], whole[MEASURED], check_exact=True)

def test_photos_are_looked_through_once(sample_dir, tmp_path, capsys):
    "Two recipes on the same photos share what was found out about them, and stand in one table"
    assert call('experiment', 'resnet9', 'trashnet_cnn', '--data', sample_dir, '--seeds', 1, '--out', tmp_path/'out', *SMALL) == 0
    shown = capsys.readouterr().out
    assert shown.count('72 photos in 6 classes') == 1 and pd.read_csv(tmp_path/'out'/'experiments.csv')['recipe'].tolist() == ['resnet9','trashnet_cnn']

def test_experiment_lists_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call('experiment') == 0
    shown = capsys.readouterr().out
    assert 'trashnet_cnn' in shown and '63%' in shown and '355 s on a K80' in shown
    fails(capsys, 2, 'experiment', 'resnet-9', says='did you mean resnet9')
    fails(capsys, 2, 'experiment', 'resnet9', '--set', 'epochs', says='name=value')
    fails(capsys, 2, 'experiment', 'resnet9', '--set', 'colour=red', says='colour')
    fails(capsys, 2, 'experiment', 'sift_svm', '--set', 'epochs=3', says='epochs')
    (tmp_path/'notes.csv').write_text('day,what\n1,2\n')
    fails(capsys, 2, 'experiment', 'resnet9', '--results', 'notes.csv', says='notes.csv')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['notes.csv']

def test_sift_is_reproducible(sample_dir, tmp_path):
    from garbage_fastai.experiments import run_experiment
    pytest.importorskip('cv2')
    tables = [run_experiment('sift_svm', sample_dir, 1, tmp_path/o, progress=False, size=(96,96), words=30) for o in 'ab']
    cols = ['split_hash','n','accuracy','macro_f1']
    assert tables[0][cols].equals(tables[1][cols]) and len(list((tmp_path/'a').rglob('report.html'))) == 1
