"Finding, fetching and unpacking datasets: hostile and damaged archives, interruptions, no network, and the real photos where they are."
import contextlib, functools, http.server, io, os, signal, socket, subprocess, sys, tarfile, threading, time, warnings, zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from garbage_fastai import archives as A, datasets as D
from garbage_fastai.datasets import (
    DATASETS, compare_counts, count_classes, dataset_info, find_class_root, get_data_file, get_dataset, local_copy)
from garbage_fastai.core import cache_dir
from garbage_fastai.archives import safe_unpack, whole_folder

buf = io.BytesIO()
Image.new('RGB', (4,4), 'red').save(buf, 'jpeg')
PHOTO = buf.getvalue()
CLASSES = tuple(DATASETS['trashnet'].counts)

@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "Each test has a cache of its own, and no ready data"
    for name in ('GARBAGE_FASTAI_DATA', 'XDG_CACHE_HOME'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'cache'))
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'): monkeypatch.delenv(name, raising=False)

def make_zip(path, entries, compress=zipfile.ZIP_STORED):
    "entries: names, or pairs of name (or ZipInfo) and bytes"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'w', compress) as z:
        warnings.simplefilter('ignore')  # of names that come twice
        for e in entries: z.writestr(*((e, PHOTO) if isinstance(e, str) else e))
    return path

def make_tar(path, entries, mode='w'):
    "entries: names, or TarInfo"
    with tarfile.open(path, mode) as t:
        for e in entries:
            m = tarfile.TarInfo(e) if isinstance(e, str) else e
            if m.isreg(): m.size = len(PHOTO)
            t.addfile(m, io.BytesIO(PHOTO) if m.isreg() else None)
    return path

def photos(folder, names):
    for n in names:
        (folder/n).parent.mkdir(parents=True, exist_ok=True)
        (folder/n).write_bytes(PHOTO)
    return folder

def one_line(err):
    msg = str(err.value)
    assert '\n' not in msg and len(msg) < 500, msg
    return msg

def tree(folder): return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file())

TRASHNET = [f'dataset-resized/{c}/{c}1.jpg' for c in CLASSES]

# ---- archives of every kind

@pytest.mark.parametrize('mode,name', [('w','a.tar'), ('w:gz','a.tar.gz'), ('w:bz2','a.tbz2'), ('w:xz','a.tar.xz')])
def test_tars(tmp_path, mode, name):
    a = make_tar(tmp_path/name, ['./glass/1.jpg', './metal/1.jpg', './metal/._1.jpg'], mode)
    root = get_dataset(a, progress=False)
    assert tree(root) == ['glass/1.jpg', 'metal/1.jpg'] and (root/'glass/1.jpg').read_bytes() == PHOTO

def test_told_by_content(tmp_path):
    a = make_zip(tmp_path/'photos.dat', ['glass/1.jpg', 'metal/1.jpg'])
    assert count_classes(get_dataset(a, progress=False)) == dict(glass=1, metal=1)
    t = make_tar(tmp_path/'photos.zip', ['glass/1.jpg', 'metal/1.jpg'])
    assert count_classes(get_dataset(str(t), progress=False)) == dict(glass=1, metal=1)

def test_windows_separators(tmp_path):
    info = zipfile.ZipInfo('x'); info.filename = 'glass\\1.jpg'
    root = safe_unpack(make_zip(tmp_path/'w.zip', [(info, PHOTO), 'metal/1.jpg']), tmp_path/'w')
    assert tree(root) == ['glass/1.jpg', 'metal/1.jpg']

def test_no_special_permissions(tmp_path):
    m = tarfile.TarInfo('glass/1.jpg'); m.mode = 0o6777
    root = safe_unpack(make_tar(tmp_path/'p.tar', [m, 'metal/1.jpg']), tmp_path/'p')
    umask = os.umask(0); os.umask(umask)
    assert (root/'glass/1.jpg').stat().st_mode & 0o7777 == 0o666 & ~umask

def zip_with_mode(name, mode):
    i = zipfile.ZipInfo(name); i.external_attr = mode<<16
    return i, b'/etc/passwd'

def tar_of_type(name, kind, link=''):
    m = tarfile.TarInfo(name); m.type = kind; m.linkname = link
    return m

BAD_ZIPS = {
    'absolute': (['/tmp/evil.jpg'], 'absolute path'), 'drive': (['C:/evil.jpg'], 'absolute path'),
    'backslash root': ([(lambda i: (setattr(i, 'filename', '\\evil.jpg'), i)[1])(zipfile.ZipInfo('x'))], 'absolute path'),
    'climbs': (['glass/../../evil.jpg'], "climbs out of the folder with '..'"),
    'climbs with backslashes': ([(lambda i: (setattr(i, 'filename', 'a\\..\\..\\e.jpg'), i)[1])(zipfile.ZipInfo('x'))], "'..'"),
    'hidden place': (['__MACOSX/../../evil.jpg'], "'..'"),
    'link': ([zip_with_mode('glass/l.jpg', 0o120777)], 'is a link'), 'fifo': ([zip_with_mode('glass/f.jpg', 0o010644)], 'special file'),
    'twice': (['glass/b.jpg', 'glass/b.jpg'], 'collides'), 'case': (['glass/b.jpg', 'Glass/B.JPG'], 'collides'),
    'accents': (['glass/\u00e9.jpg', 'glass/e\u0301.jpg'], 'collides'), 'file and folder': (['glass/x', 'glass/x/1.jpg'], 'collides'),
    'folder and file': (['glass/x/1.jpg', 'glass/x'], 'collides'), 'folder entry and file': ([('glass/x/', b''), 'glass/X'], 'collides'),
    'control characters': (['glass/a\x1b[2J.jpg'], 'control characters'),
    'bomb': ([('glass/z.jpg', bytes(101*2**20))], 'a bomb?'),
}

@pytest.mark.parametrize('case', BAD_ZIPS)
def test_evil_zip(tmp_path, case):
    entries,why = BAD_ZIPS[case]
    entries = [(e, PHOTO) if isinstance(e, zipfile.ZipInfo) else e for e in entries]
    a = make_zip(tmp_path/'in'/'evil.zip', ['glass/a.jpg', 'metal/a.jpg', *entries], zipfile.ZIP_DEFLATED)
    before = a.read_bytes()
    with pytest.raises(ValueError, match='evil.zip is refused') as err: get_dataset(a, dest=tmp_path/'out', progress=False)
    assert why in one_line(err)
    assert tree(tmp_path) == ['in/evil.zip'] and a.read_bytes() == before and not Path('/tmp/evil.jpg').exists()

@pytest.mark.parametrize('entry,why', [  # a TarInfo's own text would hold its address, and the two processes must agree on names
    ('/tmp/evil.jpg', 'absolute'), ('../evil.jpg', "'..'"), (tar_of_type('glass/l', tarfile.SYMTYPE, '/etc'), 'is a link'),
    (tar_of_type('glass/h.jpg', tarfile.LNKTYPE, '/etc/passwd'), 'is a link'), (tar_of_type('glass/d', tarfile.CHRTYPE), 'special file'),
    (tar_of_type('glass/f', tarfile.FIFOTYPE), 'special file'), ('glass/A.jpg', 'collides')], ids=lambda o: getattr(o, 'name', o))
def test_evil_tar(tmp_path, entry, why):
    a = make_tar(tmp_path/'evil.tar.gz', ['glass/a.jpg', entry], 'w:gz')
    with pytest.raises(ValueError) as err: safe_unpack(a, tmp_path/'out')
    assert why in one_line(err) and tree(tmp_path) == ['evil.tar.gz']

def test_limits(tmp_path):
    a = make_zip(tmp_path/'a.zip', [f'glass/{i}.jpg' for i in range(5)])
    with pytest.raises(ValueError, match='one more than the 4'): safe_unpack(a, tmp_path/'out', max_files=4)
    with pytest.raises(ValueError, match='brings the total above'): safe_unpack(a, tmp_path/'out', max_bytes=4*len(PHOTO))
    assert len(tree(safe_unpack(a, tmp_path/'out', max_files=5, max_bytes=5*len(PHOTO)))) == 5

def test_password(tmp_path):
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg'])
    data = bytearray(a.read_bytes())
    for sign,at in ((b'PK\3\4', 6), (b'PK\1\2', 8)): data[data.index(sign)+at] |= 1
    a.write_bytes(data)
    with pytest.raises(ValueError, match='locked with a password'): safe_unpack(a, tmp_path/'out')

# ---- names as their authors wrote them

class RawName(zipfile.ZipInfo):
    "An entry whose name is bytes in some encoding, and that does not say which"
    encoding = 'utf-8'
    def _encodeFilenameFlags(self): return self.filename.encode(self.encoding, 'replace'), self.flag_bits & ~0x800

def raw_zip(path, names, encoding, extra=None):
    with zipfile.ZipFile(path, 'w') as z:
        for n in names:
            info = RawName(n)
            info.encoding = encoding
            if extra: info.extra = extra(n)
            z.writestr(info, PHOTO)
    return path

def unicode_path(name, encoding, crc=None):
    import struct, zlib
    body = struct.pack('<BL', 1, zlib.crc32(name.encode(encoding, 'replace')) if crc is None else crc) + name.encode()
    return struct.pack('<HH', 0x9999, 2) + b'ab' + struct.pack('<HH', 0x7075, len(body)) + body

NAMES = [f'{c}/{i}.jpg' for c in ('Glas grün','métal','papier') for i in range(2)]

def classes_of(archive, **kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return count_classes(get_dataset(archive, progress=False, **kwargs)), [str(o.message) for o in said]

def test_utf8_without_the_flag(tmp_path):
    assert classes_of(raw_zip(tmp_path/'a.zip', [*NAMES, '紙/1.jpg'], 'utf-8')) == ({'Glas grün':2, 'métal':2, 'papier':2, '紙':1}, [])

@pytest.mark.parametrize('page,names', [('cp850', ('Glas grün','métal')), ('cp437', ('Glas grün','métal')), ('cp1252', ('Glas grün','métal')), ('cp852', ('szkło','papier')),
    ('cp866', ('стекло','металл','бумага')), ('cp1251', ('стекло','металл','бумага')), ('gb18030', ('Glas grün','métal','紙')), ('cp932', ('ガラス','表示','紙')),
    ('cp949', ('유리','금속')), ('cp950', ('玻璃','紙類')), ('cp857', ('cam','kağıt'))])
def test_code_pages(tmp_path, page, names):
    "Read as the author saw them, and each use says that it was a guess, the second one too"
    a = raw_zip(tmp_path/'a.zip', [f'{c}/{i}.jpg' for c in names for i in range(2)], page)
    for _ in range(2):
        found,said = classes_of(a)
        assert found == dict.fromkeys(sorted(names), 2)
        assert len(said) == 1 and '\n' not in said[0] and 'a.zip does not say' in said[0] and 'GARBAGE_FASTAI_ENCODING' in said[0]
        assert f"such as '{[n for n in names if not n.isascii()][0]}'" in said[0]

def test_the_encoding_can_be_said(tmp_path, monkeypatch):
    a = raw_zip(tmp_path/'a.zip', ['\u255e\u2550/1.jpg', 'b/1.jpg'], 'cp437')
    monkeypatch.setenv('GARBAGE_FASTAI_ENCODING', 'cp437')
    assert classes_of(a) == ({'b':1, '\u255e\u2550':1}, [])
    monkeypatch.setenv('GARBAGE_FASTAI_ENCODING', 'latin-1')
    assert classes_of(a) == ({'b':1, '\u00c6\u00cd':1}, [])  # and not the folder that was unpacked before
    for bad,says in (('klingon', "encoding 'klingon' is not known"), ('ascii', 'is not written in ascii')):
        monkeypatch.setenv('GARBAGE_FASTAI_ENCODING', bad)
        with pytest.raises(ValueError, match=says) as err: get_dataset(a, progress=False)
        assert str(a) in one_line(err)
    monkeypatch.delenv('GARBAGE_FASTAI_ENCODING')
    assert count_classes(safe_unpack(a, tmp_path/'own', encoding='cp437')) == {'b':1, '\u255e\u2550':1}

def test_the_name_in_the_extra_field(tmp_path):
    good = raw_zip(tmp_path/'a.zip', ['\u7d19/1.jpg', 'b/1.jpg'], 'cp850', lambda n: unicode_path(n, 'cp850'))
    assert classes_of(good) == ({'b':1, '\u7d19':1}, [])
    stale = raw_zip(tmp_path/'s.zip', ['métal/1.jpg', 'b/1.jpg'], 'cp850', lambda n: unicode_path('other/x.jpg', 'cp850', crc=1))
    if sys.version_info < (3,12): assert classes_of(stale)[0] == {'b':1, 'métal':1}

def test_a_macs_accents(tmp_path):
    "Split accents come out as everybody else writes them, so that a model knows the class again"
    for a in (make_zip(tmp_path/'m.zip', ['me\u0301tal/1.jpg', 'b/1.jpg']), raw_zip(tmp_path/'n.zip', ['me\u0301tal/1.jpg', 'b/1.jpg'], 'utf-8'),
              make_tar(tmp_path/'m.tar', ['me\u0301tal/1.jpg', 'b/1.jpg'])):
        assert classes_of(a) == ({'b':1, 'm\u00e9tal':1}, [])

@pytest.mark.parametrize('page', ['cp866','cp1251','utf-8'])
@pytest.mark.parametrize('kind', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_tars_in_a_code_page(tmp_path, page, kind):
    with tarfile.open(tmp_path/'a.tar', 'w', format=kind, encoding=page) as t:
        for n in ('стекло/1.jpg', 'бумага/1.jpg'):
            m = tarfile.TarInfo(n); m.size = len(PHOTO)
            t.addfile(m, io.BytesIO(PHOTO))
    found,said = classes_of(tmp_path/'a.tar')
    assert found == {'бумага':1, 'стекло':1} and len(said) == (page!='utf-8')

@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.lists(st.text(st.characters(categories=['L','N'], exclude_characters='\u0130'), min_size=1, max_size=8), min_size=1, max_size=4), odd=st.booleans())
def test_any_names_in_utf8(tmp_path, names, odd):
    "Flagged, or with one usual letter among them: exactly as written, in one form of the accents"
    import secrets, unicodedata
    form = lambda o: unicodedata.normalize('NFC', o)
    names = {form(o).casefold(): o for o in names}.values()
    a = tmp_path/f'{secrets.token_hex(4)}.zip'
    if odd: raw_zip(a, [f'{o}/1.jpg' for o in [*names, 'é紙']], 'utf-8')
    else: make_zip(a, [f'{o}/1.jpg' for o in names])
    try: found = count_classes(safe_unpack(a, tmp_path/a.stem))
    except ValueError as e: assert 'collides' in str(e)
    else: assert set(found) - {'é紙'} == {form(o) for o in names} - {'é紙'}

def test_folders_that_differ_in_capitals(tmp_path, monkeypatch):
    "Two classes where the disk keeps them apart; else refused, never one"
    a = make_zip(tmp_path/'a.zip', ['Glass/1.jpg', 'glass/2.jpg', 'metal/1.jpg'])
    assert count_classes(safe_unpack(a, tmp_path/'linux')) == dict(Glass=1, glass=1, metal=1)
    monkeypatch.setattr(A, '_ignores_case', lambda folder: True)
    with pytest.raises(ValueError, match="its folders 'Glass' and 'glass' would be one") as err: safe_unpack(a, tmp_path/'windows')
    one_line(err)
    assert not (tmp_path/'windows').exists()

# ---- damage and interruption

@pytest.mark.parametrize('make', [lambda p, n: make_zip(p, n, zipfile.ZIP_DEFLATED), lambda p, n: make_tar(p, n, 'w:gz'),
                                  lambda p, n: make_tar(p, n, 'w:bz2'), lambda p, n: make_tar(p, n, 'w:xz'), make_tar],
                         ids=['zip','gz','bz2','xz','tar'])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage(tmp_path, make, data):
    "Whatever is cut off or flipped: whole, or one line that names the archive, and nothing is left"
    a = make(tmp_path/'good', ['glass/1.jpg', 'metal/2.jpg'])
    raw = bytearray(a.read_bytes())
    if data.draw(st.booleans()): raw = raw[:data.draw(st.integers(0, len(raw)))]
    else:
        for _ in range(data.draw(st.integers(1, 3))): raw[data.draw(st.integers(0, len(raw)-1))] ^= data.draw(st.integers(1, 255))
    bad = tmp_path/'bad'
    bad.write_bytes(raw)
    out = tmp_path/'out'
    try: safe_unpack(bad, out)
    except (ValueError, OSError) as e:
        assert str(bad) in str(e) and '\n' not in str(e), str(e)
        assert tree(tmp_path) == ['bad', 'good'] and not out.exists()
    else:
        import shutil; shutil.rmtree(out)

def test_not_an_archive(tmp_path):
    for name,content in (('a.zip', b'<html>'), ('b.zip', b''), ('c.jpg', PHOTO)):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(ValueError, match='is not an archive') as err: get_dataset(tmp_path/name, progress=False)
        one_line(err)

def test_no_photos(tmp_path):
    for a in (make_zip(tmp_path/'a.zip', [('notes/readme.txt', b'hello')]), make_zip(tmp_path/'e.zip', []), make_tar(tmp_path/'e.tar', [])):
        with pytest.raises(ValueError, match='holds no photos') as err: get_dataset(a, progress=False)
        assert a.name in one_line(err)
    inner = make_zip(tmp_path/'b.zip', [('trashnet-master/data/dataset-resized.zip', make_zip(tmp_path/'i.zip', TRASHNET).read_bytes())])
    with pytest.raises(ValueError, match="take 'trashnet-master/data/dataset-resized.zip' out of it"): get_dataset(inner, progress=False)
    assert not tree(cache_dir())
    (tmp_path/'empty').mkdir()
    with pytest.raises(ValueError, match='holds no photos: it should have one sub-folder for each class'): get_dataset(tmp_path/'empty')

def test_killed_while_unpacking(tmp_path):
    "SIGKILL in the middle leaves no folder that could be taken for whole, and the next call makes it so"
    a = make_zip(tmp_path/'a.zip', [f'{c}/{i}.jpg' for c in ('glass','metal') for i in range(30)])
    code = ('import os, signal, sys; from garbage_fastai import datasets as D; n=[0]; one=D.unpack_entry\n'
            'def stop(*args):\n    n[0]+=1\n    if n[0]>20: os.kill(os.getpid(), signal.SIGKILL)\n    one(*args)\n'
            f'D.unpack_entry=stop; D.get_dataset({str(a)!r}, dest={str(tmp_path/"out")!r})')
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    left = list((tmp_path/'out').iterdir())
    assert len(left) == 1 and left[0].name.startswith('.a-') and left[0].name.endswith('.part') and len(tree(left[0])) == 20
    root = get_dataset(a, dest=tmp_path/'out', progress=False)
    assert len(tree(root)) == 60 and left[0].exists()  # it might be another process at work
    os.utime(left[0], (0,0))
    with whole_folder(root.with_name(root.name)) as d: pass
    assert not left[0].exists() and len(tree(root)) == 60  # an old one is cleared away; a whole one never is

def test_error_and_interrupt_leave_nothing(tmp_path):
    for e in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(e):
            with whole_folder(tmp_path/'x'/'new') as d:
                (d/'a').write_text('a')
                raise e
        assert not tree(tmp_path) and not list((tmp_path/'x').iterdir())

def test_two_at_once(tmp_path):
    "Who comes second takes what the first has made"
    with whole_folder(tmp_path/'new') as one:
        (one/'who').write_text('one')
        with whole_folder(tmp_path/'new') as two: (two/'who').write_text('two')
    assert (tmp_path/'new/who').read_text() == 'two' and [p.name for p in tmp_path.iterdir() if p.is_dir()] == ['new']

def test_full_disk(tmp_path, monkeypatch):
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg', 'metal/1.jpg'])
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(A, 'unpack_entry', full)
        with pytest.raises(OSError, match='cannot write in .*No space left on device; make room there') as err: get_dataset(a)
        one_line(err)
    with monkeypatch.context() as m:
        m.setattr(D.shutil, 'disk_usage', lambda p: type('U', (), dict(free=10)))
        with pytest.raises(OSError, match='a.zip needs .* MB .* are free') as err: get_dataset(a)
        one_line(err)
    assert not tree(cache_dir()) and len(tree(get_dataset(a, progress=False))) == 2

def test_cache_is_a_file(tmp_path, monkeypatch):
    (tmp_path/'f').write_text('')
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'f'/'deeper'))
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg', 'metal/1.jpg'])
    with pytest.raises(OSError, match='cannot write in') as err: get_dataset(a)
    one_line(err)

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='the superuser may write anywhere')
def test_no_permission(tmp_path):
    (tmp_path/'ro').mkdir(mode=0o555)
    a = make_zip(tmp_path/'a.zip', ['glass/1.jpg'])
    with pytest.raises(OSError, match='get permission to write there'): get_dataset(a, dest=tmp_path/'ro')

# ---- folders, names and counts

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

# ---- where a known dataset is found

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

# ---- the network

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

# ---- the real photos

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
