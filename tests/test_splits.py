"Splits: shares, determinism and groups for arbitrary tables; files written by people; TrashNet's own split on the real photos."
import warnings, os
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import make_table, quick_folds
from garbage_fastai import splits as S
from garbage_fastai.core import GarbageWarning
from garbage_fastai.splits import (
    PARTS, check_splits, parse_fractions, photo_ids, published_split, read_splits, save_splits, split_counts,
    split_hash, split_images, kfold_tables)

pytestmark = [pytest.mark.filterwarnings('error'), pytest.mark.usefixtures('own_home')]

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

def make(counts, folder='photos'):
    rows = [(f'{folder}/{c}/{i}.jpg', c) for c,n in counts.items() for i in range(n)]  # file names are the same in all classes
    return pd.DataFrame(rows, columns=['path','label']).assign(ok=True)

def fails(exc, text, call):
    with pytest.raises(exc) as err: call()
    msg = str(err.value)
    assert text in msg and '\n' not in msg and len(msg) < 450, msg

counts = st.dictionaries(st.text('abcXYZ é-_', min_size=1, max_size=6), st.integers(3, 60), min_size=2, max_size=5)

fractions = st.tuples(*[st.integers(1, 20)]*2, st.integers(0, 20)).map(lambda t: tuple(x/sum(t) for x in t))

@quick
@given(counts, fractions, st.integers(0, 2**32))
def test_shares(counts, fractions, seed):
    table = make(counts)
    res = split_images(table, fractions, seed)
    assert set(res.split) <= set(PARTS) and len(res) == len(table)  # each photo in exactly one part
    got = split_counts(res)
    for c,n in counts.items():
        for part,f in zip(PARTS, fractions):
            k = got.loc[c, part]
            assert (k>0) == (f>0)
            least = sum(0 < n*g < 1 for g in fractions)  # photos that other parts had to be given
            assert n*f-1-least < k < n*f+1 or k == 1
    assert table.columns.tolist() == ['path','label','ok']  # the table that was given is as it was

@quick
@given(counts, st.integers(0, 99), st.randoms(use_true_random=False))
def test_order_and_place_do_not_matter(counts, seed, rnd):
    table = make(counts)
    order = list(range(len(table)))
    rnd.shuffle(order)
    moved = make(counts, r'D:\a folder\photos').iloc[order]
    a,b = split_images(table, seed=seed), split_images(moved, seed=seed)
    assert b.index.tolist() == order and b.sort_index().split.tolist() == a.split.tolist() and split_hash(a) == split_hash(b)

@quick
@given(st.integers(0, 1000), st.integers(1001, 2000))
def test_another_seed_is_another_split(a, b):
    table = make(dict(x=40, y=40))
    assert split_images(table, seed=a).split.tolist() != split_images(table, seed=b).split.tolist()

def test_lots_are_fair():
    "Each photo is in each part as often as the fractions say, and neighbours have nothing to do with each other"
    table = make(dict(a=40, b=23))
    draws = np.array([split_images(table, seed=s).split.tolist() for s in range(250)])
    train = (draws=='train').mean(0)
    assert abs(train.mean()-.5) < .02 and np.all(np.abs(train-.5) < .16)  # 5 standard errors of .032
    t = (draws[:,:40]=='train').astype(float)
    assert abs(np.mean([np.corrcoef(t[:,i], t[:,i+1])[0,1] for i in range(39)])) < .05

@quick
@given(counts, st.data())
def test_bad_rows_take_no_part_and_move_hardly_any_other(counts, data):
    counts = {c: n+1 for c,n in counts.items()}
    table = make(counts)
    bad = data.draw(st.integers(0, len(table)-1))
    a,b = split_images(table), split_images(table.assign(ok=table.index!=bad))
    assert b.split[bad] == '' and (b.split=='').sum() == 1
    moved = (a.split!=b.split) & (b.split!='')
    assert moved.sum() <= 2 and set(table.label[moved]) <= {table.label[bad]}

def test_two_parts():
    assert split_counts(split_images(make(dict(a=10, b=5)), (.8,.2))).to_numpy().tolist() == [[8,2,0],[4,1,0]]
    assert split_counts(split_images(make(dict(a=2, b=2)), '50/50')).to_numpy().tolist() == [[1,1,0],[1,1,0]]

def test_index_and_other_columns_survive():
    table = make(dict(a=4, b=4)).assign(split='old', note=range(8))
    table.index = [7]*8
    res = split_images(table)
    assert res.index.tolist() == [7]*8 and res.note.tolist() == list(range(8)) and 'old' not in set(res.split) and set(table.split) == {'old'}

def test_this_split_never_changes():
    "Whoever saved nothing but the seed gets the same photos in any version"
    res = split_images(make(dict(glass=9, paper=7)), '50/25/25', 42)
    assert split_hash(res) == '56c464a4fec9'

group_sizes = st.dictionaries(st.sampled_from(['a','b','c']), st.lists(st.integers(1, 9), min_size=3, max_size=15), min_size=2)

@quick
@given(group_sizes, fractions, st.integers(0, 99))
def test_groups_stay_together(sizes, fractions, seed):
    table = make({c: sum(s) for c,s in sizes.items()})
    table['group'] = [f'{c}{g}' if n>1 else '' for c,s in sizes.items() for g,n in enumerate(s) for _ in range(n)]
    res = split_images(table, fractions, seed)
    assert set(res.split) <= set(PARTS)
    assert (res[res.group!=''].groupby('group').split.nunique()==1).all()
    got = split_counts(res)
    for c,s in sizes.items():
        for part,f in zip(PARTS, fractions):
            assert (got.loc[c, part]>0) == (f>0)
            assert abs(got.loc[c, part]-sum(s)*f) <= 2*max(s)  # no further off than two groups
    renamed = table.assign(group=table.group.map(lambda g: g and f'new name of {g}'))
    assert split_images(renamed, fractions, seed).split.tolist() == res.split.tolist()

def test_singles_make_up_for_groups():
    table = make(dict(a=400, b=400))
    table['group'] = [i//10 if i%400<100 else np.nan for i in range(800)]
    for seed in range(5):
        assert split_counts(split_images(table, seed=seed)).to_numpy().tolist() == [[200,100,100]]*2

def test_groups_across_classes_and_too_few():
    table = make(dict(a=20, b=20))
    table['group'] = [f'pair{i%20}' if i%20<5 else None for i in range(40)]
    res = split_images(table)
    assert res.dropna(subset='group').groupby('group').split.nunique().max() == 1
    fails(ValueError, "too few usable photos of 'a' (9 in 1 group)", lambda: split_images(make(dict(a=9, b=9)).assign(group=['g']*9+['']*9)))

@pytest.mark.parametrize('how', ['50/25/30', '100', '50', '0/50/50', '50/0/50', '1/2/3', '-50/75/75', '50/25/15/10', '//', (.5,), (.5,.2,.2), (.5,float('nan'),.5),
                                 (), None, .8, ('a','b')])
def test_wrong_fractions(how): fails(ValueError, 'is not a split: give two or three parts', lambda: split_images(make(dict(a=9, b=9)), how))

def test_good_fractions():
    for how in ('50/25/25', '.5/.25/.25', ' 50 / 25 / 25 ', [.5,.25,.25], (50,25,25), np.array([2,1,1])/4): assert parse_fractions(how) == (.5,.25,.25)
    assert sum(parse_fractions('33.3/33.3/33.4')) == pytest.approx(1)

@pytest.mark.parametrize('counts,text', [
    ({}, 'the table is empty'), (dict(a=9), "only one class, 'a'"), (dict(a=9, b=1), "too few usable photos of 'b' (1): each class needs 3"),
    (dict(a=9, b=2, c=1), "'b' (2), 'c' (1)"), (dict(a=9, b=2), 'ask for two parts as in 75/25')])
def test_too_little(counts, text): fails(ValueError, text, lambda: split_images(make(counts)))

def test_what_bad_photos_leave():
    table = make(dict(a=9, b=9))
    fails(ValueError, "of 'b' (1)", lambda: split_images(table.assign(ok=table.index<10)))
    fails(ValueError, 'none of the 18 photos can be used, the first is photos/a/0.jpg: truncated', lambda: split_images(table.assign(ok=False, reason='truncated')))
    table = make(dict(a=9, b=9, c=3))
    with pytest.warns(UserWarning, match='no photo of c can be used'): res = split_images(table.assign(ok=table.label!='c'))
    assert (res.split=='').sum() == 3
    fails(ValueError, 'needs the column label', lambda: split_images(table[['path']]))

def test_photos_outside_the_class_folders():
    table = make(dict(a=9, b=9))
    stray = pd.concat([pd.DataFrame(dict(path=['photos/x.jpg'], label='', ok=True)), table])
    with pytest.warns(UserWarning, match='1 photo has no class and (are|is) left out'): res = split_images(stray)
    assert res.split.iloc[0] == '' and (res.split=='').sum() == 1
    fails(ValueError, "no photo is in a class's folder", lambda: split_images(table.assign(label='')))

def test_check_splits():
    table = make(dict(a=4, b=4))
    ok = ['train','train','valid','test']*2
    check_splits(table.assign(split=ok))
    for none in ('', None, float('nan')): check_splits(table.assign(split=['train','train','valid',none]*2))
    for split,text in [(['train']*8, 'no photo is in the part valid'), (['valid']*8, 'in the part train'), (['']*8, 'no photo takes part'),
                       (['train']*4+ok[:4], "no photo of 'a' is in the part valid"), (['valid']*4+ok[:4], "no photo of 'a' is in the part train"),
                       (['val']*8, "has 'val'"), (ok[:4]+['']*4, "only one class, 'a'")]:
        fails(ValueError, text, lambda: check_splits(table.assign(split=split)))
    fails(ValueError, 'no column split', lambda: check_splits(table))

def test_ids():
    assert photo_ids(make(dict(a=1), '/x/y')) == photo_ids(make(dict(a=1), 'z')) == ['a/0.jpg']
    two = pd.DataFrame(dict(path=['q/may/a/1.jpg','q/june/a/1.jpg','q/june/a/2.jpg'], label='a'))
    ids = photo_ids(two)
    assert len(set(ids)) == 3 and ids == photo_ids(two.assign(path='/other/'+two.path)) and ids[2] == 'a/2.jpg'
    deep = pd.DataFrame(dict(path=['1/x/a/1.jpg','2/x/a/1.jpg','1/y/a/1.jpg'], label='a'))
    assert len(set(photo_ids(deep))) == 3
    fails(ValueError, 'photos/a/0.jpg is in the table twice', lambda: photo_ids(pd.concat([make(dict(a=2)), make(dict(a=1))])))

def test_a_corrected_label():
    "A photo whose label was put right by hand is found by its folder and by its label"
    table = make(dict(a=4, b=4))
    table.loc[0, 'label'] = 'b'
    assert S.match_photos(table, ['photos/a/0.jpg', 'a/1.jpg', 'a/0.jpg']) == [0, 1, 0]

@settings(quick, max_examples=20)
@given(counts, st.integers(0, 9))
def test_round_trip(tmp_path, counts, seed):
    table = make(counts, '/here/photos')
    res = split_images(table, seed=seed)
    path = save_splits(res, tmp_path/'out'/'s.csv')
    there = split_images(make(counts, 'E:\\there'), path)
    assert there.split.tolist() == res.split.tolist() and split_hash(there) == split_hash(res)
    assert split_images(table, str(path)).split.tolist() == res.split.tolist()
    assert read_splits(path)[['path','label','split']].values.tolist() == res[['path','label','split']].values.tolist()
    assert [p.name for p in path.parent.iterdir()] == ['s.csv']

def test_round_trip_of_odd_names(tmp_path):
    "Classes that a CSV reader takes for missing values, commas, quotes, bytes that are no text, photos that take no part, groups"
    table = make({'NA': 5, 'null': 5, 'a,"b"': 5, 'x\udce9': 5})
    table['path'] = table['path'].astype(object)
    table['group'] = ['one','one','','','']*4
    table['ok'] = table.index%5!=4
    res = split_images(table)
    again = split_images(table, save_splits(res, tmp_path/'s.csv'))
    assert again.split.tolist() == res.split.tolist() and (res.split=='').sum() == 4
    assert read_splits(tmp_path/'s.csv').group.tolist() == table.group.tolist()

def csv(tmp_path, text):
    (tmp_path/'s.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path/'s.csv'

LINES = [('a',0,'train'), ('a',1,'Training'), ('a',2,'val'), ('a',3,'TEST'), ('b',0,'train'), ('b',1,' validation '), ('b',2,'test'), ('b',3,'dev')]

WANT = ['train','train','valid','test','train','valid','test','valid']

@pytest.mark.parametrize('head,line', [('path,split', 'photos/{c}/{i}.jpg,{s}'), ('Path , Split', '{c}/{i}.jpg,{s}'), ('file;set', 'a b/{c}/{i}.jpg;{s}'),
                                       ('filename\tsubset', 'C:\\x\\{c}\\{i}.jpg\t{s}'), ('split,name,label', '{s},{i}.jpg,{c}')])
def test_files_by_people(tmp_path, head, line):
    text = '\n'.join([head, *(line.format(c=c, i=i, s=s) for c,i,s in LINES)])
    for t in (text, text.replace('\n', '\r\n'), '\ufeff'+text, text+'\n\n'):
        assert split_images(make(dict(a=4, b=4)), csv(tmp_path, t)).split.tolist() == WANT

def test_bare_names(tmp_path):
    table = make(dict(a=4, b=4))
    table['path'] = [f'photos/{c}/{c}{i}.jpg' for c,i,_ in LINES]
    assert split_images(table, csv(tmp_path, 'path,split\n'+'\n'.join(f'{c}{i}.jpg,{s}' for c,i,s in LINES))).split.tolist() == WANT
    table['path'] = make(dict(a=4, b=4)).path
    with pytest.warns(UserWarning, match=r'1 named there fits more than one photo \(0.jpg\)'):
        split_images(table, csv(tmp_path, 'path,split\n0.jpg,train\n'+'\n'.join(f'{c}/{i}.jpg,{s}' for c,i,s in LINES)))

def test_what_does_not_fit_is_said_in_one_line(tmp_path):
    lines = [f'{c}/{i}.jpg,{s}' for c,i,s in LINES[:-1]] + ['b/9.jpg,test', 'zz/0.jpg,test']
    with pytest.warns(UserWarning) as caught: res = split_images(make(dict(a=4, b=4)), csv(tmp_path, 'path,split\n'+'\n'.join(lines)))
    assert len(caught) == 1 and res.split.tolist() == WANT[:-1]+['']
    said = str(caught[0].message)
    assert '2 named there are not found (b/9.jpg, ...); 1 is not named there (photos/b/3.jpg)' in said and '\n' not in said
    bad = make(dict(a=4, b=4)); bad['ok'] = bad.index!=7
    assert split_images(bad, csv(tmp_path, 'path,split\n'+'\n'.join(lines[:-2]))).split.tolist() == WANT[:-1]+['']  # a bad photo isn't missed

def test_a_deeper_folder_decides(tmp_path):
    table = pd.concat([make(dict(a=4, b=4), f'q/{m}') for m in ('may','june')], ignore_index=True)
    lines = [f'{m}/{c}/{i}.jpg,{s}' for m in ('may','june') for c,i,s in LINES]
    assert split_images(table, csv(tmp_path, 'path,split\n'+'\n'.join(lines))).split.tolist() == WANT*2

@pytest.mark.parametrize('text,msg', [
    ('', 'not a CSV table'), ('a,b\n1,2', 'needs the columns path and split, and has a, b'), ('path,split\na/0.jpg,trian', "line 2: 'trian' is none of"),
    ('path,split\n', 'names none of the 8 photos'), ('path,split\nzz/1.jpg,train', 'its first is zz/1.jpg'),
    ('path,split\na/0.jpg,train\na/0.jpg,test', "puts 'a/0.jpg' in"), ('path,split\na/0.jpg,train,x,y\n"', 'not a CSV table'), (b'\xff\xfe\0\0', 'needs the columns'),
    ('path,split\n'+'\n'.join(f'{c}/{i}.jpg,{"train" if c=="a" else s}' for c,i,s in LINES), "no photo of 'a' is in the part valid")])
def test_wrong_files(tmp_path, text, msg): fails(ValueError, msg, lambda: split_images(make(dict(a=4, b=4)), csv(tmp_path, text)))

def test_no_such_file(tmp_path):
    fails(FileNotFoundError, "Give fractions such as 50/25/25, 'published', or", lambda: split_images(make(dict(a=4, b=4)), 'publishd'))
    fails(FileNotFoundError, str(tmp_path), lambda: split_images(make(dict(a=4, b=4)), tmp_path))

def test_cannot_save(tmp_path, monkeypatch):
    res = split_images(make(dict(a=4, b=4)))
    path = save_splits(res, tmp_path/'s.csv')
    before = path.read_bytes()
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    fails(OSError, 's.csv: No space left on device', lambda: save_splits(split_images(make(dict(a=4, b=4)), seed=1), path))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir() if p.is_file()] == ['s.csv']
    (tmp_path/'f').write_text('')
    fails(OSError, 'cannot write', lambda: save_splits(res, tmp_path/'f'/'s.csv'))

def lists(folder, train='glass0.jpg 1\npaper0.jpg 2\n', val='glass1.jpg 1\npaper1.jpg 2\n', test='glass2.jpg 1\n'):
    folder.mkdir(parents=True, exist_ok=True)
    for part,text in (('train',train), ('val',val), ('test',test)): (folder/f'one-indexed-files-notrash_{part}.txt').write_text(text)
    return folder

def trashnet_like(folder='photos', **counts):
    table = make(counts, folder)
    return table.assign(path=[f'{folder}/{c}/{c}{Path(p).name}' for p,c in zip(table.path, table.label)])

def test_published(tmp_path, monkeypatch):
    table = trashnet_like(glass=3, paper=2)
    want = ['train','valid','test','train','valid']
    assert split_images(table, 'published', data=lists(tmp_path/'d')).split.tolist() == want
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'d'))
    assert split_images(table, 'published').split.tolist() == want
    monkeypatch.delenv('GARBAGE_FASTAI_DATA')
    beside = trashnet_like(str(tmp_path/'d'/'dataset-resized'), glass=3, paper=2)  # as in the copy that circulates with the lists beside it
    assert split_images(beside, 'published').split.tolist() == want
    with pytest.warns(UserWarning, match='1 is not named there .*glass3'): assert split_images(trashnet_like(glass=4, paper=2), 'published', data=tmp_path/'d').split[3] == ''
    with pytest.warns(UserWarning, match='1 named there is not found .*glass/glass2'): split_images(trashnet_like(glass=2, paper=2), 'published', data=tmp_path/'d')

def test_published_elsewhere(tmp_path):
    fails(ValueError, "knows no class 'cork'", lambda: split_images(make(dict(cork=4, glass=4)), 'published'))
    fails(ValueError, 'names none of the 8 photos', lambda: split_images(make(dict(paper=4, glass=4)), 'published', data=lists(tmp_path/'d')))
    fails(ValueError, "line 1: 'glass0.jpg seven' is not", lambda: published_split(lists(tmp_path/'e', train='glass0.jpg seven')))

def test_published_without_network(monkeypatch):
    from garbage_fastai import datasets
    def down(*args): raise OSError('no route to host')
    monkeypatch.setattr(datasets, '_save_url', down)
    with pytest.raises(ConnectionError) as err: published_split()
    assert 'get one-indexed-files-notrash_train.txt from https://github.com/garythung/trashnet and put it in' in str(err.value)

def test_published_real(data_dir):
    if not (data_dir/'one-indexed-files-notrash_train.txt').exists(): pytest.skip(f'the lists of the published split are not in {data_dir}')
    listed = published_split(data_dir)
    n = listed.assign(label=listed.path.str.split('/').str[0]).pipe(split_counts)
    assert n.sum().tolist() == [1768, 328, 431] and n['train'].to_dict() == dict(cardboard=287, glass=354, metal=286, paper=403, plastic=347, trash=91)
    assert n.sum(axis=1).to_dict() == dict(cardboard=403, glass=501, metal=410, paper=594, plastic=482, trash=137)
    rows = [(f'/x/dataset-resized/{c}/{c}{i}.jpg', c, True) for c,k in n.sum(axis=1).items() for i in range(1, k+1)]
    res = split_images(pd.DataFrame(rows, columns=['path','label','ok']), 'published', data=data_dir)  # no warning: all names fit
    assert res.split.value_counts().to_dict() == dict(train=1768, test=431, valid=328)

def test_real_photos(data_dir, tmp_path_factory):
    "The lists fit the files in the archive, one to one"
    import zipfile
    archive = data_dir/'dataset-resized.zip'
    if not archive.exists(): pytest.skip(f'{archive} is not there')
    names = [n for n in zipfile.ZipFile(archive).namelist() if n.endswith('.jpg') and not n.startswith('__MACOSX')]
    table = pd.DataFrame(dict(path=names, label=[n.split('/')[-2] for n in names]))
    res = split_images(table, 'published', data=data_dir)
    assert len(res) == 2527 and res.split.value_counts().to_dict() == dict(train=1768, test=431, valid=328)
    half = split_counts(split_images(table, '50/25/25', seed=42))
    assert half.loc['trash'].tolist() == [69, 34, 34] and half.to_numpy().sum() == 2527 and abs(half['train'].sum()-2527/2) <= 3

def test_large_table_is_quick():
    import time
    table = make({f'class{i}': 2000 for i in range(20)})
    table['group'] = [i//4 if i%20==0 else '' for i in range(len(table))]
    t = time.time()
    res = split_images(table)
    assert time.time()-t < 6 and split_hash(res)

# ---- folds
@settings(quick_folds, max_examples=20)
@given(st.lists(st.integers(6, 25), min_size=2, max_size=4), st.integers(3, 6), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_folds(sizes, k, seed, rnd):
    warnings.simplefilter('ignore', GarbageWarning)  # of the stray
    t = pd.DataFrame([(f'photos/{c}/{i}.jpg', f'c{c}', i % 7 != 6) for c,n in enumerate(sizes) for i in range(n)], columns=['path', 'label', 'ok'])
    t = pd.concat([t, pd.DataFrame(dict(path=['photos/stray.jpg'], label=[''], ok=[True]))], ignore_index=True)
    used = t.ok & (t.label != '')
    folds = list(kfold_tables(t, k, seed))
    assert len(folds) == k and t.columns.tolist() == ['path', 'label', 'ok']
    for f in folds:
        assert (f.split[~used] == '').all() and f.split[used].isin(PARTS).all()
        for c, n in f[used].label.value_counts().items():  # as many of each class as the fold's share, give or take one
            assert all(abs(((f.label==c) & (f.split==s) & used).sum() - n/k) < 1 for s in ('valid', 'test'))
    assert (sum((f.split=='test').astype(int) for f in folds)[used] == 1).all() and (sum((f.split=='valid').astype(int) for f in folds)[used] == 1).all()
    order = list(range(len(t)))
    rnd.shuffle(order)
    moved = t.assign(path=t.path.str.replace('photos', '/elsewhere')).iloc[order]
    for f,g in zip(folds, kfold_tables(moved, k, seed)): assert g.sort_index().split.tolist() == f.split.tolist()

@settings(quick_folds, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_group_stays_on_one_side(seed, most):
    rng = np.random.default_rng(seed)
    t = make_table(40)
    groups = [f'{c}{g}' if rng.random() > .2 else [None, '', -1][rng.integers(3)] for c,g in zip(t.label, rng.integers(0, 40//most, len(t)))]
    t['group'] = pd.Series(groups, dtype=object)
    folds = list(kfold_tables(t, 4, seed))
    has = t.group.notna() & ~t.group.isin(['', -1])
    for f in folds: assert f[has].groupby('group').split.nunique().max() == 1
    assert (sum((f.split=='test').astype(int) for f in folds) == 1).all()

def test_folds_that_cannot_be_dealt():
    for t, k, says in ((make_table(), 2, 'k must be 3 or more'), (make_table(4), 5, "too few photos for 5 folds: 'glass' has 4, 'metal' has 4, 'paper' has 4"),
                       (make_table().assign(group=lambda t: t.label), 3, "too few groups for 3 folds: 'glass' has 1"), (make_table().drop(columns='label'), 5, 'needs the column label'),
                       (make_table()[:20], 5, "only one class, 'glass'")):
        with pytest.raises(ValueError, match=says): list(kfold_tables(t, k))

def test_folds_train_from_a_file(tmp_path):
    fold = next(kfold_tables(make_table()))
    assert split_images(make_table(), save_splits(fold, tmp_path/'fold.csv')).split.tolist() == fold.split.tolist()
