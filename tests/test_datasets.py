"Finding, fetching and unpacking datasets: hostile and damaged archives, interruptions, no network, and the real photos where they are."
import contextlib, functools, http.server, io, socket, tarfile, threading, time, warnings, zipfile
from pathlib import Path

import numpy as np, pytest

from conftest import PHOTO, make_tar, make_zip, one_line, tree
from garbage_fastai import archives as A, datasets as D
from garbage_fastai.datasets import (
    DATASETS, compare_counts, count_classes, dataset_info, find_class_root, get_data_file, get_dataset, local_copy,
    npz_parts, write_npz_photos)
from garbage_fastai.core import cache_dir
from garbage_fastai.scan import scan_images
from garbage_fastai.splits import split_images

CLASSES = tuple(DATASETS['trashnet'].counts)

pytestmark = pytest.mark.usefixtures('own_home')

def photos(folder, names):
    for n in names:
        (folder/n).parent.mkdir(parents=True, exist_ok=True)
        (folder/n).write_bytes(PHOTO)
    return folder

TRASHNET = [f'dataset-resized/{c}/{c}1.jpg' for c in CLASSES]

def test_no_photos(tmp_path):
    for a in (make_zip(tmp_path/'a.zip', [('notes/readme.txt', b'hello')]), make_zip(tmp_path/'e.zip', []), make_tar(tmp_path/'e.tar', [])):
        with pytest.raises(ValueError, match='holds no photos') as err: get_dataset(a, progress=False)
        assert a.name in one_line(err)
    inner = make_zip(tmp_path/'b.zip', [('trashnet-master/data/dataset-resized.zip', make_zip(tmp_path/'i.zip', TRASHNET).read_bytes())])
    with pytest.raises(ValueError, match="take 'trashnet-master/data/dataset-resized.zip' out of it"): get_dataset(inner, progress=False)
    assert not tree(cache_dir())
    (tmp_path/'empty').mkdir()
    with pytest.raises(ValueError, match='holds no photos: it should have one sub-folder for each class'): get_dataset(tmp_path/'empty')

def test_cache_is_a_file(tmp_path, monkeypatch):
    (tmp_path/'f').write_text('')
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'f'/'deeper'))
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg', 'metal/1.jpg'])
    with pytest.raises(OSError, match='cannot write in') as err: get_dataset(a)
    one_line(err)

def test_class_root(tmp_path):
    f = photos(tmp_path/'kaggle', [f'Garbage classification/Garbage classification/{c}/{c}1.jpg' for c in CLASSES])
    (f/'one-indexed-files.txt').write_text('x')
    assert find_class_root(f).parent.parent == f and count_classes(find_class_root(f)) == dict.fromkeys(CLASSES, 1)
    one = photos(tmp_path/'one', ['glass/1.jpg'])
    assert find_class_root(one) == one
    both = photos(tmp_path/'both', ['train/glass/1.jpg', 'train/metal/1.jpg', 'test/glass/2.jpg'])
    assert find_class_root(both) == both and count_classes(both) == dict(glass=2, metal=1)
    assert find_class_root(both, ('glass','metal')) == both/'train'
    flat = photos(tmp_path/'flat', ['1.jpg'])
    assert find_class_root(flat) == flat and count_classes(flat) == {'': 1}
    odd = photos(tmp_path/'a [b] \u00e9'/'*', ['gl[a]ss/1.jpg', 'm\u00e9tal/1.jpg'])
    assert find_class_root(tmp_path/'a [b] \u00e9') == odd

def test_relative_folder(tmp_path, monkeypatch):
    photos(tmp_path/'p', ['x/glass/1.jpg', 'x/metal/1.jpg'])
    photos(tmp_path/'q', ['glass/1.jpg'])
    monkeypatch.chdir(tmp_path)
    assert get_dataset('./p', progress=False) == Path('p/x') and get_dataset('p', progress=False) == Path('p/x')
    monkeypatch.chdir(tmp_path/'p')
    assert get_dataset('.', progress=False) == Path('x')
    monkeypatch.chdir(tmp_path/'q')
    assert get_dataset('.', progress=False) == Path('.')

def test_link_loop(tmp_path):
    f = photos(tmp_path/'f', ['in/glass/1.jpg', 'in/metal/1.jpg'])
    (f/'in/back').symlink_to(f)
    assert get_dataset(f, progress=False) == f/'in'

def test_wrong_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'seedlings'") as err: get_dataset('seedling')
    assert 'trashnet' in one_line(err)
    with pytest.raises(ValueError, match='path of a folder or of an archive'): get_dataset('my_photos')
    for missing in ('no/such', 'no.zip', tmp_path/'nowhere'):
        with pytest.raises(FileNotFoundError, match='no such folder or archive') as err: get_dataset(missing)
        assert str(missing) in one_line(err)
    with pytest.raises(ValueError): dataset_info('')

def test_archive_is_unpacked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg', 'metal/1.jpg'])
    first = get_dataset(a, progress=False)
    with monkeypatch.context() as m:
        m.setattr(A, 'open_archive', lambda p: pytest.fail('unpacked again'))
        assert get_dataset(a, progress=False) == first
    make_zip(a, ['glass/1.jpg', 'metal/1.jpg', 'metal/2.jpg'])
    second = get_dataset(a, progress=False)
    assert second != first and count_classes(second) == dict(glass=1, metal=2) and count_classes(first) == dict(glass=1, metal=1)

def test_local_copies(tmp_path, monkeypatch, capsys):
    ds = DATASETS['trashnet']
    for name,folder in (('env', tmp_path/'env'), ('cache', cache_dir()), ('arg', tmp_path/'arg')): make_zip(folder/'dataset-resized.zip', TRASHNET)
    assert local_copy(ds) == cache_dir()/'dataset-resized.zip'
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'env'))
    assert local_copy(ds) == tmp_path/'env/dataset-resized.zip'
    assert local_copy(ds, tmp_path/'arg') == tmp_path/'arg/dataset-resized.zip' == local_copy(ds, tmp_path/'arg/dataset-resized.zip')
    photos(tmp_path/'ready', TRASHNET)
    for p in (tmp_path/'ready', tmp_path/'ready/dataset-resized'): assert local_copy(ds, p) in (tmp_path/'ready/dataset-resized', p)
    with pytest.warns(UserWarning, match='cardboard 1 instead of 403'): root = get_dataset('trashnet', data=tmp_path/'ready')
    assert root == tmp_path/'ready/dataset-resized' and '6 photos in 6 classes' in capsys.readouterr().out
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'ready'))
    with pytest.warns(UserWarning): assert get_dataset('trashnet', progress=False) == root
    assert not capsys.readouterr().out

def test_half_an_unpacked_folder_is_not_taken(tmp_path, monkeypatch):
    photos(tmp_path/'half', TRASHNET[:4])
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'half'))
    assert local_copy(DATASETS['trashnet']) is None
    with pytest.raises(FileNotFoundError, match='holds neither dataset-resized.zip nor the class folders of TrashNet'):
        get_dataset('trashnet', data=tmp_path/'half')

def test_wrong_data_places(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='does not exist') as err: get_dataset('trashnet', data=tmp_path/'no')
    one_line(err)
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'no'))
    with pytest.raises(FileNotFoundError, match='GARBAGE_FASTAI_DATA is .*not a folder'): get_dataset('trashnet')

def test_the_labelled_half_of_an_archive(tmp_path):
    names = [f'train/{c}/{i}.png' for c in DATASETS['seedlings'].counts for i in range(2)] + ['test/9.png', 'sample_submission.csv']
    a = make_zip(tmp_path/'plant-seedlings-classification.zip', names)
    with pytest.warns(UserWarning, match='Black-grass 2 instead of 263'): root = get_dataset('seedlings', data=tmp_path, progress=False)
    assert root.name == 'train' and set(count_classes(root)) == set(DATASETS['seedlings'].counts)

@pytest.mark.parametrize('named', [True, False], ids=['found by name', 'given'])
def test_kaggles_folder_unpacked(tmp_path, monkeypatch, named):
    folder = photos(tmp_path/'plant-seedlings-classification', [f'train/{c}/1.png' for c in DATASETS['seedlings'].counts] + ['test/9.png'])
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path))
    with pytest.warns(UserWarning, match='instead of'): root = get_dataset('seedlings', data=None if named else folder, progress=False)
    assert root == folder/'train'

def test_compare_counts():
    assert compare_counts(dict(a=1, b=2), dict(a=1, b=2)) == ''
    assert compare_counts(dict(a=1, c=2), dict(a=2, b=3)) == 'a 1 instead of 2, b 0 instead of 3, c 2 instead of 0'

def test_the_facts():
    assert sum(DATASETS['trashnet'].counts.values()) == 2527 and sum(DATASETS['seedlings'].counts.values()) == 4750
    assert len(DATASETS['seedlings'].counts) == 12
    for d in DATASETS.values(): assert d.title and d.licence and d.citation

def test_sample(monkeypatch, tmp_path):
    from garbage_fastai import sample
    calls = []
    monkeypatch.setattr(sample, 'draw_sample', lambda dest: calls.append(dest) or photos(dest, [f'{c}/1.jpg' for c in CLASSES]))
    one = get_dataset('sample', progress=False)
    assert get_dataset('sample', progress=False) == one and len(calls) == 1 and tuple(count_classes(one)) == CLASSES

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
    def send_head(self):
        if 'short' not in self.path: return super().send_head()
        self.send_response(200); self.send_header('Content-Length', '100000'); self.end_headers()
        self.wfile.write(b'PK'); self.close_connection = True

@contextlib.contextmanager
def serve(folder):
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{s.server_port}'
    finally: s.shutdown(); s.server_close()

def known_at(monkeypatch, url):
    monkeypatch.setitem(DATASETS, 'trashnet', DATASETS['trashnet']._replace(url=url, files={'list.txt': url.rsplit('/', 1)[0]+'/list.txt'}))

def test_download(tmp_path, monkeypatch, capfd):
    make_zip(tmp_path/'www/data.zip', TRASHNET)
    (tmp_path/'www/list.txt').write_text('glass1.jpg 1')
    with serve(tmp_path/'www') as url:
        known_at(monkeypatch, f'{url}/data.zip')
        with pytest.warns(UserWarning, match='instead of'): root = get_dataset('trashnet')
        assert 'Downloading TrashNet from' in capfd.readouterr().out
        listed = get_data_file(DATASETS['trashnet'], 'list.txt', progress=False)
    assert root.name == 'dataset-resized' and listed.read_text() == 'glass1.jpg 1'
    with pytest.warns(UserWarning): assert get_dataset('trashnet', progress=False) == root  # the server is gone: from the cache
    assert not [p for p in cache_dir().iterdir() if p.name.startswith('.')]

@pytest.mark.parametrize('path,why', [('none.zip', 'HTTP error 404'), ('page.zip', 'what came is not an archive'), ('short.zip', 'the connection broke after 2 of 100,000 bytes')])
def test_download_fails(tmp_path, monkeypatch, path, why):
    (tmp_path/'www').mkdir()
    (tmp_path/'www/page.zip').write_text('<html>Please log in</html>')
    with serve(tmp_path/'www') as url:
        known_at(monkeypatch, f'{url}/{path}')
        with pytest.raises(ConnectionError, match='cannot download TrashNet') as err: get_dataset('trashnet', progress=False)
    msg = one_line(err)
    assert why in msg and 'get dataset-resized.zip from https://github.com/garythung/trashnet and put it in' in msg and str(cache_dir()) in msg
    assert not tree(cache_dir())

def test_server_that_never_answers(tmp_path, monkeypatch):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        t = time.time()
        with pytest.raises(ConnectionError, match='timed out'):
            D._fetch(f'http://127.0.0.1:{s.getsockname()[1]}/a.zip', tmp_path/'a.zip', 'TrashNet', 'home', False, timeout=.3)
        assert time.time()-t < 3

def test_nobody_there(tmp_path, monkeypatch):
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    known_at(monkeypatch, f'http://127.0.0.1:{port}/data.zip')
    with pytest.raises(ConnectionError) as err: get_dataset('trashnet', progress=False)
    assert 'GARBAGE_FASTAI_DATA' in one_line(err)
    with pytest.raises(FileNotFoundError, match='cannot be downloaded without an account') as err: get_dataset('seedlings', progress=False)
    for word in ('plant-seedlings.zip', 'plant-seedlings-classification.zip', 'kaggle.com', 'Aarhus', str(cache_dir())): assert word in one_line(err)

@pytest.fixture(scope='module')
def unpacked(tmp_path_factory): return tmp_path_factory.mktemp('unpacked')

@pytest.mark.parametrize('name', ['trashnet', 'seedlings'])
def test_real(data_dir, unpacked, name):
    ds = DATASETS[name]
    archive = data_dir/ds.archives[0]
    if not archive.exists(): pytest.skip(f'{archive} is not there')
    before = archive.stat()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        root = get_dataset(name, data=data_dir, dest=unpacked, progress=False)
    assert root.name == ds.folder and count_classes(root) == ds.counts
    after = archive.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    t = time.time()
    assert get_dataset(name, data=data_dir, dest=unpacked, progress=False) == root
    assert time.time()-t < 2

def test_real_side_file(data_dir):
    name = 'one-indexed-files-notrash_val.txt'
    if not (data_dir/name).exists(): pytest.skip(f'{data_dir/name} is not there')
    assert len(get_data_file(DATASETS['trashnet'], name, data=data_dir).read_text().split('\n')) >= 328

def test_npz_twice(tmp_path):
    x = np.zeros((2,8,8,3), np.uint8)
    np.savez(tmp_path/'a.npz', x_train=x, y_train=np.array([0,1]))
    np.savez(tmp_path/'latest.npz', x=x, y=np.array([0,1]))
    assert write_npz_photos(tmp_path/'a.npz', tmp_path/'out', ('can','jar')) == 2
    with pytest.raises(ValueError, match='holds train photos already'): write_npz_photos(tmp_path/'a.npz', tmp_path/'out', ('can','jar'))
    assert len((tmp_path/'out'/'splits.csv').read_text().splitlines()) == 3
    assert [p for p,_,_ in npz_parts(tmp_path/'latest.npz')] == ['train']

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'data'))
    (tmp_path/'data').mkdir()
    return tmp_path/'data'

@pytest.mark.filterwarnings('ignore:Kaggle copy')
def test_kaggle_copy_has_the_published_split(cache, sample_dir):
    "One folder more around the classes, and the lists beside them"
    names = {c: sorted(p.name for p in (sample_dir/c).iterdir()) for c in DATASETS['trashnet'].counts}
    number = dict(zip(('glass','paper','cardboard','plastic','metal','trash'), range(1, 7)))
    with zipfile.ZipFile(cache/'garbage-classification.zip', 'w') as z:
        for c,files in names.items():
            for i,f in enumerate(files): z.write(sample_dir/c/f, f'Garbage classification/Garbage classification/{c}/{c}{i+1}.jpg')
        for part,rows in (('train',range(1,7)), ('val',range(7,9)), ('test',range(9,13))):
            z.writestr(f'one-indexed-files-notrash_{part}.txt', ''.join(f'{c}{i}.jpg {k}\n' for c,k in number.items() for i in rows))
    folder = get_dataset('garbage-classification', progress=False)
    assert count_classes(folder) == {c:12 for c in sorted(names)}
    table = split_images(scan_images(folder, progress=False), 'published')
    assert table['split'].value_counts().to_dict() == dict(train=36, valid=12, test=24)
    assert table.loc[table['path'].str.endswith('metal12.jpg'), 'split'].item() == 'test'

def npz(**arrays):
    buf = io.BytesIO()
    np.savez_compressed(buf, **arrays)
    return buf.getvalue()

def pack(path, **files):
    with tarfile.open(path, 'w:gz') as t:
        for name,data in files.items():
            m = tarfile.TarInfo(f'recycled/{name}.npz')
            m.size = len(data)
            t.addfile(m, io.BytesIO(data))

@pytest.mark.parametrize('layout', ['one', 'two', 'bare'])
def test_singh_set_in_each_packing(cache, layout):
    "One .npz with four arrays, bare or in an archive, or two with channels first: the same photos come out"
    rng = np.random.default_rng(0)
    x,y = rng.integers(0, 256, (60,16,16,3), dtype=np.uint8),np.arange(60)%5
    four = npz(x_train=x[:50], y_train=y[:50,None], x_test=x[50:], y_test=y[50:,None])
    if layout=='one': pack(cache/'recycle_data_shuffled.tar.gz', recycle_data_shuffled=four)
    elif layout=='bare': (cache/'recycle_data_shuffled.npz').write_bytes(four)
    else: pack(cache/'recycled_32.tar.gz', recycled_32_train=npz(x=x[:50].transpose(0,3,1,2), y=y[:50]), recycled_32_test=npz(x=x[50:].transpose(0,3,1,2), y=y[50:]))
    folder = get_dataset('singh', progress=False)
    assert count_classes(folder) == {c:12 for c in sorted(DATASETS['singh'].arrays)}
    assert get_dataset('singh', progress=False) == folder and not list(folder.glob('.*'))
    table = split_images(scan_images(folder, progress=False), folder/'splits.csv')
    assert table['split'].value_counts().to_dict() == dict(train=45, valid=5, test=10) and table['ok'].all()
    from PIL import Image
    assert (np.asarray(Image.open(folder/'crushed soda cans'/'train_00003.png')) == x[3]).all()

@pytest.mark.parametrize('content,says', [(b'no arrays', 'damaged|not an archive'), (None, 'no .npz'), (npz(x=np.zeros((2,4,4)), y=np.zeros(2)), 'not bytes of RGB'),
                                          (npz(x=np.zeros((2,4,4,3), np.uint8), y=np.array([0,7])), 'labels from 0 to 7')])
def test_singh_set_damaged(cache, content, says):
    file = cache/'recycle_data_shuffled.tar.gz'
    if content==b'no arrays': file.write_bytes(content)
    elif content is None: tarfile.open(file, 'w:gz').close()
    else: pack(file, recycle_data_shuffled=content)
    with pytest.raises(ValueError, match=says) as e: get_dataset('singh', progress=False)
    assert '\n' not in str(e.value) and not list((cache.parent/'cache').glob('*'))
