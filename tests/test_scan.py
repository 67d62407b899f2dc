"Photos are opened as people see them, and no file, however bad, stops a scan. Pixel values are asserted, on drawn pictures and on a real photo."
import hashlib, multiprocessing, os, signal, subprocess, sys, threading, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest
from PIL import Image, ImageFile, ImageFilter

from bad_files import encode, picture
from garbage_fastai import images, scan
from garbage_fastai.images import ImageProblem, open_image
from garbage_fastai.scan import dhash, find_images, scan_images, QUALITY_SCORES, check_quality, sharpness

@pytest.fixture
def tree(tmp_path):
    jpg = encode(picture(), 'JPEG')
    root = tmp_path/'root'
    for name in ('top.jpg', 'glass/b.jpg', 'glass/A.JPEG', 'glass/deep/er/c.PNG', 'metal/noext', 'metal/photo no.3', '.hidden/x.jpg', 'glass/.x.jpg',
                 'glass/._b.jpg', '.ipynb_checkpoints/b-checkpoint.jpg', '__MACOSX/glass/b.jpg', 'Thumbs.db', 'glass/desktop.ini', '@eaDir/b.jpg',
                 'metal/archive.zip', 'metal/old.txt'):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(jpg)
    for name in ('labels.csv', 'README', 'metal/notes', 'metal/x.unknown'): (root/name).write_text('text')
    return root

def rel(found, root): return [(Path(p).relative_to(root).as_posix(),label) for p,label in found]

def test_find(tree):
    want = [('glass/A.JPEG','glass'), ('glass/b.jpg','glass'), ('glass/deep/er/c.PNG','glass'), ('metal/noext','metal'), ('metal/photo no.3','metal'), ('top.jpg','')]
    assert rel(find_images(tree), tree) == want
    assert rel(find_images(f'{tree}/'), tree) == want
    assert rel(find_images(tree, exts=['.PNG','jpeg']), tree) == [want[0],want[2]]
    assert scan_images(tree).path.tolist() == [str(tree/p) for p,_ in want]

def test_find_in_a_hidden_root(tree):
    assert rel(find_images(tree/'.hidden'), tree) == [('.hidden/x.jpg','')]

def test_find_relative(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert find_images('glass')[0] == ('glass/A.JPEG','')
    assert dict(find_images('.'))['./glass/A.JPEG'] == 'glass'
    monkeypatch.setenv('HOME', str(tree))
    assert len(find_images('~/glass')) == 3

def test_find_files_and_lists(tree):
    f = tree/'glass'/'b.jpg'
    assert find_images(f) == find_images(str(f)) == find_images([f]) == [(str(f),'glass')]
    assert rel(find_images([tree/'metal', f, f, tree/'old.txt']), tree) == [('glass/b.jpg','glass'), ('metal/noext',''), ('metal/photo no.3',''), ('old.txt','root')]
    table = scan_images([f, tree/'gone.jpg'])
    assert table.ok.tolist() == [True,False] and table.reason[1] == 'no such file'

def test_find_wrong_use(tree):
    with pytest.raises(FileNotFoundError) as e: scan_images(tree/'plastic')
    assert str(tree/'plastic') in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(NotADirectoryError, match='a folder of photos is needed, not a file: .*top.jpg'): scan_images(tree/'top.jpg', folder_only=True)
    with pytest.raises(NotADirectoryError, match='not a list'): scan_images([tree], folder_only=True)
    with pytest.raises(ValueError, match='workers'): scan_images(tree, workers=-1)

def test_links(tree):
    os.symlink(tree, tree/'glass'/'up')             # A loop
    os.symlink('/', tree/'glass'/'everything')      # Holds the link itself
    os.symlink(tree/'metal', tree/'aaa_metal')      # Sorts before the real one, which still wins
    os.symlink(tree/'glass'/'b.jpg', tree/'metal'/'b.jpg')
    other = tree.parent/'other'
    other.mkdir()
    picture().save(other/'o.jpg')
    os.symlink(other, tree/'paper')
    os.symlink(other, tree/'paper_again')
    os.symlink(tree/'glass', other/'back')
    (other/'sub').mkdir()
    picture().save(other/'sub'/'s.jpg')
    os.symlink(other/'sub', tree/'p_sub')           # Followed before `paper`, which holds it too
    got = rel(find_images(tree), tree)
    assert [o for o in got if o[0].startswith('aaa') or 'up' in o[0] or 'every' in o[0] or 'again' in o[0] or 'back' in o[0]] == []
    assert ('metal/b.jpg','metal') in got and ('paper/o.jpg','paper') in got and ('p_sub/s.jpg','p_sub') in got and len(got) == len({os.path.realpath(tree/p) for p,_ in got})+1 == 9

def test_empty(tmp_path):
    for table in (scan_images(tmp_path), scan_images([])):
        assert len(table) == 0 and list(table.columns) == list(scan._COLUMNS) and table.ok.dtype == bool and table.width.dtype.kind == 'i'
        assert table[~table.ok].empty

def test_columns(tmp_path):
    d = tmp_path/'paper'
    d.mkdir()
    white,half = Image.new('RGB', (600,400), 'white'),Image.new('RGB', (600,400), (102,102,102))
    half.paste((255,255,255), (0,0,150,400))
    white.save(d/'a.png')
    half.save(d/'b.png')
    half.save(d/'c.jpg', quality=95)
    t = scan_images(tmp_path)
    assert t['label'].tolist() == ['paper']*3 and t['mode'].tolist() == ['RGB']*3 and (t.width == 600).all() and (t.height == 400).all() and (t.exif == 1).all()
    assert t.bytes.tolist() == [p.stat().st_size for p in sorted(d.iterdir())]
    assert t.sha256.tolist() == [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(d.iterdir())]
    assert t.brightness.tolist() == pytest.approx([1, .55, .55], abs=.01)
    assert t.overexposed.tolist() == pytest.approx([1, .25, .25], abs=.02)
    assert (t.dhash.str.fullmatch('[0-9a-f]{16}')).all() and t.dhash[1] == t.dhash[2]

def test_dhash_is_imagehash(im):
    imagehash = pytest.importorskip('imagehash')
    assert dhash(im) == str(imagehash.dhash(im))

def test_reduced_hash_stays_close(data_dir, tmp_path):
    "The scan hashes a reduced picture: on real photos nearly the same bits as of the whole"
    with zipfile.ZipFile(data_dir/'dataset-resized.zip') as z:
        names = sorted(o for o in z.namelist() if o.endswith('.jpg'))[::100]
        for i,o in enumerate(names): (tmp_path/f'{i:03}.jpg').write_bytes(z.read(o))
    t = scan_images(tmp_path)
    far = [(int(dhash(Image.open(p)), 16) ^ int(h, 16)).bit_count() for p,h in zip(t.path, t.dhash)]
    assert len(far) == 26 and t.ok.all() and max(far) <= 3 and np.mean(far) < .5

def test_odd_names(tmp_path):
    names = [b'plain.jpg', 'Flasche \u00fc \U0001f5d1.jpg'.encode(), b'new\nline.jpg', b'latin1_\xe9.jpg', b'quote"comma,.jpg', b' space .jpg', b'-rf.jpg']
    d = tmp_path/'gl\u00e4ser'
    d.mkdir()
    for n in names:
        with open(os.path.join(os.fsencode(d), n), 'wb') as f: f.write(encode(picture(), 'JPEG'))
    for workers in (0, 2):
        t = scan_images(d, workers=workers)
        assert t.ok.all() and sorted(os.fsencode(os.path.basename(p)) for p in t.path) == sorted(names)
        assert all(open_image(p).size == (96,64) for p in t.path)
    csv = tmp_path/'t.csv'
    t.to_csv(csv, index=False, errors='surrogateescape')
    assert pd.read_csv(csv, encoding_errors='surrogateescape').path.tolist() == t.path.tolist()

SCRIPT = '''
import multiprocessing, sys
from garbage_fastai.scan import scan_images
{guard}
    multiprocessing.set_start_method('{method}')
    t = scan_images(sys.argv[1], workers=2)
    print(len(t), t.ok.sum(), ''.join(t.dhash)[:200])
'''

@pytest.fixture(scope='module')
def forty(tmp_path_factory):
    d = tmp_path_factory.mktemp('forty')
    for i in range(40): picture((60+i,50)).rotate(9*i).save(d/f'{i:02}.jpg')
    (d/'20.jpg').write_bytes(b'text')
    return d

@pytest.mark.parametrize('method,guard', [('fork','if 1:'), ('spawn','if __name__ == "__main__":'), ('forkserver','if __name__ == "__main__":'), ('spawn','if 1:')])
def test_start_methods(forty, tmp_path, method, guard):
    "The same table from every way to start a process; without the guard that spawn needs, from one process and with a warning"
    if method not in multiprocessing.get_all_start_methods(): pytest.skip(f'no {method} here')
    f = tmp_path/'script.py'
    f.write_text(SCRIPT.format(method=method, guard=guard))
    res = subprocess.run([sys.executable, f, forty], capture_output=True, text=True, timeout=60)
    want = scan_images(forty, workers=0)
    assert res.stdout.split() == ['40', '39', ''.join(want.dhash)[:200]], res.stderr
    assert ('scanning in one process' in res.stderr) == (method == 'spawn' and guard == 'if 1:')

def test_workers_agree(forty):
    one,two = scan_images(forty, workers=1),scan_images(forty, workers=2)
    pd.testing.assert_frame_equal(one, two)

def test_killed(forty):
    "Of a scan that is killed no worker stays behind: the output they share with it ends only when the last of them has ended"
    code = """if __name__=='__main__':
        import os, signal, sys
        from garbage_fastai.scan import scan_images
        def die(rows, total):
            for row in rows: os.kill(os.getpid(), signal.SIGKILL)
        scan_images(sys.argv[1], workers=2, progress=die)"""
    p = subprocess.run([sys.executable, '-c', code, forty], stdout=subprocess.PIPE, timeout=60)
    assert p.returncode == -signal.SIGKILL

@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='needs fork, to hand a patched decoder to the workers')
def test_a_file_that_kills_its_worker(forty, monkeypatch):
    ctx = multiprocessing.get_context('fork')
    monkeypatch.setattr(scan, 'ProcessPoolExecutor', lambda n, **kw: ProcessPool(n, mp_context=ctx, **kw))
    from concurrent.futures import ProcessPoolExecutor as ProcessPool
    kill,decode = {(forty/f'{i:02}.jpg').read_bytes() for i in (7, 31)},images.decode_image
    monkeypatch.setattr(scan, 'decode_image', lambda data, *args: os._exit(9) if data in kill else decode(data, *args))
    t = scan_images(forty, workers=2)
    assert len(t) == 40 and [Path(p).stem for p in t.path[~t.ok]] == ['07', '20', '31']
    assert t.reason[7].startswith('crashes its decoder') and t.reason[31].startswith('crashes its decoder')

def test_in_threads(tmp_path, monkeypatch):
    "A web page decodes in threads: each picture is whole, each half refused, and Pillow's switches are back afterwards"
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    good,bad,wrong = encode(picture((400,300)), 'JPEG'),encode(picture((400,300)), 'JPEG')[:3000],[]
    def work():
        for _ in range(30):
            if open_image(good).size != (400,300): wrong.append('size')
            try: open_image(bad); wrong.append('passed')
            except ImageProblem: pass
    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong and ImageFile.LOAD_TRUNCATED_IMAGES is True

def test_progress(forty, capsys):
    seen = []
    def bar(rows, total):
        for o in rows:
            seen.append(total)
            yield o
    assert len(scan_images(forty, progress=bar)) == 40 and seen == [40]*40
    scan_images(forty, progress=True)
    assert capsys.readouterr() == ('', '')  # Nothing in a log file

def test_import_is_light():
    "Workers import this module, so it must not bring torch along"
    code = "import sys, garbage_fastai.images; print([o for o in ('torch','fastai','matplotlib','fastprogress','pillow_heif') if o in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

def _by_name(t): return t.set_index(t['path'].map(lambda o: Path(o).name))

def test_quality_of_odd_files(odd_files):
    q = _by_name(check_quality(odd_files))
    assert len(q) == len(odd_files) and not q['ok']['broken.jpg']
    for n in ('cmyk.jpg', 'palette.png', 'apple.heic', 'bits16.png', 'a::b.png'):
        assert q['highlights'][n] == pytest.approx(q['highlights']['rgb.png'], abs=.06), n
    assert q['is_greyscale']['bits16.png'] and not q['is_greyscale']['cmyk.jpg']
    for n in ('gone.png', 'broken.jpg'):
        assert q.loc[n, ['sharpness', 'highlights', 'colour', 'usual_size']].isna().all() and q['quality'][n] == ''

def test_quality_where_nothing_can_be_read(odd_files):
    bad = odd_files[[Path(o).name in ('gone.png', 'broken.jpg') for o in odd_files['path']]]
    assert check_quality(bad)['sharpness'].isna().all() and (check_quality(bad[~bad['ok']])['quality'] == '').all()
    assert 'quality' in check_quality(odd_files[:0])

def test_quality_flags_are_plain_booleans(odd_files):
    q = check_quality(check_quality(odd_files))
    assert all(q[f'is_{n}'].dtype == bool and q[c].dtype == float for n,c in QUALITY_SCORES.items())

def test_sharpness_ignores_light(sample_dir):
    im = Image.open(sorted(sample_dir.rglob('*.jpg'))[0])
    dim = im.point(lambda v: int(v*.7))
    assert sharpness(dim) == pytest.approx(sharpness(im), rel=.15) and sharpness(im.filter(ImageFilter.GaussianBlur(3))) < sharpness(im)/2
    assert sharpness(Image.new('RGB', (1,1))) == sharpness(Image.new('RGB', (50,50), 'white')) == 0
