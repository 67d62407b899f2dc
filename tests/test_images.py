"Photos are opened as people see them, and no file, however bad, stops a scan. Pixel values are asserted, on drawn pictures and on a real photo."
import hashlib, io, multiprocessing, os, pickle, signal, struct, subprocess, sys, textwrap, threading, time, warnings, zipfile
from pathlib import Path

import PIL, numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image, ImageFile

from garbage_fastai import images, scan
from garbage_fastai.images import ImageProblem, open_image
from garbage_fastai.scan import dhash, find_images, scan_images
from bad_files import encode, make_bad_files, picture, png, tiff

# Pillow remarks on broken notes in files; where that matters, `recwarn` looks
pytestmark = pytest.mark.filterwarnings('ignore:Corrupt EXIF data', 'ignore:Truncated File Read', 'ignore:Metadata Warning')

# ------------------------------------------------------------------------------------------------- decode rules

@pytest.fixture(params=['drawn', 'photo'])
def im(request):
    "A drawn picture, and one of TrashNet's photos where they are at hand"
    if request.param == 'drawn': return picture()
    data = request.getfixturevalue('data_dir')/'dataset-resized.zip'
    if not data.is_file(): pytest.skip(f'real photos: no {data}')
    with zipfile.ZipFile(data) as z: return Image.open(io.BytesIO(z.read('dataset-resized/glass/glass100.jpg'))).convert('RGB')

def same(data, want, tol=0):
    got = open_image(data)
    assert got.mode == 'RGB' and type(got) is Image.Image and not got.info and got.getexif().get(274) is None
    got,want = np.asarray(got).astype(int),np.asarray(want).astype(int)
    if want.ndim == 2: want = want[...,None].repeat(3, -1)
    assert got.shape == want.shape
    assert abs(got-want).max() <= tol

# What a viewer does with the stored rows for each orientation, from the EXIF standard and in numpy, not in Pillow's terms
TURN = {1:lambda a: a, 2:lambda a: a[:,::-1], 3:lambda a: a[::-1,::-1], 4:lambda a: a[::-1], 5:lambda a: a.transpose(1,0,2),
        6:lambda a: np.rot90(a, -1), 7:lambda a: a[::-1,::-1].transpose(1,0,2), 8:lambda a: np.rot90(a)}

def exif(o):
    e = Image.Exif()
    e[274] = o
    return e

@pytest.mark.parametrize('o', TURN)
@pytest.mark.parametrize('fmt,kwargs', [('JPEG',dict(quality=90)), ('PNG',{}), ('TIFF',{}), ('TIFF',dict(compression='tiff_lzw')), ('WEBP',dict(lossless=True))])
def test_orientation(im, o, fmt, kwargs, tmp_path):
    data = encode(im, fmt, exif=exif(o), **kwargs)
    stored = np.asarray(im) if fmt != 'JPEG' else np.asarray(Image.open(io.BytesIO(encode(im, fmt, **kwargs))))
    same(data, TURN[o](stored))
    f = tmp_path/'x.img'
    f.write_bytes(data)
    row = scan_images(f).iloc[0]
    assert (row.exif, row.height, row.width) == (o, *TURN[o](stored).shape[:2])

def test_orientation_by_eye():
    "Stored red-green over blue-white; what each orientation shows, written out"
    stored = np.array([['r','g'],['b','w']])
    rgb = dict(r=(255,0,0), g=(0,255,0), b=(0,0,255), w=(255,255,255))
    shows = {1:'rg/bw', 2:'gr/wb', 3:'wb/gr', 4:'bw/rg', 5:'rb/gw', 6:'br/wg', 7:'wg/br', 8:'gw/rb'}
    pixels = np.array([[rgb[c] for c in row] for row in stored], np.uint8)
    for o,text in shows.items(): same(encode(Image.fromarray(pixels), 'PNG', exif=exif(o)), [[rgb[c] for c in row] for row in text.split('/')])

def test_orientation_heic(im, tmp_path):
    import pillow_heif
    f = io.BytesIO()
    side = Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(im))))
    pillow_heif.from_pillow(side).save(f, quality=-1, chroma=444, exif=exif(6).tobytes())
    got = open_image(f.getvalue())
    assert got.size == im.size
    assert abs(np.asarray(got).astype(int)-np.asarray(im)).mean() < 3  # Its YCbCr rounds, so not exact

@pytest.mark.parametrize('notes', [exif(0).tobytes(), exif(9).tobytes(), exif(999).tobytes(), b'Exif\0\0nonsense', b'',
    b'Exif\0\0II*\0' + struct.pack('<IHHHI4sI', 8, 1, 274, 2, 4, b'six\0', 0)])
@pytest.mark.parametrize('fmt', ['PNG', 'WEBP'])
def test_orientation_nonsense(fmt, notes):
    same(encode(picture(), fmt, exif=notes, **(dict(lossless=True) if fmt == 'WEBP' else {})), picture())

def grey(im): return np.asarray(im.convert('L'))

@pytest.mark.parametrize('kind', ['png', 'tiff II', 'tiff MM', 'tiff lzw', 'pgm', 'tiff inverted', 'tiff signed', 'tiff uint32', 'png L+tRNS'])
def test_16_bit_grey(im, kind):
    g = grey(im)
    a = g.astype(np.uint16)*257
    data = {'png': lambda: encode(Image.fromarray(a), 'PNG'), 'tiff II': lambda: tiff(a, 1), 'tiff MM': lambda: tiff(a, 1, order='>'),
        'tiff lzw': lambda: encode(Image.fromarray(a), 'TIFF', compression='tiff_lzw'), 'pgm': lambda: encode(Image.fromarray(a), 'PPM'),
        'tiff inverted': lambda: tiff(65535-a, 0), 'tiff signed': lambda: tiff((a >> 1).astype(np.int16), 1, sample=2),
        'tiff uint32': lambda: tiff(a.astype(np.uint32), 1),
        'png L+tRNS': lambda: png(a, 16, 0, trns=int(a[0,0]).to_bytes(2, 'big'))}[kind]()
    same(data, np.where(g == g[0,0], 255, g) if 'tRNS' in kind else g)
    plain = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    assert abs(plain[...,0].astype(int)-g).mean() > 10  # What this guards against: nearly all of it clipped, or inverted

def test_16_bit_is_scaled_not_rounded_away():
    a = np.arange(2**16, dtype=np.uint16).reshape(256,256)
    same(encode(Image.fromarray(a), 'PNG'), a >> 8)

@pytest.mark.parametrize('kind', ['png', 'png alpha', 'png grey alpha', 'tiff II', 'tiff MM'])
def test_16_bit_color(im, kind):
    a = np.asarray(im).astype(np.uint16)*257
    opaque = np.full((*a.shape[:2],1), 65535, np.uint16)
    g = grey(im).astype(np.uint16)[...,None]*257
    same({'png': lambda: png(a, 16, 2), 'png alpha': lambda: png(np.concatenate([a,opaque], -1), 16, 6),
          'png grey alpha': lambda: png(np.concatenate([g,opaque], -1), 16, 4), 'tiff II': lambda: tiff(a, 2),
          'tiff MM': lambda: tiff(a, 2, order='>')}[kind](), grey(im) if 'grey' in kind else im)

def test_12_bit():
    a = np.arange(256).reshape(16,16)*16
    same(tiff(a, 1, bits=12, data=b''.join(bytes([x >> 4, (x & 15) << 4 | y >> 8, y & 255]) for x,y in a.reshape(-1,2).tolist())), a >> 4)

@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('scale', ['0..1', '0..255', '0..65535', 'inverted'])
def test_float(im, scale, order):
    g = grey(im)
    a = {'0..1':g/255, '0..255':g, '0..65535':g.astype(float)*257, 'inverted':1-g/255}[scale].astype(np.float32)
    same(tiff(a, 0 if scale == 'inverted' else 1, sample=3, order=order), g, tol=scale == 'inverted')

def test_float_of_any_range():
    a = np.linspace(-40, 90, 256, dtype=np.float32).reshape(16,16)
    same(tiff(a, 1, sample=3), np.arange(256).reshape(16,16), tol=1)
    same(tiff(np.linspace(0, 1.3, 256, dtype=np.float32).reshape(16,16), 1, sample=3), np.arange(256).reshape(16,16), tol=1) # Not clipped at 1
    a[0,:3] = np.nan,np.inf,-np.inf
    got = np.asarray(open_image(tiff(a, 1, sample=3)))[...,0]
    assert got[0,:3].tolist() == [0,255,0] and got[15,15] == 255
    for v in (np.nan, 7.3, -3e38, np.inf): assert len(np.unique(open_image(tiff(np.full((4,4), v, np.float32), 1, sample=3)))) == 1
    same(tiff(np.array([[-3e38,3e38]], np.float32), 1, sample=3), [[0,255]])

def test_32_bit_int():
    a = np.arange(256, dtype=np.uint32).reshape(16,16)
    same(tiff(a*(2**32//256), 1), a, tol=1)  # Half of it is negative to Pillow
    same(tiff(a, 1), a)

def alpha_of(im):
    h,w = im.height,im.width
    return np.linspace(0, 255, w).astype(np.uint8)[None].repeat(h, 0)

def on_white(rgb, alpha):
    a = np.asarray(alpha)[...,None]/255
    return np.rint(np.asarray(rgb)*a + 255*(1-a))

@pytest.mark.parametrize('fmt,kwargs', [('PNG',{}), ('TIFF',{}), ('WEBP',dict(lossless=True, exact=True))])
def test_alpha(im, fmt, kwargs):
    a = alpha_of(im)
    rgba = Image.fromarray(np.dstack([np.asarray(im), a]))
    same(encode(rgba, fmt, **kwargs), on_white(im, a), tol=1)
    assert (np.asarray(open_image(encode(rgba, fmt, **kwargs)))[:,0] == 255).all()  # Where nothing shows, white shows

def test_grey_alpha(im):
    a = alpha_of(im)
    la = Image.merge('LA', (im.convert('L'), Image.fromarray(a)))
    same(encode(la, 'PNG'), on_white(grey(im)[...,None].repeat(3, -1), a), tol=1)
    same(tiff(np.dstack([grey(im),a]), 1, tags={338:(3,2)}.items()), on_white(grey(im)[...,None].repeat(3, -1), a), tol=1)
    dark = (grey(im)*(a/255)).astype(np.uint8)  # Multiplied by its opacity already
    data = tiff(np.dstack([dark,a]), 1, tags={338:(3,1)}.items())
    if int(PIL.__version__.split('.')[0]) >= 13: same(data, (dark + (255.-a))[...,None].repeat(3, -1), tol=2)
    else:  # This kind alone is beyond an older Pillow
        with pytest.raises(ImageProblem, match='an unusual kind of TIFF .*save it as PNG'): open_image(data)

def test_one_transparent_color():
    rgb = np.array([[[10,20,30],[10,20,31]]])
    same(png(rgb, 8, 2, trns=bytes([0,10,0,20,0,30])), [[[255]*3,[10,20,31]]])
    same(png(rgb*257, 16, 2, trns=b'\x0a\x0a\x14\x14\x1e\x1e'), [[[255]*3,[10,20,31]]])
    same(png(np.array([[[0x1a33,0x2b44,0x3c55],[0x3344,0x4455,0x5566]]]), 16, 2, trns=b'\x1a\x33\x2b\x44\x3c\x55'), [[[255]*3,[0x33,0x44,0x55]]])
    same(png(np.array([[7,9]]), 8, 0, trns=b'\0\7'), [[255,9]])
    same(png(np.array([[0,1,2,3]]), 2, 0, trns=b'\0\1'), [[0,255,170,255]])
    same(png(np.array([[0,5,15,5]]), 4, 0, trns=b'\0\5'), [[0,255,255,255]])
    same(png(np.array([[0,1,0,1,1,1,1,1]]), 1, 0, trns=b'\0\0'), [[255]*8])

def test_cmyk(im):
    rgb = np.asarray(im).astype(int)
    k = 255-rgb.max(-1, keepdims=True)
    cmyk = np.concatenate([255-rgb-k, k], -1).clip(0, 255).astype(np.uint8)
    want = (255-cmyk[...,:3].astype(int)) * (255-cmyk[...,3:].astype(int)) / 255
    c = Image.frombytes('CMYK', im.size, cmyk.tobytes())
    same(encode(c, 'TIFF'), want, tol=1)
    jpg = encode(c, 'JPEG', quality=100, subsampling=0)
    assert b'Adobe' in jpg[:200]  # Stored inverted
    got = np.asarray(open_image(jpg)).astype(int)
    assert abs(got-want).mean() < 2  # A negative would be a hundred away

def test_other_colors(im):
    ycc = encode(im.convert('YCbCr'), 'TIFF')
    assert Image.open(io.BytesIO(ycc)).tag_v2[262] == 6  # Stored as YCbCr; Pillow before 13 shows it as RGB
    same(ycc, im, tol=3)
    lab = Image.merge('LAB', [Image.new('L', (4,4), v) for v in (137, 128, 128)])  # L* = 53.7, no colour: a middle grey
    same(encode(lab, 'TIFF'), np.full((4,4), 128), tol=2)
    same(encode(im.convert('L'), 'JPEG', quality=100), grey(im), tol=3)
    one = im.convert('1')
    for fmt in ('PNG', 'TIFF', 'BMP'): same(encode(one, fmt), np.asarray(one)*255)

@pytest.mark.parametrize('fmt', ['PNG', 'GIF', 'TIFF', 'BMP'])
def test_palette(im, fmt):
    p = im.quantize(64)
    colors = np.array(p.getpalette()).reshape(-1,3)
    same(encode(p, fmt), colors[np.asarray(p)])

@pytest.mark.parametrize('fmt', ['PNG', 'GIF'])
def test_palette_with_transparency(im, fmt):
    p = im.quantize(64)
    i = np.asarray(p)
    want = np.array(p.getpalette()).reshape(-1,3)[i]
    want[i == i[0,0]] = 255
    same(encode(p, fmt, transparency=int(i[0,0])), want)
    if fmt == 'PNG':  # Opacity for each colour
        a = np.linspace(0, 255, 64).astype(np.uint8)
        same(encode(p, fmt, transparency=a.tobytes()), on_white(np.array(p.getpalette()).reshape(-1,3)[i], a[i]), tol=1)

@pytest.mark.parametrize('fmt,kwargs', [('GIF',{}), ('PNG',{}), ('WEBP',dict(lossless=True)), ('TIFF',{}), ('AVIF',dict(quality=100))])
def test_first_frame(fmt, kwargs):
    frames = [Image.new('RGB', (16,16), c) for c in ('red','blue','lime')]
    same(encode(frames[0], fmt, save_all=True, append_images=frames[1:], **kwargs), frames[0], tol=4*(fmt == 'AVIF'))

@pytest.mark.parametrize('fmt,kwargs', [('WEBP',dict(lossless=True)), ('JPEG2000',{}), ('PPM',{}), ('BMP',{}), ('QOI',{}), ('GIF',None)])
def test_lossless_formats(im, fmt, kwargs):
    if kwargs is None: im,kwargs = im.quantize(32).convert('RGB'),{}
    same(encode(im, fmt, **kwargs), im)

def test_heic_and_avif(im):
    import pillow_heif
    f = io.BytesIO()
    pillow_heif.from_pillow(im).save(f, quality=95)
    for data in (f.getvalue(), encode(im, 'AVIF', quality=95)):
        got = open_image(data)
        assert got.size == im.size and abs(np.asarray(got).astype(int)-np.asarray(im)).mean() < 6

def test_heif_is_not_registered_for_others():
    code = "import io\nfrom PIL import Image\nfrom garbage_fastai.images import open_image\nfrom bad_files import _heic\nopen_image(_heic())\nassert 'HEIF' not in Image.OPEN"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parent)

# ------------------------------------------------------------------------------------------------- ways in

def test_ways_in(tmp_path, monkeypatch):
    data = encode(picture(), 'PNG')
    f = tmp_path/'x.png'
    f.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with open(f, 'rb') as opened:
        opened.read(5)
        for o in (f, str(f), 'x.png', data, bytearray(data), memoryview(data), io.BytesIO(data), opened): same(o, picture())
    with pytest.raises(TypeError, match='binary mode'): open_image(io.StringIO('x'))
    with pytest.raises(TypeError, match='not int'): open_image(3)

def test_problem_names_file_and_reason(tmp_path):
    f = tmp_path/'x.jpg'
    f.write_bytes(b'')
    with pytest.raises(ImageProblem) as e: open_image(f)
    assert str(e.value) == f'{f}: empty file: 0 bytes; copy it again' and e.value.reason.startswith('empty') and e.value.path == f
    assert isinstance(e.value, ValueError) and str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    with pytest.raises(ImageProblem, match='^no such file$|no such file'): open_image(tmp_path/'gone.jpg')
    for odd in ('a\0b', 'x'*5000, ''):
        with pytest.raises(ImageProblem): open_image(odd)
    if os.path.exists('/dev/zero'):
        with pytest.raises(ImageProblem, match='is a device'): open_image('/dev/zero')

@pytest.mark.parametrize('o', [1, 6])
def test_draft(o):
    im = picture((1600,1200))
    jpg = encode(im, 'JPEG', quality=90, exif=exif(o))
    full = open_image(jpg)
    for want in ((224,224), (400,300), (401,300), (300,400), (1,1), (1600,1200), (5000,5000)):
        got = open_image(jpg, draft=want)
        assert all(g >= min(w, f) for g,w,f in zip(got.size, want, full.size)) or got.size == full.size
    assert open_image(jpg, draft=(200,150) if o == 1 else (150,200)).size == ((200,150) if o == 1 else (150,200))
    assert open_image(encode(im, 'PNG'), draft=(10,10)).size == im.size
    for fmt in ('CMYK', 'L'): assert open_image(encode(im.convert(fmt), 'JPEG'), draft=(100,100)).size == (200,150)

# ------------------------------------------------------------------------------------------------- bad files

WORDS = {'empty':'empty file', 'text':'text', 'truncated':'truncated: the file ends early; copy it again', 'noise':'begins as no picture', 'damaged':'damaged',
    'zeros':'nothing but zeros', 'web page':'web page', 'svg':'SVG', 'pdf':'PDF', 'zip':'ZIP', 'video':'video', 'npy':'NumPy', 'git lfs':'git lfs pull',
    'photoshop':'Photoshop', 'raw':'RAW', 'bomb':'too many pixels', 'dangling':'broken link: it points to gone.jpg', 'loop':'leads back to itself',
    'folder':'is a folder', 'pipe':'is a pipe', 'locked':'no permission'}

def state(folder):
    "Everything about a folder that could be changed"
    out = {}
    for p in sorted(Path(folder).rglob('*'), key=str):
        s = p.lstat()
        plain = p.is_file() and not p.is_symlink() and os.access(p, os.R_OK)
        out[str(p)] = s.st_mode,s.st_size,s.st_mtime_ns,s.st_ino,plain and hashlib.sha256(p.read_bytes()).hexdigest()
    return out

@pytest.mark.parametrize('workers', [0, 2])
def test_bad_files(tmp_path, workers, recwarn):
    folder = tmp_path/'photos'
    kinds = make_bad_files(folder/'bad')
    (folder/'good').mkdir()
    encode_to = folder/'good'/'a.jpg'
    picture().save(encode_to)
    before,start = state(folder),time.time()
    table = scan_images(folder, workers=workers)
    assert time.time()-start < 10
    assert state(folder) == before
    assert table.path[table.ok].tolist() == [str(encode_to)]
    bad = table[~table.ok]
    assert [Path(p).name for p in bad.path] == sorted(kinds) and len(set(kinds.values())) >= 20 and len(kinds) >= 22
    for name,reason in zip(map(os.path.basename, bad.path), bad.reason):
        assert WORDS[kinds[name]] in reason and reason.isprintable() and len(reason) < 200, (name, reason)
    assert (table.reason[table.ok] == '').all() and set(bad.label) == {'bad'} and bad.brightness.isna().all()
    assert not recwarn.list

@pytest.mark.parametrize('lenient', [False, True])
def test_bad_files_one_by_one(tmp_path, monkeypatch, lenient):
    "The same through `open_image`, with warnings made errors and Pillow's switches turned to let everything pass"
    kinds = make_bad_files(tmp_path)
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', lenient)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', None if lenient else 10)
    for name in kinds:
        with pytest.raises(ImageProblem): open_image(tmp_path/name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES == lenient and Image.MAX_IMAGE_PIXELS == (None if lenient else 10)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for fmt in ('JPEG', 'PNG', 'TIFF', 'GIF', 'BMP'): assert open_image(encode(picture(), fmt)).size == (96,64)

def test_limit_is_exact(monkeypatch):
    monkeypatch.setattr(images, 'MAX_PIXELS', 96*64)
    for fmt in ('JPEG', 'PNG', 'TIFF', 'GIF', 'BMP', 'WEBP'):
        open_image(encode(picture(), fmt))
        with pytest.raises(ImageProblem, match='too many pixels: 97x64'): open_image(encode(picture((97,64)), fmt))
    monkeypatch.setattr(images, 'MAX_BYTES', 100)
    with pytest.raises(ImageProblem): open_image(io.BytesIO(encode(picture(), 'PNG')))

def test_no_permission(tmp_path, monkeypatch):
    "As for someone who is not the administrator"
    f = tmp_path/'x.jpg'
    f.write_bytes(b'x')
    def refuse(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(images, 'open', refuse, raising=False)
    assert scan_images(f).reason[0].startswith('no permission to read')
    monkeypatch.setattr(images.os, 'scandir', refuse)
    monkeypatch.setattr(images.os, 'access', lambda *args: False)
    assert scan_images(tmp_path).reason.tolist() == ['no permission to read this folder']

def test_disk_error(tmp_path, monkeypatch):
    f = tmp_path/'x.jpg'
    f.write_bytes(b'x')
    def fail(*args, **kwargs): raise OSError(5, 'Input/output error')
    monkeypatch.setattr(images, 'open', fail, raising=False)
    assert 'Input/output error' in scan_images(f).reason[0]

GOOD = {fmt: encode(picture((48,40)), fmt, **kw) for fmt,kw in (('JPEG',dict(exif=exif(6))), ('PNG',dict(exif=exif(6))), ('WEBP',{}), ('GIF',{}),
    ('TIFF',dict(compression='tiff_lzw')), ('BMP',{}), ('AVIF',{}), ('JPEG2000',{}), ('QOI',{}), ('PPM',{}))}
GOOD |= {'JPEG progressive': encode(picture((48,40)), 'JPEG', progressive=True), 'PNG 16': encode(Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40,50)*30), 'PNG')}
SLOW = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

def only_problems(data):
    "Opens, or raises `ImageProblem`; whether at full or at reduced size makes no difference"
    got = []
    for draft in (None, (8,8)):
        try: got.append(open_image(data, draft=draft).mode)
        except ImageProblem as e: got.append('bad'); assert e.reason.isprintable()
    assert got[0] == got[1]
    return got[0]

@SLOW
@given(fmt=st.sampled_from(['JPEG', 'JPEG progressive', 'PNG', 'PNG 16']), share=st.floats(0, 1), zeros=st.booleans())
def test_any_truncation(fmt, share, zeros):
    data = GOOD[fmt]
    n = min(int(len(data)*share), len(data)-9)
    assert only_problems(data[:n].ljust(len(data), b'\0') if zeros else data[:n]) == 'bad'

@SLOW
@given(fmt=st.sampled_from(sorted(GOOD)), flips=st.lists(st.tuples(st.floats(0, .9999), st.integers(1, 255)), min_size=1, max_size=8),
       head=st.booleans(), share=st.none() | st.floats(0, 1))
def test_any_damage(fmt, flips, head, share):
    data = bytearray(GOOD[fmt])
    for at,mask in flips: data[int(at*(min(64, len(data)) if head else len(data)))] ^= mask
    only_problems(bytes(data if share is None else data[:int(len(data)*share)]))

@SLOW
@given(st.binary(max_size=64), st.sampled_from([o for o,_ in images._MAGIC] + [b'BM', b'RIFF\0\0\0\0WEBP', b'P5 ', b'\0\0\0\x18ftypheic', b'']))
def test_any_bytes(data, magic): assert only_problems(magic + data) == 'bad' or magic == b'P5 '

# ------------------------------------------------------------------------------------------------- finding files

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

# ------------------------------------------------------------------------------------------------- the table

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

# ------------------------------------------------------------------------------------------------- processes

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
    monkeypatch.setattr(images, 'ProcessPoolExecutor', lambda n, **kw: ProcessPool(n, mp_context=ctx, **kw))
    from concurrent.futures import ProcessPoolExecutor as ProcessPool
    kill,decode = {(forty/f'{i:02}.jpg').read_bytes() for i in (7, 31)},images.decode_image
    monkeypatch.setattr(images, 'decode_image', lambda data, *args: os._exit(9) if data in kill else decode(data, *args))
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
