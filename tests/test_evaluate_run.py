"A model tested on photos that it has learned from; and photos sorted into folders of classes with odd names"
import json, os, shutil, warnings

import numpy as np, pandas as pd, pytest

from garbage_fastai.layout import folder_names
from garbage_fastai.predictions import assemble_predictions
from garbage_fastai.sort import copy_sorted, evaluate_model, learned_words
from garbage_fastai.export import learned_photos, read_learned
from garbage_fastai.train import load_table, train_run
from garbage_fastai.predictions import read_predictions
from test_cli import call

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, out, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture(scope='module')
def parts(run): return read_predictions(run/'splits.csv')

def told(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        res = call(*args, **kwargs)
    return res, [str(o.message) for o in said if 'byte for byte' in str(o.message) or 'learned from' in str(o.message)]

def copy_part(parts, part, folder):
    "The photos of one part, in another place and under other names"
    for i,r in enumerate(parts[parts['split']==part].itertuples()):
        (folder/r.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(r.path, folder/r.label/f'new_{i}.jpg')
    return folder

# ---- photos that the model has learned from

@pytest.mark.parametrize('what', ['run', 'model', 'copy of the model', 'run from before'])
def test_the_folder_that_it_was_trained_on(run, parts, sample_dir, tmp_path, what):
    "Wherever the model lies, the figure without its own photos stands beside, and is that of the run's test part"
    model = dict(run=run, model=run/'model').get(what)
    if what=='copy of the model': model = shutil.copytree(run/'model', tmp_path/'elsewhere')
    if what=='run from before':
        model = shutil.copytree(run, tmp_path/'old')
        config = json.loads((model/'model'/'model.json').read_text())
        del config['learned_from']
        (model/'model'/'model.json').write_text(json.dumps(config))
    ev,said = told(evaluate_model, model, sample_dir, tmp_path/'out', progress=False)
    n = parts['split'].value_counts()
    metrics = json.loads((tmp_path/'out'/'metrics.json').read_text())
    assert ev.n == 72 and [ev.learned[k] for k in ('trained_on','chosen_by','n_new')] == [n['train'], n['valid'], n['test']]
    assert {k: metrics[k] for k in ev.learned} == ev.learned and metrics['n'] == 72
    preds = read_predictions(run/'predictions.csv').query('split=="test"')
    assert ev.learned['accuracy_new'] == pytest.approx((preds.predicted==preds.label).mean()) and sorted(ev.new.rows['path']) == sorted(preds['path'])
    assert len(said) == 1 and f"of these 72 photos {n['train']} were trained on and {n['valid']} chose the model" in said[0] and f"{ev.learned['accuracy_new']:.1%}" in said[0]

def test_by_content_not_by_name(run, parts, tmp_path):
    for part,counts in dict(train=[36,0,0], valid=[0,18,0], test=[0,0,18]).items():
        ev,said = told(evaluate_model, run/'model', copy_part(parts, part, tmp_path/part), progress=False)
        assert [ev.learned[k] for k in ('trained_on','chosen_by','n_new')] == counts and len(said) == (part!='test')
        assert (ev.new is None) == (part!='test') and ('accuracy_new' in ev.learned) == (part=='test')
        if part!='test': assert 'says nothing about new photos' in said[0]
    assert ev.new is ev

def test_other_photos_under_the_same_names(run, parts, sample_dir, tmp_path):
    folder = shutil.copytree(sample_dir, tmp_path/'same_names')
    for p in folder.rglob('*.jpg'): p.write_bytes(p.read_bytes()+b'\0')
    ev,said = told(evaluate_model, run, folder, progress=False)
    assert ev.learned['n_new'] == 72 and not said

def test_a_model_that_does_not_tell(run, sample_dir, tmp_path):
    model = shutil.copytree(run/'model', tmp_path/'model')
    for value in (None, 'text', ['list'], {}):
        config = json.loads((run/'model'/'model.json').read_text())
        config['learned_from'] = value
        (model/'model.json').write_text(json.dumps(config))
        assert read_learned(model) == {}
    ev,said = told(evaluate_model, model, sample_dir, progress=False)
    assert ev.learned == {} and ev.new is ev and len(said) == 1 and 'does not tell which photos it has learned from' in said[0]

def test_nothing_of_the_photos_is_in_the_model(run, parts):
    text = (run/'model'/'model.json').read_text()
    assert not any(os.path.basename(p) in text or h in text for p,h in zip(parts['path'], parts['sha256']))
    learned = read_learned(run/'model')
    assert learned == {p: {h[:16] for h in parts.loc[parts['split']==p, 'sha256']} for p in ('train','valid')} and len(learned['train']) == 36

def test_command(run, sample_dir, parts, tmp_path, capsys):
    assert call('evaluate', run/'model', sample_dir) == 0
    out = capsys.readouterr().out.splitlines()
    at = next(i for i,l in enumerate(out) if l.startswith('accuracy ') and 'interval' in l)
    assert '72 photos' in out[at] and out[at+1].startswith('of these 72 photos 36 were trained on and 18 chose the model') and out[at+1].endswith('18 photos)')
    assert call('evaluate', run, copy_part(parts, 'test', tmp_path/'test')) == 0
    assert 'trained on' not in capsys.readouterr().out
    assert call('evaluate', run, copy_part(parts, 'valid', tmp_path/'valid')) == 0
    assert 'of these 18 photos 18 chose the model, byte for byte: none is new to the model' in capsys.readouterr().out

def test_words():
    assert learned_words({}) == '' == learned_words(dict(trained_on=0, chosen_by=0, n_new=5))
    assert learned_photos(pd.DataFrame(dict(path=['a'], split=['train']))) == {}
    t = pd.DataFrame(dict(path=list('abcd'), split=['train','','test','train'], sha256=['1'*64, '2'*64, '3'*64, '']))
    assert learned_photos(t) == dict(train='1'*16, valid='')

def test_accents_put_together_otherwise(run, sample_dir, tmp_path):
    "A folder from a Mac, whose disk splits accents"
    model = shutil.copytree(run/'model', tmp_path/'model')
    config = json.loads((model/'model.json').read_text())
    config['vocab'][0] = 'm\u00e9tal'
    (model/'model.json').write_text(json.dumps(config))
    shutil.copytree(sample_dir/'glass', tmp_path/'photos'/'me\u0301tal')
    shutil.copytree(sample_dir/'glass', tmp_path/'photos'/'glass')
    ev,_ = told(evaluate_model, model, tmp_path/'photos', progress=False)
    assert set(ev.rows['label']) == {'m\u00e9tal', 'glass'}

# ---- folders of their own

def sorted_table(tmp_path, classes):
    "A photo of each class, all of the same file name"
    rows = []
    for i,c in enumerate(classes):
        f = tmp_path/'in'/str(i)/'photo.jpg'
        f.parent.mkdir(parents=True)
        f.write_text(c)
        rows.append(dict(path=str(f)))
    return assemble_predictions(pd.DataFrame(rows), np.eye(len(classes), dtype=np.float32), ['']*len(classes), list(classes))

@pytest.mark.parametrize('classes', [('Glass','glass'), ('glass','glass '), ('a/b','a:b','a_b'), ('con','CON','_con'), ('x','x.'), ('..','.'), ('m\u00e9tal','me\u0301tal'),
                                     ('label','p_label','glass'), ('paper*','paper?')])
def test_no_two_classes_in_one_folder(tmp_path, classes):
    preds = sorted_table(tmp_path, classes)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert copy_sorted(preds, tmp_path/'out') == len(classes)
    copies = {p.parent.name: p.read_text() for p in (tmp_path/'out').rglob('*.jpg')}
    assert sorted(copies.values()) == sorted(classes) and len({k.casefold() for k in copies}) == len(classes)
    assert {k: v for v,k in copies.items()} == folder_names(classes)

def test_a_class_has_the_same_folder_each_time(tmp_path):
    "Also where a call meets only one of two twins"
    classes = ('a/b','a:b','metal')
    preds = sorted_table(tmp_path, classes)
    for i in (1,0,2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            copy_sorted(preds[i:i+1].set_axis([0]), tmp_path/'out', list(classes))
        assert [str(o.message) for o in said] == [f"photos of class {classes[i]!r} are copied into the folder {folder_names(classes)[classes[i]]!r}, since not every disk can hold that name beside the others"]*(i<2)
    assert sorted((p.parent.name, p.read_text()) for p in (tmp_path/'out').rglob('*.jpg')) == [('a_b','a/b'), ('a_b-2','a:b'), ('metal','metal')]

def test_nothing_is_overwritten(tmp_path):
    preds = sorted_table(tmp_path, ['glass'])
    (tmp_path/'out'/'glass').mkdir(parents=True)
    (tmp_path/'out'/'glass'/'photo.jpg').symlink_to(tmp_path/'gone.jpg')  # leads nowhere: a copy would be written through it
    for _ in range(2): copy_sorted(preds, tmp_path/'out')
    assert sorted(p.name for p in (tmp_path/'out'/'glass').iterdir()) == ['photo-2.jpg','photo-3.jpg','photo.jpg'] and not (tmp_path/'gone.jpg').exists()

def test_twins_are_told_when_a_folder_is_looked_through(sample_dir, tmp_path):
    for name in ('glass','Glass','metal'): shutil.copytree(sample_dir/'glass', tmp_path/'photos'/name)
    with pytest.warns(UserWarning, match="classes 'Glass' and 'glass' differ only in capitals"): table = load_table(tmp_path/'photos', progress=False)
    assert table['label'].value_counts().to_dict() == dict(glass=12, Glass=12, metal=12)

def test_served_photos_are_kept_apart(tmp_path):
    "The page that keeps photos has a folder for each class too"
    from garbage_fastai.app import keep_photos
    classes = ['Glass','glass','a/b','a:b']
    for i in range(4): (tmp_path/f'{i}.jpg').write_text(classes[i])
    keep_photos([tmp_path/f'{i}.jpg' for i in range(4)], [{'class':c, 'probabilities':dict.fromkeys(classes, .25)} for c in classes], tmp_path/'kept')
    assert {p.parent.name: p.read_text() for p in (tmp_path/'kept').rglob('*.jpg')} == {v:k for k,v in folder_names(classes).items()}
    assert len({p.parent.name.casefold() for p in (tmp_path/'kept').rglob('*.jpg')}) == 4
