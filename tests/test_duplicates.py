"Duplicates: the same on any machine, row numbers whatever the index, and no pair that only a fixed camera's background makes alike."
import warnings
from itertools import combinations
from pathlib import Path

import garbage_fastai.duplicates as duplicates, numpy as np, pandas as pd, pytest, torch
from PIL import Image, ImageDraw
from hypothesis import given, settings, strategies as st

from garbage_fastai.duplicates import (
    drop_background_pairs, find_duplicates, find_leaks, group_duplicates, release_groups)
from garbage_fastai.datasets import get_dataset
from garbage_fastai.infer import embed_exactly, embed_images
from garbage_fastai.scan import scan_images
from garbage_fastai.labels import review_labels
from garbage_fastai.repeat import repeat_tables
from garbage_fastai.train import full_recipe
from garbage_fastai.sample import draw_photo
from garbage_fastai.splits import split_counts, split_hash, split_images

SIZE = 160,120

def scene(kind, rng):
    "What a camera looks at"
    if kind=='rubble': return Image.fromarray(rng.integers(40, 130, (12,16,3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    if kind=='photo': return draw_photo('metal', rng, SIZE)
    img = Image.new('RGB', SIZE, (90,92,95))   # a bin
    draw = ImageDraw.Draw(img)
    draw.rectangle([20,12,140,108], fill=(60,64,70))
    for i in range(6): draw.line([24,20+14*i,136,24+14*i], fill=(45,50,55), width=2)
    return img

def put(img, label, rng, share):
    "Draw a thing as wide as `share` of the photo, anywhere"
    side = max(8, share*SIZE[0])
    x,y = rng.uniform(0, SIZE[0]-side),rng.uniform(0, SIZE[1]-side)
    draw,colour = ImageDraw.Draw(img),tuple(int(o) for o in rng.integers(0, 60, 3))
    if label=='bottle': draw.rounded_rectangle([x, y, x+.45*side, y+side], 3, fill=(40,170,70))
    if label=='can': draw.rectangle([x, y, x+.7*side, y+side], fill=(200,40,40))
    if label=='cup': draw.ellipse([x, y, x+side, y+side], fill=(235,235,230))
    if label=='lid': draw.ellipse([x, y, x+side, y+side], outline=colour, fill=(220,190,40), width=2)

def draw_camera(folder, kind='bin', classes=('empty','bottle','can'), n=8, share=.2, light=.1, slope=0., shake=0., noise=4, quality=85, bump=0, seed=0):
    "A folder of photos as a fixed camera takes them"
    rng = np.random.default_rng(seed)
    ground,slopes = scene(kind, rng),np.meshgrid(np.linspace(-1, 1, SIZE[0]), np.linspace(-1, 1, SIZE[1]))
    for label in classes:
        (folder/label).mkdir(parents=True)
        for i in range(n):
            img,(dx,dy) = ground.copy(),rng.uniform(-shake, shake, 2)+(bump if i%2 else 0)
            put(img, label, rng, share)
            img = img.transform(SIZE, Image.Transform.AFFINE, (1,0,dx,0,1,dy), Image.Resampling.BICUBIC)
            a = np.asarray(img)*(rng.uniform(1-light, 1+light) + slope*sum(rng.uniform(-1, 1)*s for s in slopes))[...,None] if slope else np.asarray(img)*rng.uniform(1-light, 1+light)
            Image.fromarray((a+rng.normal(0, noise, a.shape)).clip(0, 255).astype(np.uint8)).save(folder/label/f'{i:02}.jpg', quality=quality)
    return scan_images(folder, progress=False)

def across(table, pairs):
    "How many pairs are of two classes, and of one"
    label = table['label'].to_numpy()
    other = label[pairs['a']]!=label[pairs['b']]
    return other.sum(),(~other).sum()

def all_pairs(table): return pd.DataFrame(list(combinations(range(len(table)), 2)), columns=['a','b'])

CAMERAS = dict(plainly=dict(), rubble=dict(kind='rubble'), photo=dict(kind='photo'), small=dict(share=.1), large=dict(share=.45), four=dict(classes=('empty','bottle','can','cup','lid')),
               no_empty=dict(classes=('bottle','can'), n=10), shaken=dict(shake=1.5), light=dict(light=.3, slope=.15), rough=dict(quality=40, noise=8), bumped=dict(bump=6, kind='photo'))

@pytest.mark.parametrize('name', CAMERAS)
def test_fixed_camera(name, tmp_path):
    "Different things before one background are no duplicates; the empty bin is one"
    table = draw_camera(tmp_path/'cam', **CAMERAS[name])
    pairs = find_duplicates(table, progress=False)
    assert across(table, pairs)[0] == 0
    kept = drop_background_pairs(table['path'].tolist(), all_pairs(table))   # even if all of them looked alike to hash and network
    empty = (table['label'].to_numpy()[kept[['a','b']]]=='empty').all(1).sum()
    assert across(table, kept)[0] == 0 and len(kept)-empty <= 3   # two bottles may lie at one place
    bins = group_duplicates(table, kept).query("label=='empty'")['group'].value_counts()
    assert bins.empty or bins.index[0] and bins.iloc[0] >= len(table.query("label=='empty'"))-1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert (split_counts(split_images(table, (.5,.25,.25), seed=1, groups='auto')) > 0).all(None)

def test_without_the_look_at_what_differs(tmp_path, monkeypatch):
    "The drawn cameras are hard: hash and network alone mix the classes up, and training is refused by name of the mend"
    table = draw_camera(tmp_path/'cam', share=.1)
    monkeypatch.setattr(duplicates, 'drop_background_pairs', lambda paths, pairs: pairs)
    assert across(table, find_duplicates(table, progress=False))[0] > 20
    few = table.assign(group=table['label'].where(table['label']!='can', ''))   # groups of one's own are not taken apart
    with pytest.raises(ValueError, match=r"'bottle' \(8 in 1 group\).*--groups exact.*--groups none"): split_images(few)

def test_a_thing_that_lies_still(tmp_path):
    "The same bottle at the same place is the same photo again"
    table = draw_camera(tmp_path/'cam', n=8)
    img = np.asarray(Image.open(table['path'].iloc[3])).astype(int)
    rng = np.random.default_rng(1)
    for i in range(3): Image.fromarray((img*(1+.04*i)+rng.normal(0, 3, img.shape)).clip(0, 255).astype(np.uint8)).save(tmp_path/'cam'/'bottle'/f'still{i}.jpg')
    table = scan_images(tmp_path/'cam', progress=False)
    kept = drop_background_pairs(table['path'].tolist(), all_pairs(table))
    names = table['path'].map(lambda p: '/'.join(Path(p).parts[-2:]))
    still = np.flatnonzero(names.isin(['bottle/03.jpg', *(f'bottle/still{i}.jpg' for i in range(3))]))
    assert len(still)==4
    assert set(combinations(still, 2)) <= set(zip(kept['a'], kept['b']))

def wander(folder, n=20, step=3, seed=0):
    "Photos of one thing from the hand, each a little elsewhere"
    rng,at = np.random.default_rng(seed),np.zeros(2)
    photo = draw_photo('metal', rng, (320,240))
    folder.mkdir(parents=True)
    for i in range(n):
        at = np.clip(at+rng.normal(0, step, 2), -30, 30)
        photo.transform(SIZE, Image.Transform.AFFINE, (1.5,0,40+at[0],0,1.5,30+at[1]), Image.Resampling.BICUBIC).save(folder/f'{i:02}.jpg', quality=90)

@pytest.mark.parametrize('step', [3,8])
def test_a_video_from_the_hand_stays_together(step, tmp_path):
    for i,c in enumerate('ab'): wander(tmp_path/'video'/c, step=step, seed=i)
    table = scan_images(tmp_path/'video', progress=False)
    same = all_pairs(table)[lambda p: (table['label'].to_numpy()[p['a']]==table['label'].to_numpy()[p['b']])]
    assert len(drop_background_pairs(table['path'].tolist(), same)) == len(same)

@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.integers(-8, 8), st.integers(-8, 8), st.floats(.7, 1.3), st.floats(-.15, .15))
def test_light_and_place_are_found(seed, down, right, gain, slope):
    "A photo moved and lit otherwise fits onto itself"
    ref = np.asarray(scene('rubble', np.random.default_rng(seed)).resize((96,72))).astype(float)
    lit = duplicates._shift(ref, down, right)*(gain+slope*np.linspace(-1, 1, 96))[None,:,None]
    got,shift = duplicates._align(lit, ref)
    inside = duplicates._inside(shift)
    assert shift == (-down, -right) and np.abs(got-ref)[inside].max() < 12

def test_likeness_is_in_float32(tmp_path, precision):
    table = draw_camera(tmp_path/'cam', n=3)
    with torch.autocast('cpu', torch.bfloat16): inside = embed_images(table, 160, progress=False)   # somebody else's autocast
    outside,exact = embed_images(table, 160, progress=False),embed_exactly(table['path'].tolist()[:4], 160)
    assert np.array_equal(inside, outside) and np.abs(outside[:4]@outside[:4].T-exact@exact.T).max() < duplicates._CLOSE/4

@pytest.mark.parametrize('error', [-1e-6, 0, 1e-6])
def test_likeness_at_the_threshold(error, sample_dir, monkeypatch):
    "What two processors differ in decides nothing: the exact likeness does, wherever the threshold lies"
    table = scan_images(sample_dir, progress=False).iloc[:6]
    exact = embed_exactly(table['path'].tolist(), 160)
    limit = np.sort((exact@exact.T)[np.triu_indices(6, 1)])[7]   # one of the likenesses
    near = embed_images(table, 160, progress=False)
    def rounded(paths, **kwargs): return near*np.sqrt(1+error/limit)
    monkeypatch.setattr(duplicates, 'embed_images', rounded)
    wants = {(i,j) for i,j in combinations(range(6), 2) if (exact@exact.T)[i,j] >= limit+1e-9}
    got = find_duplicates(table, bits=64, cosine=limit+1e-9, progress=False)
    assert {tuple(sorted(o)) for o in zip(got['a'], got['b'])} == wants and len(wants) == 7

def test_trashnet_split(data_dir, tmp_path, monkeypatch):
    "The split of a machine in float32, where training is in bfloat16; and the pairs that are known by eye"
    monkeypatch.setenv('GARBAGE_FASTAI_PRECISION', 'bf16')
    table = scan_images(get_dataset('trashnet', data=data_dir, dest=tmp_path, progress=False), progress=False)
    name = table['path'].map(lambda p: Path(p).stem)
    split = split_images(group_duplicates(table, progress=False))
    assert split_hash(split) == '98b1a7c091c6'
    assert ((split['group']!='').sum(), split['group'].nunique()-1) == (89, 41)
    group = dict(zip(name, split['group']))
    for a,b in (('metal120','metal50'), ('metal76','metal394'), ('paper2','paper40'), ('plastic118','plastic137')): assert group[a] == group[b] != ''

def test_an_index_that_repeats(sample_dir, tmp_path):
    "pd.concat of two scans, `Path`s, rows in another order: the same pairs, by row number"
    first = scan_images(sample_dir, progress=False)
    table = pd.concat([first[:20], first[5:30]])
    table['path'] = table['path'].map(Path)
    pairs = find_duplicates(table, progress=False).query("kind=='exact'")
    sha = table['sha256'].to_numpy()
    assert {(a,b) for a,b in zip(pairs['a'], pairs['b'])} == {(i,i+15) for i in range(5, 20)} and (sha[pairs['a']]==sha[pairs['b']]).all()
    grouped = group_duplicates(table, progress=False)
    assert (grouped['group']!='').sum() == 30 and grouped.groupby('sha256')['group'].nunique().max() == 1
    assert grouped.index.equals(table.index) and grouped['path'].tolist()==[str(o) for o in table['path']]
    backwards = group_duplicates(table[::-1], progress=False)['group'].to_numpy()[::-1]
    for i,j in combinations(range(len(table)), 2): assert (grouped['group'].iloc[i]==grouped['group'].iloc[j]) == (backwards[i]==backwards[j])

def test_copies_only(sample_dir, tmp_path, monkeypatch):
    "No photo is opened, and no hash of its pixels is needed"
    table = pd.concat([scan_images(sample_dir, progress=False)]*2, ignore_index=True).drop(columns='dhash')
    monkeypatch.setattr(duplicates, 'embed_images', lambda *a, **kw: pytest.fail('looked at photos'))
    grouped = group_duplicates(table.assign(path='gone.jpg'), kind='exact')
    assert (grouped['group'].iloc[:72].to_numpy()==grouped['group'].iloc[72:].to_numpy()).all() and grouped['group'].nunique()==72
    with pytest.raises(ValueError, match="kind='same' is not known; choose one of near, exact"): find_duplicates(table, kind='same')
    with pytest.raises(ValueError, match='needs the columns dhash'): find_duplicates(table)

def alike(n=8, copies=0):
    "A class 'empty' in one group, and photos of two others; the last `copies` of 'empty' are one file"
    label = ['empty']*n + ['can']*n + ['cup']*n
    sha = [f'{i}' for i in range(3*n)]
    for i in range(n-copies, n): sha[i] = 'copy'
    return pd.DataFrame(dict(path=[f'{c}/{i}.jpg' for i,c in enumerate(label)], label=label, ok=True, sha256=sha, group=['7']*n+['']*2*n))

def test_empty_is_dealt_one_by_one():
    with pytest.warns(UserWarning, match=r"class 'empty': its 8 photos are nearly the same \(1 group\), so they are dealt one by one") as said:
        table = release_groups(alike())
    assert len(said)==1 and (table['group']=='').all()
    split = split_images(table, (.5,.25,.25))
    assert split_counts(split).loc['empty'].tolist() == [4,2,2] and not len(find_leaks(split))

@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(0, 12), st.integers(2, 5))
def test_copies_of_a_file_stay_together(n, copies, parts):
    table = alike(n, min(copies, n))
    units = n-max(0, min(copies, n)-1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        free = release_groups(table, parts)
    assert bool(said) == (units>=parts) and (free[table['label']!='empty']['group']=='').all()
    if units<parts: assert free.equals(table)
    else: assert free['group'].where(free['group']!='', free['path'])[:n].nunique() == units

def test_a_copy_in_another_class_keeps_its_group():
    table = alike()
    table.loc[8,['sha256','group']] = table.loc[0,'sha256'],'7'   # a can that is an empty bin
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); free = release_groups(table)
    assert free['group'][[0,8]].tolist() == ['7','7'] and (free['group'].drop([0,8])=='').all()

def test_folds_and_review_of_a_fixed_camera(tmp_path):
    table = draw_camera(tmp_path/'cam', n=8)
    grouped = group_duplicates(table, progress=False)
    assert grouped.query("label=='empty'")['group'].nunique() == 1
    with pytest.warns(UserWarning, match="class 'empty'"): runs = repeat_tables(grouped, full_recipe(), folds=4)
    assert len(runs)==4 and all((split_counts(t)>0).all(None) for _,t in runs.values())
    with pytest.warns(UserWarning, match="class 'empty'"): runs = repeat_tables(grouped, full_recipe(), seeds=2)
    assert len(runs)==2
    with pytest.raises(ValueError, match="'empty'"): repeat_tables(grouped, full_recipe(groups='none'), folds=4)
    pytest.importorskip('cleanlab')
    with pytest.warns(UserWarning, match="class 'empty'"): assert len(review_labels(tmp_path/'cam', tmp_path/'review', progress=False)) == 24
