"Reviewing labels on the command line: from a folder to a sheet, and from a person's decisions to a run"
import json, shutil
from pathlib import Path
import pandas as pd, pytest
from garbage_fastai.train import prepare_table
from test_cli import TINY, call, fails, fingerprint

@pytest.fixture(scope='module')
def photos(sample_dir, tmp_path_factory):
    "The sample with one glass photo among the metal ones"
    folder = tmp_path_factory.mktemp('review')/'photos'
    shutil.copytree(sample_dir, folder)
    shutil.move(folder/'glass'/'glass_001.jpg', folder/'metal'/'glass_001.jpg')
    return folder

@pytest.fixture(scope='module')
def decided(photos, tmp_path_factory):
    "Decisions as the sheet saves them: one label changed, one kept, one photo left out"
    csv = tmp_path_factory.mktemp('decided')/'decisions.csv'
    rows = [('metal/glass_001.jpg', 'relabel', 'glass'), ('paper/paper_001.jpg', 'keep', ''), ('trash/trash_001.jpg', 'leave_out', '')]
    pd.DataFrame([(photos/p, *o) for p,*o in rows], columns=['path','decision','label']).to_csv(csv, index=False)
    return csv

def test_review_writes_a_sheet_and_touches_no_photo(photos, tmp_path, capsys, monkeypatch):
    before = fingerprint(photos)
    monkeypatch.chdir(photos.parent)
    assert call('review', photos.name, '--out', tmp_path/'review', '--photos', 20) == 0
    assert fingerprint(photos) == before
    out = capsys.readouterr().out
    assert str(tmp_path/'review'/'review.html') in out and f'garbage-fastai train {photos.name} --decisions decisions.csv' in out
    suspects = pd.read_csv(tmp_path/'review'/'suspects.csv', keep_default_na=False)
    assert len(suspects) == 72 and suspects.label_quality.is_monotonic_increasing and Path(suspects.path[0]).is_absolute()
    assert suspects.path.map(lambda p: Path(p).name).tolist().index('glass_001.jpg') < 20
    assert (tmp_path/'review'/'review.html').read_text().count('class="card"') == 20

def test_review_says_what_is_wrong(photos, tmp_path, capsys):
    fails(capsys, 2, 'review', tmp_path/'nowhere', '--out', tmp_path/'r', says='nowhere')
    (tmp_path/'file').write_text('mine')
    fails(capsys, 2, 'review', photos, '--out', tmp_path/'file', says='is a file')
    fails(capsys, 2, 'review', photos, '--out', tmp_path/'r', '--folds', 13, says=['--folds 13', 'fewer folds'])
    assert not (tmp_path/'r').exists()

def test_train_with_decisions(photos, decided, tmp_path, capsys):
    before = fingerprint(photos)
    assert call('train', photos, '--out', tmp_path/'run', '--decisions', decided, *TINY) == 0
    assert fingerprint(photos) == before
    assert 'decisions.csv: 1 relabelled, 1 left out' in capsys.readouterr().out
    config = json.loads((tmp_path/'run'/'config.json').read_text())
    assert config['decisions'] == dict(file='decisions.csv', relabelled=1, left_out=1) and config['bad_files'] == 0
    splits = pd.read_csv(tmp_path/'run'/'splits.csv', keep_default_na=False)
    splits.index = splits.path.map(lambda p: Path(p).name)
    assert splits.label['glass_001.jpg'] == 'glass' and splits.split['glass_001.jpg'] and not splits.split['trash_001.jpg']
    report = (tmp_path/'run'/'report.html').read_text()
    assert 'as decisions.csv says: 1 label changed, 1 photo left out' in report and 'could not be read' not in report

def test_decisions_outlive_a_move(photos, decided, tmp_path):
    "Paths on the machine where the photos were reviewed are other ones than where the model is trained"
    shutil.copytree(photos, tmp_path/'elsewhere')
    table = prepare_table(tmp_path/'elsewhere', progress=False, decisions=decided)
    assert table.decision.value_counts().to_dict() == {'':69, 'relabel':1, 'keep':1, 'leave_out':1}
    assert (table.label=='glass').sum() == 12

def test_decisions_that_cannot_be_applied(photos, tmp_path, capsys):
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'run', '--decisions', tmp_path/'none.csv', *TINY, says='none.csv')
    (tmp_path/'d.csv').write_text('path,decision,label\nglass/gone.jpg,leave_out,\n')
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'run', '--decisions', tmp_path/'d.csv', *TINY, says=['glass/gone.jpg', 'no such photo'])
    assert not (tmp_path/'run').exists()
