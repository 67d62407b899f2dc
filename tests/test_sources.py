"The same photo, given in every way that people have it: one answer, in the order of the question"
import gc, gzip, io, socket, sys, tarfile, tempfile, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from fastai.vision.all import PILImage, TensorImage, get_image_files, image2tensor

from bad_files import png
from conftest import call, fails
from garbage_fastai import sources
from garbage_fastai.data import build_dataloaders
from garbage_fastai.export import Predictor, export_model
from garbage_fastai.images import ImageProblem, open_image
from garbage_fastai.scan import scan_images
from garbage_fastai.learner import build_learner
from garbage_fastai.predict import predict_images
from garbage_fastai.sort import predict_photos
from garbage_fastai.sources import fetch_photo, photo_table, video_frames
from garbage_fastai.splits import split_images
from garbage_fastai.predictions import class_columns

@pytest.fixture(scope='module')
def learn(sample_dir):
    table = split_images(scan_images(sample_dir, progress=False), (.5,.25,.25), groups=None)
    return build_learner(build_dataloaders(table, size=48, bs=8, seed=1), 'resnet10t', weights='none', precision='fp32')

@pytest.fixture(scope='module')
def model(learn, tmp_path_factory): return export_model(learn, tmp_path_factory.mktemp('model')/'model')

@pytest.fixture(scope='module')
def predictor(model): return Predictor(model, 'fp32')

@pytest.fixture(scope='module')
def files(sample_dir): return [str(f) for f in sorted(get_image_files(sample_dir))]

def probs(preds): return preds[class_columns(preds)].to_numpy()

def save(im, **kwargs):
    file = io.BytesIO()
    im.save(file, **{'format':'PNG', **kwargs})
    return file.getvalue()

def all_ways(path):
    im = Image.open(path)
    whole = np.array(im)
    return dict(path=str(path), Path=Path(path), data=Path(path).read_bytes(), bytearray=bytearray(Path(path).read_bytes()), opened=open(path, 'rb'), memory=io.BytesIO(Path(path).read_bytes()), lazy=Image.open(path),
                loaded=im.convert('RGB'), fastai=PILImage.create(path), array=whole, floats=whole/255, half=(whole/255).astype(np.float32), sixteen=whole.astype(np.uint16)*257, flipped_twice=whole[::-1][::-1],
                tensor=image2tensor(im), tensor_image=TensorImage(image2tensor(im)), floats_first=image2tensor(im)/255)

@pytest.mark.parametrize('kind', ['png', 'jpg'])
def test_one_photo_in_all_ways(kind, predictor, learn, files, tmp_path):
    "Also a photo that is large against the network's input, where a JPEG could be decoded at a quarter"
    path = tmp_path/f'photo.{kind}'
    Image.open(files[0]).resize((640,480)).save(path, quality=90)
    ways = all_ways(path)
    want = probs(predictor.predict(str(path), progress=False))
    for model in (predictor.predict, lambda *a, **k: predict_images(learn, *a, **k)):
        got = model(list(ways.values()), progress=False)
        assert got['ok'].all(), got[['path','reason']]
        assert dict(zip(ways, abs(probs(got)-want).max(1) <= 1e-6)) == dict.fromkeys(ways, True)
    for name,o in ways.items():
        one = predictor.predict(o, progress=False)
        assert len(one) == 1 and abs(probs(one)-want).max() <= 1e-6, name

def test_archive_address_and_video_agree_with_the_file(predictor, files, tmp_path, server):
    photo = Path(files[0]).read_bytes()
    server.pages['/a.jpg'] = photo
    with zipfile.ZipFile(tmp_path/'some.zip', 'w') as f: f.writestr('in/a.jpg', photo)
    with tarfile.open(tmp_path/'some.tar.gz', 'w:gz') as f: f.add(files[0], 'a.jpg')
    table = photo_table([tmp_path/'some.zip', tmp_path/'some.tar.gz', server.url('/a.jpg')], allow_private=True)
    got = predictor.predict(table, progress=False)
    assert got['path'].tolist() == [f'{tmp_path}/some.zip/in/a.jpg', f'{tmp_path}/some.tar.gz/a.jpg', server.url('/a.jpg')]
    assert abs(probs(got)-probs(predictor.predict(files[0], progress=False))).max() <= 1e-6

def pictures():
    "Pictures in every mode that a program may hold, with the bytes of a file for each"
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (24,32,4), dtype=np.uint8)
    rgb,rgba = Image.fromarray(a[...,:3].copy()),Image.fromarray(a)
    grey = Image.fromarray(a[...,0].copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    pal = rgb.quantize(16)
    clear = grey.copy()
    return dict(rgb=save(rgb), grey=save(grey), alpha=save(rgba), grey_alpha=save(grey.convert('LA')), bits=save(grey.convert('1')), palette=save(pal), clear_palette=save(pal, transparency=3),
                clear_grey=save(clear, transparency=int(a[0,0,0])), turned=save(rgb, exif=exif), turned_jpeg=save(rgb, format='JPEG', exif=exif), cmyk=save(rgb.convert('CMYK'), format='JPEG'),
                deep=save(Image.fromarray(rng.integers(0, 2**16, (24,32), dtype=np.uint16))), tiff_float=save(Image.fromarray(rng.random((24,32), dtype=np.float32)), format='TIFF'),
                tiff=save(rgb, format='TIFF'), tiff_turned=save(rgb, format='TIFF', tiffinfo={0x0112:6}), gif=save(pal, format='GIF'), webp=save(rgba, format='WEBP', lossless=True), bmp=save(rgb, format='BMP'))

@pytest.mark.parametrize('name', sorted(pictures()))
def test_a_picture_is_treated_as_its_file(name):
    data = pictures()[name]
    want = np.asarray(open_image(data))
    im = Image.open(io.BytesIO(data))
    for o in (im, im, im.copy()):  # as it is opened, and once it is loaded
        before = (o.mode, o.size, dict(o.info))
        assert np.array_equal(np.asarray(open_image(o)), want)
        assert (o.mode, o.size) == before[:2] and set(before[2]) <= set(o.info)

@pytest.mark.parametrize('mode', ['L','LA','RGB','RGBA'])
def test_an_array_is_treated_as_its_file(mode):
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24,32,4), dtype=np.uint8)).convert(mode)
    want = np.asarray(open_image(save(im)))
    for a in (np.array(im), np.array(im)/255): assert np.array_equal(np.asarray(open_image(a)), want)
    a = torch.tensor(np.array(im))
    assert np.array_equal(np.asarray(open_image(a if mode=='L' else a.permute(2,0,1))), want)

@pytest.mark.parametrize('a,bits,color,clear', [([[0,5,15,5]], 4, 0, b'\0\5'), ([[0,1,2,3]], 2, 0, b'\0\1'), ([[[0x1a33,0x2b44,0x3c55],[1,2,3]]], 16, 2, b'\x1a\x33\x2b\x44\x3c\x55'), ([[[1,2,3],[257,514,771]]], 16, 2, b'\0\1\0\2\0\3')])
def test_a_png_of_few_or_many_bits_with_a_clear_color(a, bits, color, clear, tmp_path):
    "The clear colour is given in the file's own depth, which a loaded picture does not know any more"
    data = png(np.array(a), bits, color, trns=clear)
    (tmp_path/'a.png').write_bytes(data)
    im = Image.open(tmp_path/'a.png')
    for o in (im, im): assert np.array_equal(np.asarray(open_image(o)), np.asarray(open_image(data)))

@pytest.mark.parametrize('a,says', [(np.zeros((8,8,3), int), 'give uint8'), (np.zeros((8,8,3), bool), 'give uint8'), (np.full((8,8,3), 200.), 'between 0 and 1'), (np.full((8,8), np.nan), 'between 0 and 1'),
    (np.zeros((3,8,9), np.uint8), 'transpose'), (np.zeros((8,8,5), np.uint8), 'height x width'), (np.zeros(8, np.uint8), 'height x width'), (np.zeros((0,8,3), np.uint8), 'height x width'),
    (torch.zeros(8,9,3), 'permute'), (torch.full((3,8,8), 2.), 'between 0 and 1')])
def test_what_could_be_meant_in_two_ways_is_refused(a, says, predictor, files):
    row = predictor.predict([files[0], a, files[0]], progress=False).iloc[1]
    assert not row['ok'] and says in row['reason'] and '\n' not in row['reason']
    assert row['path'] == 'photos[1]' and np.isnan(row['confidence']) and row['predicted'] == ''

def test_a_batch_is_a_list(predictor, files):
    a = np.stack([np.array(Image.open(f)) for f in files[:3]])
    for batch in (a, torch.tensor(a).permute(0,3,1,2)):
        got = predictor.predict(batch, progress=False)
        assert abs(probs(got)-probs(predictor.predict(files[:3], progress=False))).max() <= 1e-6

def test_a_broken_picture_is_a_row(predictor, files):
    data = Path(files[0]).read_bytes()
    cut = Image.open(io.BytesIO(data[:len(data)//2]))
    with tempfile.TemporaryFile('w+') as text: got = predictor.predict([cut, files[0], io.StringIO('text'), text, data[:50], None, 3], progress=False)
    assert got['ok'].tolist() == [False, True, False, False, False, False, False]
    assert got['reason'].astype(bool).tolist() == [True, False, True, True, True, True, True]

def test_files_inside_of_files(predictor, files, tmp_path):
    "Whatever can be read gives bytes, also where its mode is no text"
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as f: f.write(files[0], 'a.jpg')
    (tmp_path/'a.gz').write_bytes(gzip.compress(Path(files[0]).read_bytes()))
    with zipfile.ZipFile(tmp_path/'a.zip') as f, f.open('a.jpg') as inside, gzip.open(tmp_path/'a.gz') as packed:
        got = predictor.predict([inside, packed], progress=False)
    assert got['ok'].all(), got['reason'].tolist()

def test_the_same_lazy_picture_often(predictor, files):
    "Threads decode; two of them never load one picture, or read one file, at the same time"
    im,file = Image.open(files[0]),open(files[1], 'rb')
    got = predictor.predict([im, file]*40, bs=7, workers=8, progress=False)
    assert got['ok'].all()
    want = probs(predictor.predict(files[:2], progress=False))
    assert abs(probs(got)-np.tile(want, (40,1))).max() <= 1e-6

@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(['str','Path','data','picture','array','missing'])), max_size=12), st.integers(1, 5))
def test_a_list_is_answered_row_for_row(predictor, files, asked, bs):
    make = dict(str=str, Path=Path, data=lambda f: Path(f).read_bytes(), picture=Image.open, array=lambda f: np.array(Image.open(f)), missing=lambda f: f+'x')
    want = probs(predictor.predict(files[:8], progress=False))
    got = predictor.predict([make[kind](files[i]) for i,kind in asked], bs=bs, progress=False)
    assert len(got) == len(asked) and got['ok'].tolist() == [kind!='missing' for _,kind in asked]
    for row,(i,kind) in zip(range(len(asked)), asked):
        if kind!='missing': assert abs(probs(got)[row]-want[i]).max() <= 1e-6
        if kind in ('str','Path'): assert got['path'][row] == files[i]

def test_folders_in_a_list(predictor, sample_dir, files):
    "Each folder's photos are sorted, in its place; a folder alone is sorted as well"
    glass,metal = sample_dir/'glass',sample_dir/'metal'
    inside = lambda d: sorted(str(f) for f in d.iterdir())
    asked = [metal, files[0], glass, files[0]]
    assert photo_table(asked)['path'].tolist() == [*inside(metal), files[0], *inside(glass), files[0]]
    assert photo_table(sample_dir)['path'].tolist() == files
    assert photo_table(iter([files[3], files[1]]))['path'].tolist() == photo_table(np.array([files[3], files[1]]))['path'].tolist() == [files[3], files[1]]
    assert photo_table(pd.Series([files[3], files[1]], index=[5,5]))['path'].tolist() == [files[3], files[1]]

def test_a_table_with_a_repeated_index_and_paths(learn, files):
    cache = {}
    t = pd.concat([pd.DataFrame(dict(path=[Path(f) for f in files[i:i+2]], label=Path(files[i]).parent.name)) for i in (0,20)])
    assert not t.index.is_unique
    got = predict_images(learn, t, progress=False, cache=cache)
    want = predict_images(learn, pd.DataFrame(dict(path=files[0:2]+files[20:22])), progress=False)
    assert got['path'].tolist() == want['path'].tolist() and set(got['path']) == set(cache) and np.allclose(probs(got), probs(want), atol=1e-6)
    assert got['loss'].notna().all() and got.index.tolist() == [0,1,2,3]

def test_a_cache_takes_nothing_without_a_path(learn, files):
    "Else the pictures of another call would be answered with those of this one"
    cache = {}
    a = predict_images(learn, [Image.open(files[0])], progress=False, cache=cache)
    b = predict_images(learn, [np.array(Image.open(files[30]))], progress=False, cache=cache)
    assert not cache and abs(probs(a)-probs(b)).max() > 1e-6

def test_nothing_is_opened_for_a_list_of_paths(files, monkeypatch):
    def never(*args): raise AssertionError('opened')
    monkeypatch.setattr('builtins.open', never)
    assert len(photo_table(files)) == len(files)

def test_an_archive_is_unpacked_for_as_long_as_needed(predictor, sample_dir, tmp_path, monkeypatch):
    (tmp_path/'tmp').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path/'tmp'))
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as f:
        for p in sorted((sample_dir/'glass').iterdir()): f.write(p, f'glass/{p.name}')
        f.writestr('glass/zz.jpg', 'no photo')
    before = (tmp_path/'a.zip').read_bytes()
    got = predictor.predict(tmp_path/'a.zip', progress=False)
    assert len(got) == 13 and got['ok'].sum() == 12 and got['path'].iloc[0] == f"{tmp_path/'a.zip'}/glass/glass_001.jpg"
    gc.collect()
    assert not list((tmp_path/'tmp').iterdir()) and (tmp_path/'a.zip').read_bytes() == before

def test_a_bad_archive_in_a_list_is_a_row(predictor, files, tmp_path):
    (tmp_path/'bad.zip').write_bytes(b'PK no archive')
    got = predictor.predict([tmp_path/'bad.zip', files[0]], progress=False)
    assert got['ok'].tolist() == [False,True] and got['reason'][0]
    with pytest.raises(ValueError, match='bad.zip'): predictor.predict(tmp_path/'bad.zip', progress=False)

class Server(ThreadingHTTPServer):
    pages = {}
    def url(self, path): return f'http://127.0.0.1:{self.server_port}{path}'

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        page = self.server.pages.get(self.path)
        if page is None: return self.send_error(404)
        if isinstance(page, str):
            self.send_response(302)
            self.send_header('Location', page)
            return self.end_headers()
        if callable(page): return page(self)
        self.send_response(200)
        self.send_header('Content-Length', len(page))
        self.end_headers()
        self.wfile.write(page)

@pytest.fixture
def server():
    s = Server(('127.0.0.1', 0), Handler)
    s.pages = {}
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()

def refused(url, says, **kwargs):
    start = time.monotonic()
    with pytest.raises(ImageProblem, match=says) as e: fetch_photo(url, **{'allow_private':True, **kwargs})
    assert e.value.path == url and '\n' not in e.value.reason
    return time.monotonic()-start

def test_own_network_only_where_allowed(server, files, predictor, monkeypatch):
    server.pages['/a.jpg'] = Path(files[0]).read_bytes()
    url = server.url('/a.jpg')
    row = predictor.predict([url, files[0]], progress=False)
    assert row['ok'].tolist() == [False,True] and 'own network' in row['reason'][0] and row['path'][0] == url
    assert fetch_photo(url, allow_private=True) == server.pages['/a.jpg']
    monkeypatch.setenv('GARBAGE_FASTAI_ALLOW_PRIVATE', '1')
    assert predictor.predict(url, progress=False)['ok'].all()
    monkeypatch.setenv('GARBAGE_FASTAI_ALLOW_PRIVATE', '0')
    refused(url, 'own network', allow_private=None)

@pytest.mark.parametrize('host', ['localhost', '127.1', '2130706433', '0x7f000001', '[::1]', '[::ffff:127.0.0.1]', '0.0.0.0', '10.0.0.1', '169.254.169.254', '192.168.1.1'])
def test_every_spelling_of_a_private_address(host): refused(f'http://{host}/a.jpg', 'own network|no such host', allow_private=False)

def test_a_redirect_is_looked_at_again(server, monkeypatch):
    "The first address counts as public here, the one that it leads to does not"
    server.pages['/a'] = f'http://localhost:{server.server_port}/b'
    server.pages['/b'] = b'secret'
    look_up,public = sources._look_up,sources._is_public
    monkeypatch.setattr(sources, '_look_up', lambda host, port, s: ['1.2.3.4'] if host=='photos.example' else look_up(host, port, s))
    connect = socket.create_connection
    monkeypatch.setattr(sources.socket, 'create_connection', lambda at, *a, **k: connect(('127.0.0.1', at[1]) if at[0]=='1.2.3.4' else at, *a, **k))
    monkeypatch.setattr(sources, '_is_public', lambda a: a=='1.2.3.4' or public(a))
    refused(f'http://photos.example:{server.server_port}/a', 'localhost is inside your own network', allow_private=False)
    server.pages['/c'] = f'http://photos.example:{server.server_port}/d'
    server.pages['/d'] = b'open'
    assert fetch_photo(f'http://photos.example:{server.server_port}/c', allow_private=False) == b'open'

def test_the_address_that_was_looked_at_is_the_one_connected_to(server, monkeypatch):
    "A name that means another address at the second look-up gains nothing"
    answers = iter([['127.0.0.1']])
    monkeypatch.setattr(sources, '_look_up', lambda *a: next(answers))
    asked,connect = [],socket.create_connection
    monkeypatch.setattr(sources.socket, 'create_connection', lambda at, *a, **k: asked.append(at) or connect(at, *a, **k))
    server.pages['/a'] = b'x'
    assert fetch_photo(f'http://other.example:{server.server_port}/a', allow_private=True) == b'x'
    assert asked == [('127.0.0.1', server.server_port)]

def test_limits(server):
    server.pages['/big'] = bytes(3000)
    refused(server.url('/big'), 'limit', max_bytes=2999)
    assert len(fetch_photo(server.url('/big'), True, max_bytes=3000)) == 3000
    refused(server.url('/none'), '404')
    server.pages['/round'] = server.url('/round')
    refused(server.url('/round'), 'redirects')
    server.pages['/file'] = 'file:///etc/passwd'
    refused(server.url('/file'), 'http and https')

def test_endless_answers_end(server):
    def drip(handler, head=False):
        try:
            if not head:
                handler.send_response(200)
                handler.end_headers()
            for _ in range(100):
                handler.wfile.write(b'x')
                time.sleep(.05)
        except OSError: pass
    server.pages['/drip'],server.pages['/head'] = drip,lambda h: drip(h, True)
    for page in ('/drip','/head'): assert refused(server.url(page), 'no answer within', seconds=.4) < 2

def test_a_connection_that_breaks(server):
    def half(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', 100)
        handler.end_headers()
        handler.wfile.write(b'x'*50)
    server.pages['/half'] = half
    refused(server.url('/half'), 'broke|could not be fetched')

def test_other_addresses(predictor, monkeypatch):
    def gone(*args, **kwargs): raise socket.gaierror(-2, 'Name or service not known')
    monkeypatch.setattr(socket, 'getaddrinfo', gone)
    got = predictor.predict(['s3://bucket/a.jpg', 'https://nowhere.example/a.jpg', 'http://', 'http://host:port/a.jpg'], progress=False)
    assert not got['ok'].any() and got['reason'].str.len().all()
    assert 'http and https' in got['reason'][0] and 'no such host' in got['reason'][1]

@pytest.fixture(scope='module')
def clip(files, tmp_path_factory):
    cv2 = pytest.importorskip('cv2')
    path = tmp_path_factory.mktemp('clip')/'belt.avi'
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (96,96))
    for f in files[:40]: out.write(np.array(open_image(f))[...,::-1])
    out.release()
    return path

def test_a_row_a_frame(predictor, clip, files):
    got = predictor.predict([files[0], clip], every=8, progress=False)
    assert got['path'].tolist() == [files[0]] + [f'{clip}#frame={n}' for n in range(0, 40, 8)]
    assert got['frame'].iloc[1:].tolist() == [0,8,16,24,32] and np.allclose(got['seconds'].iloc[1:], np.arange(0, 40, 8)/25, atol=.01)
    assert got['ok'].all() and class_columns(got) == predictor.vocab
    frames = [a for _,_,a in video_frames(clip, every=8)]
    assert abs(probs(got)[1:]-probs(predictor.predict(frames, progress=False))).max() <= 1e-6

def test_frames_are_those_of_the_video(clip, files):
    for (n,_,a),f in zip(video_frames(clip, 1), files): assert abs(a.astype(int)-np.array(open_image(f))).mean() < 12, n  # JPEG once more, and the right colour first
    assert [n for n,*_ in video_frames(clip, 4, most=3)] == [0,4,8]

@settings(max_examples=10, deadline=None)
@given(order=st.lists(st.integers(0, 13), max_size=20))
def test_frames_in_any_order(clip, order):
    rows = photo_table(clip, every=3)['path']
    want = [a for _,_,a in video_frames(clip, 3)]
    for i in order: assert np.array_equal(np.array(open_image(rows[i])), want[i])

def test_a_video_without_opencv(predictor, clip, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    row = predictor.predict(clip, progress=False).iloc[0]
    assert not row['ok'] and "pip install 'garbage_fastai[video]'" in row['reason']

def test_a_broken_video(predictor, files, tmp_path):
    pytest.importorskip('cv2')
    (tmp_path/'bad.mp4').write_bytes(b'\0\0\0\x18ftypmp42' + bytes(100))
    got = predictor.predict([tmp_path/'bad.mp4', files[0]], progress=False)
    assert got['ok'].tolist() == [False,True] and 'video' in got['reason'][0]

def test_wrong_every(clip):
    for every in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match='every='): photo_table(clip, every=every)

def test_no_camera():
    pytest.importorskip('cv2')
    with pytest.raises(ImageProblem, match='camera 91'): next(video_frames(91))

def test_command(model, files, clip, tmp_path, capsys, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile('some.zip', 'w') as f: f.write(files[0], 'in/a.jpg')
    server.pages['/a.jpg'] = Path(files[0]).read_bytes()
    monkeypatch.setenv('GARBAGE_FASTAI_ALLOW_PRIVATE', '1')
    assert call('predict', model, files[1], 'some.zip', server.url('/a.jpg'), clip, files[1], '--every', 20, '--precision', 'fp32', '--out', 'p.csv') == 0
    got = pd.read_csv('p.csv')
    assert got['path'].tolist() == [files[1], 'some.zip/in/a.jpg', server.url('/a.jpg'), f'{clip}#frame=0', f'{clip}#frame=20', files[1]]
    assert got['ok'].all() and got['frame'].dropna().tolist() == [0,20]
    fails(capsys, 2, 'predict', model, 'some.zip', '--out', 'q.csv', '--copy-into', 'sorted', says='--copy-into')
    assert not Path('q.csv').exists() and not Path('sorted').exists()

def test_shards_of_a_video(model, clip):
    parts = [predict_photos(model, clip, every=5, shard=(i,3), progress=False) for i in (1,2,3)]
    whole = predict_photos(model, clip, every=5, progress=False)
    assert sorted(p for t in parts for p in t['path']) == sorted(whole['path'])
    merged = pd.concat(parts).set_index('path').loc[whole['path']]
    assert np.allclose(merged['confidence'], whole['confidence'], atol=1e-2)
