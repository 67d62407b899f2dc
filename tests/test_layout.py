"Folders and tables as people have them: which photos, classes and split come out of each"
import itertools, unicodedata, warnings
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from conftest import often
from garbage_fastai.scan import find_images, scan_images
from garbage_fastai.layout import folder_part, read_layout, folder_names, plain_name, safe_name, twin_names, warn_twins
from garbage_fastai.train import load_table, prepare_table, train_run
from garbage_fastai.splits import PARTS, join_labels, read_labels, split_images

number = itertools.count()

def photo(path):
    "A photo of its own: each has other pixels"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(number)).integers(0, 256, (8,8,3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path

def photos(root, *folders, n=4, name='{f}_{i}.png'):
    for folder in folders:
        for i in range(n): photo(Path(root)/folder/name.format(f=Path(folder).name, i=i))
    return Path(root)

def outcome(table):
    "Photos, classes and split of a table"
    used = table[table['split'].isin(PARTS)]
    return dict(photos=len(used), classes=sorted(used['label'].unique()), split=[int((used['split']==s).sum()) for s in PARTS])

def prepared(root, **kwargs): return prepare_table(root, progress=False, groups='none', **kwargs)

def class_folders(root): return photos(root, 'glass', 'metal', n=8)

def parts(train, valid, test):
    def make(root):
        for part,n in ((train,6), (valid,3), (test,2)): photos(root, f'{part}/glass', f'{part}/metal', n=n)
        return root
    make.__name__ = train.replace('/', '_')
    return make

def only_train_and_test(root): return photos(photos(root, 'train/glass', 'train/metal', n=10), 'test/glass', 'test/metal', n=2)

def unlabelled_test(root): return photos(photos(root, 'train/glass', 'train/metal', n=8), 'test', n=5)

def parts_below_classes(root): return photos(root, *[f'{c}/{p}' for c in ('glass','metal') for p in ('train','val','test')], n=3)

def nested_by_day(root): return photos(root, *[f'{c}/day{d}' for c in ('glass','metal') for d in (1,2)], n=4)

def nested_and_direct(root): return photos(root, 'glass', 'glass/may', 'metal', 'metal/june/camera 2', n=4)

def class_called_train(root): return photos(root, 'train', 'glass', 'metal', n=8)

def numbers_as_classes(root): return photos(root, '0', '1', '10', n=8)

def case_twins(root): return photos(root, 'Glass', 'glass', n=8)

def inside_wrappers(root): return photos(root, 'download/photos/glass', 'download/photos/metal', n=8)

def with_strays(root):
    photo(root/'top.png')
    return photos(root, 'glass', 'metal', n=8)

def strays_in_a_wrapper(root):
    photo(root/'photos'/'top.png')
    return photos(root, 'photos/glass', 'photos/metal', n=8)

def symlinked(root):
    photos(root.parent/'elsewhere', 'metal', n=8)
    photos(root, 'glass', n=8)
    (root/'metal').symlink_to(root.parent/'elsewhere'/'metal')
    return root

def read_only(root):
    photos(root, 'glass', 'metal', n=8)
    for folder in (root/'glass', root/'metal', root): folder.chmod(0o555)
    return root

def run_inside(root):
    photos(root, 'glass', 'metal', n=8)
    photo(root/'run'/'maps'/'00.png'), photo(root/'run'/'history.png'), photo(root/'checked'/'stress.png')
    (root/'run'/'config.json').write_text('{"split_hash": "0"}')
    for name in ('predictions.csv','metrics.json'): (root/'checked'/name).write_text('')
    return root

two = ['glass','metal']

LAYOUTS = [
    (class_folders, 16, two, [8,4,4]),
    (parts('train','val','test'), 22, two, [12,6,4]),
    (parts('Training','validation','TEST'), 22, two, [12,6,4]),
    (parts('train_set','dev','test1'), 22, two, [12,6,4]),
    (parts('seg_train/seg_train','seg_valid/seg_valid','seg_test/seg_test'), 22, two, [12,6,4]),
    (parts('data/train/images','data/val/images','data/test/images'), 22, two, [12,6,4]),
    (only_train_and_test, 24, two, [16,4,4]),
    (unlabelled_test, 16, two, [8,4,4]),
    (parts_below_classes, 18, two, [6,6,6]),
    (nested_by_day, 16, two, [8,4,4]),
    (nested_and_direct, 16, two, [8,4,4]),
    (class_called_train, 24, ['glass','metal','train'], [12,6,6]),
    (numbers_as_classes, 24, ['0','1','10'], [12,6,6]),
    (case_twins, 16, ['Glass','glass'], [8,4,4]),
    (inside_wrappers, 16, two, [8,4,4]),
    (with_strays, 16, two, [8,4,4]),
    (strays_in_a_wrapper, 16, two, [8,4,4]),
    (symlinked, 16, two, [8,4,4]),
    (read_only, 16, two, [8,4,4]),
    (run_inside, 16, two, [8,4,4]),
]

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('make,n,classes,split', LAYOUTS, ids=[o[0].__name__ for o in LAYOUTS])
def test_layouts(tmp_path, make, n, classes, split):
    root = make(tmp_path/'p')
    try: assert outcome(prepared(root)) == dict(photos=n, classes=classes, split=split)
    finally: root.chmod(0o755)

def test_what_is_refused(tmp_path):
    photos(tmp_path/'one', 'glass', 'metal', n=1)
    with pytest.raises(ValueError, match='too few usable photos'): prepared(tmp_path/'one')
    photos(tmp_path/'flat', '.', n=4)
    with pytest.raises(ValueError, match='--labels'): prepared(tmp_path/'flat')
    photos(tmp_path/'doubt', 'train/glass', 'train/metal', 'test/glass', 'more')
    with pytest.raises(ValueError, match='beside them lies more'): prepared(tmp_path/'doubt')
    photos(tmp_path/'half', 'glass/train', 'glass/test', 'metal')
    with pytest.raises(ValueError, match='arrange all classes alike'): prepared(tmp_path/'half')
    photos(tmp_path/'notrain', 'valid/glass', 'valid/metal', 'test/glass', 'test/metal')
    with pytest.raises(ValueError, match='none to train with|only'): prepared(tmp_path/'notrain')

def test_the_given_split_is_kept_and_told(tmp_path, capsys):
    root = parts('Training','valid','TEST')(tmp_path/'p')
    run = train_run(root, tmp_path/'run', size=32, epochs=0, head_epochs=1, groups='none', progress=False)
    out = capsys.readouterr().out
    assert 'split: as the folders give it' in out and 'classes: glass 11, metal 11' in out
    t = pd.read_csv(run/'splits.csv')
    folder = t['path'].str.split('/').str[-3]
    assert t.groupby(folder)['split'].unique().map(list).to_dict() == dict(TEST=['test'], Training=['train'], valid=['valid'])
    assert '"split": "folders"' in (run/'config.json').read_text()
    assert 'folders' in (run/'report.html').read_text()
    again = prepared(root, split='60/20/20')
    capsys.readouterr()
    from garbage_fastai.train import print_table
    print_table(again)
    assert 'split: dealt anew, not as the folders give it' in capsys.readouterr().out
    assert outcome(again)['split'] == [14,4,4]

def test_days_stay_together(tmp_path):
    table = prepare_table(photos(tmp_path/'p', *[f'{c}/day{d}' for c in ('glass','metal') for d in range(6)], n=3), progress=False, groups='subfolder')
    assert table.groupby('subfolder')['split'].nunique().max() == 1 and set(table['split']) == set(PARTS)
    with pytest.raises(ValueError, match="groups 'weekday' is not known: give auto, exact, none, or a column of the table, which has subfolder"):
        split_images(table, groups='weekday')

HEADS = [('file,label', '{f},{c}'), ('Image_ID;Category', '{s};{c}'), ('filename\tclass_name', 'images\\{f}\t{c}'), ('id,species', '{s},{c}'),
         (' label , path ', '{c}, /data/old place/{f}'), ('photo,what', '{f},{c}')]

@pytest.mark.parametrize('head,line', HEADS)
def test_labels_from_a_file(tmp_path, head, line):
    root = photos(tmp_path/'p', '.', n=8, name='{i}.png')
    classes = [str(i%2) for i in range(8)]
    text = '\n'.join([head, *[line.format(f=f'{i}.png', s=i, c=c) for i,c in enumerate(classes)]])
    (tmp_path/'l.csv').write_text(text)
    table = load_table(root, False, labels=tmp_path/'l.csv')
    assert dict(zip(table['path'].map(lambda p: int(Path(p).stem)), table['label'])) == dict(enumerate(classes))

def test_labels_and_their_faults(tmp_path, capsys):
    root,file = photos(tmp_path/'p', 'a', 'b', n=4),tmp_path/'l.csv'
    file.write_text('file,label,split,site\na/a_0.png,wood,train,x\nb/b_0.png,wood,valid,x\na/a_1.png,cork,train,y\nb/b_1.png,cork,valid,y\nb/lost.png,cork,test,y\n')
    with pytest.warns(UserWarning, match='l.csv: 1 of its 5 photos is not found'): table = load_table(root, False, labels=file)
    assert table['label'].value_counts().to_dict() == {'':4, 'wood':2, 'cork':2}
    with pytest.warns(UserWarning, match='4 photos have no class and are left out'): table = split_images(table)
    assert outcome(table) == dict(photos=4, classes=['cork','wood'], split=[2,2,0])
    assert set(table['site']) == {'x','y',''}
    for text,match in (('file,label\na_0.png,wood\na_0.png,cork\n', "both 'wood' and 'cork'"), ('file,label\nz.png,wood\n', 'names none of the 8 photos'),
                       ('a,b,c\n1,2,3\n', 'say --path-col NAME'), ('file,x,y\n1,2,3\n', 'say --label-col NAME'),
                       ('file,label,split\na_0.png,wood,later\n', "'later' in the column split")):
        file.write_text(text)
        with pytest.raises(ValueError, match=match): load_table(root, False, labels=file)
    file.write_text('file,x,y\na_0.png,wood,1\n')
    with pytest.raises(ValueError, match="has no column 'z': give --label-col one of x, y"): read_labels(file, label_col='z')
    assert read_labels(file, label_col=' X')['label'].tolist() == ['wood']

names = st.text(st.sampled_from('abcXY01 .-é紙'), min_size=1, max_size=4).map(lambda s: s.strip(' .')).filter(lambda s: s and not s.startswith('.'))

odd_names = st.one_of(names, st.sampled_from(['train','val','Test','valid','images','day1','glass','metal','TRAIN']))

trees = st.lists(st.lists(odd_names, max_size=4).map(tuple), min_size=1, max_size=12)

@settings(deadline=None, max_examples=300)
@given(trees)
def test_each_photo_gets_a_place_that_its_folders_name(dirs):
    "Never a class, part or sub-folder that no folder names; one place for each photo, whatever the order"
    try: places = read_layout(dirs)
    except ValueError as e:
        assert 'take' in str(e) or 'arrange' in str(e)
        places = read_layout(dirs, strict=False)
    assert len(places) == len(dirs)
    for d,p in zip(dirs, places):
        assert p.label == '' or p.label in d
        assert p.part in ('', *PARTS) and (not p.part or any(folder_part(o) in (p.part,'eval') for o in d))
        assert p.subfolder == '' or p.subfolder in '/'.join(d)
    assert read_layout(dirs[::-1], strict=False)[::-1] == read_layout(dirs, strict=False)

@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, st.data())
def test_random_folders_give_each_photo_one_row(tmp_path_factory, dirs, data):
    root = tmp_path_factory.mktemp('tree')
    made = {str(photo(root/Path(*d)/f'{i}.png')) for i,d in enumerate(dirs) if not any((root/Path(*d[:k])).is_file() for k in range(len(d)+1))}
    try: table = scan_images(root, progress=False)
    except ValueError: table = scan_images(root, progress=False, strict=False)
    assert sorted(table['path']) == sorted(made) and table['ok'].all()
    assert [p for p,_ in find_images(root)] == table['path'].tolist()
    for r in table.itertuples(): assert r.label == '' or r.label in Path(r.path).relative_to(root).parts[:-1]
    listed = pd.DataFrame(dict(path=data.draw(st.permutations(sorted(made))), label=data.draw(st.lists(st.sampled_from('xyz'), min_size=len(made), max_size=len(made)))))
    joined = join_labels(table, listed)
    assert joined['path'].tolist() == table['path'].tolist()
    assert joined.set_index('path')['label'].to_dict() == listed.set_index('path')['label'].to_dict()

def test_evaluate_says_what_has_no_class(tmp_path, capsys):
    "A photo beside the class folders, and labels from a file, as for a training"
    from garbage_fastai.cli import main
    def call(*args):
        with pytest.raises(SystemExit) as e: main([str(a) for a in args])
        return e.value.code
    root = with_strays(tmp_path/'p')
    with pytest.warns(UserWarning, match='1 photo has no class'): run = train_run(root, tmp_path/'run', size=32, epochs=0, head_epochs=1, groups='none', progress=False)
    capsys.readouterr()
    assert call('evaluate', run, root) == 0
    said = capsys.readouterr()
    assert 'note: 1 photo has no class and is left out' in said.err and '16 photos)' in said.out
    flat = photos(tmp_path/'flat', '.', n=4, name='{i}.png')
    (tmp_path/'l.csv').write_text('photo number,material\n' + ''.join(f'{i},{two[i%2]}\n' for i in range(4)))
    assert call('evaluate', run, flat, '--labels', tmp_path/'l.csv', '--path-col', 'photo number') == 0
    assert '4 photos)' in capsys.readouterr().out
    assert call('evaluate', run, flat) == 2
    assert '--labels' in capsys.readouterr().err

def test_blanks_in_a_split_file(tmp_path):
    root = class_folders(tmp_path/'p')
    rows = ''.join(f'{part}, {c}/{c}_{i}.png\n' for c in two for i,part in enumerate(['train']*4+['valid']*2+['test']*2))
    (tmp_path/'s.csv').write_text('split, path\n' + rows)
    assert outcome(prepared(root, split=str(tmp_path/'s.csv')))['split'] == [8,4,4]

@pytest.mark.parametrize('args', [['scan'], ['review','--folds','3','--out','OUT'], ['train','--folds','3','--size','32','--epochs','0','--head-epochs','1','--groups','none','--out','OUT']], ids=lambda a: a[0])
def test_every_command_names_a_stray(args, tmp_path, capsys):
    from garbage_fastai.cli import main
    root = with_strays(tmp_path/'p')
    with pytest.raises(SystemExit) as e: main([args[0], str(root), *[str(tmp_path/'out') if a=='OUT' else a for a in args[1:]]])
    assert e.value.code == 0 and f"note: 1 photo has no class and is left out ({root}/top.png)" in capsys.readouterr().err

@pytest.mark.parametrize('twins', [('Glass','glass'), ('glass','glass '), ('glass',' glass'), ('m\u00e9tal','me\u0301tal'), ('Glas grün','glasgrün'),
                                   ('glass','glass\u200b'), ('STRASSE','straße'), ('glass\u00a0jar','glass jar'), ('M\u00c9TAL','me\u0301tal')])
def test_twins(twins):
    assert twin_names([*twins, 'metal', 'paper']) == [sorted(twins)]
    with pytest.warns(UserWarning, match='differ only in') as said: warn_twins([*twins, 'paper'])
    text = str(said[0].message)
    assert len(said) == 1 and '\n' not in text and '2 classes' in text
    first,second = text.split(' differ only')[0].removeprefix('classes ').split(' and ')
    assert unicodedata.normalize('NFC', first) != unicodedata.normalize('NFC', second)  # a person can see the difference

def test_no_twins():
    assert twin_names(['glass', 'metal', 'metall', 'glas', 'a_b', 'a-b', 'glass']) == []
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_twins(['glass', 'metal'])

@often
@given(st.lists(st.text(max_size=6), max_size=8))
def test_twins_are_whatever_is_plainly_the_same(names):
    twins = twin_names(names)
    told = {o for t in twins for o in t}
    for n in set(names): assert (n in told) == any(plain_name(n)==plain_name(o) for o in set(names)-{n})
    assert all(plain_name(plain_name(o))==plain_name(o) for o in names)

@often
@given(st.lists(names, max_size=12))
def test_each_class_has_its_own_folder_on_every_disk(classes):
    folders = folder_names(classes)
    assert set(folders) == set(classes)
    on_disk = {unicodedata.normalize('NFC', unicodedata.normalize('NFC', f).casefold()) for f in folders.values()}
    assert len(on_disk) == len(set(classes))
    assert folders == folder_names(reversed(classes))
    for f in folders.values():
        assert f and f not in ('.','..') and not set(f) & set('\\/:*?"<>|\0') and f == f.strip('. ') and len(f.encode('utf-8', 'surrogateescape')) < 255
        assert f.split('.')[0].strip().lower() not in ('con','prn','aux','nul','com1','lpt1')

def test_plain_names_stay():
    assert folder_names(['glass','Glas grün','紙','paper_cardboard']) == {o:o for o in ('glass','Glas grün','紙','paper_cardboard')}
    assert folder_names(['a/b','a_b']) == {'a/b':'a_b-2', 'a_b':'a_b'}  # who bears the name keeps it
    assert safe_name('x'*500) == 'x'*200 and safe_name('glass\ud800') == 'glass_' and safe_name('..') == '_'
