"Files that people have in their photo folders and that are no usable photos, a small one of each kind."
import io, os, struct, zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

def picture(size=(96,64)):
    "A drawn picture with flat parts, edges and a gradient, different in every corner"
    w,h = size
    y,x = np.mgrid[:h,:w]
    im = Image.fromarray(np.stack([x*255//w, y*255//h, (x+y)*255//(w+h)], -1).astype(np.uint8))
    d = ImageDraw.Draw(im)
    d.rectangle((0, 0, w//4, h//4), fill=(250,20,20))
    d.ellipse((w//2, h//3, w*7//8, h*7//8), fill=(20,200,60))
    return im

def encode(im, fmt, **kwargs):
    f = io.BytesIO()
    im.save(f, fmt, **kwargs)
    return f.getvalue()

def png_chunk(name, data): return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name+data))

def png(a, bits, color, trns=None, size=None):
    "A PNG written by hand, for kinds that Pillow cannot write: `a` holds unpacked samples (h, w) or (h, w, channels)"
    h,w = a.shape[:2]
    if bits == 16: rows = a.astype('>u2').reshape(h, -1).view(np.uint8).reshape(h, -1)
    elif bits == 8: rows = a.astype(np.uint8).reshape(h, -1)
    else: rows = np.packbits(np.unpackbits(a.astype(np.uint8)[...,None], axis=-1)[...,-bits:].reshape(h, -1), axis=1)
    raw = b''.join(b'\0' + r.tobytes() for r in rows)
    w,h = size or (w,h)
    return (b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, bits, color, 0, 0, 0)) +
            (png_chunk(b'tRNS', trns) if trns else b'') + png_chunk(b'IDAT', zlib.compress(raw)) + png_chunk(b'IEND', b''))

def tiff(a, photometric, bits=None, sample=1, order='<', data=None, tags=()):
    "An uncompressed TIFF written by hand, of the array `a` (h, w) or (h, w, channels); `data` for samples that are packed"
    h,w = a.shape[:2]
    n = a.shape[2] if a.ndim == 3 else 1
    data = data or a.astype(a.dtype.newbyteorder(order)).tobytes()
    ifd = {256:(4,w), 257:(4,h), 258:(3,[bits or a.dtype.itemsize*8]*n), 259:(3,1), 262:(3,photometric), 273:(4,0), 277:(3,n), 278:(4,h),
           279:(4,len(data)), 339:(3,[sample]*n)} | dict(tags)
    end = 8 + 2 + 12*len(ifd) + 4
    extra,body = b'',b''
    ifd[273] = 4,None
    more = sum(len(v)*2 for _,v in ifd.values() if isinstance(v, list) and len(v) > 2)
    for tag,(kind,v) in sorted(ifd.items()):
        vals = v if isinstance(v, list) else [end+more if tag == 273 else v]
        packed = struct.pack(f'{order}{len(vals)}{"H" if kind == 3 else "I"}', *vals)
        if len(packed) > 4:
            extra += packed
            packed = struct.pack(f'{order}I', end + len(extra) - len(packed))
        body += struct.pack(f'{order}HHI', tag, kind, len(vals)) + packed.ljust(4, b'\0')
    head = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}I', 8)
    return head + struct.pack(f'{order}H', len(ifd)) + body + b'\0'*4 + extra + data

def _heic():
    "A HEIC, written without registering pillow-heif with Pillow"
    import pillow_heif
    f = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(f, quality=80)
    return f.getvalue()

def _cut(data, share=.5): return data[:int(len(data)*share)]

def _flip(data, at, n=1):
    data = bytearray(data)
    for i in range(n): data[at+i] ^= 0xff
    return bytes(data)

def _bytes_files():
    "name -> (kind, bytes)"
    im = picture()
    jpg,pg,gif = encode(im, 'JPEG', quality=90),encode(im, 'PNG'),encode(im, 'GIF')
    bmp,webp,tif = encode(im, 'BMP'),encode(im, 'WEBP', lossless=True),encode(im, 'TIFF')
    avif = encode(im, 'AVIF')
    lzw,jp2 = encode(im, 'TIFF', compression='tiff_lzw'),encode(im, 'JPEG2000')
    idat = pg.index(b'IDAT')
    mp4 = struct.pack('>I', 24) + b'ftypisom\0\0\2\0isomiso2' + struct.pack('>I', 64) + b'mdat' + bytes(56)
    npy = io.BytesIO()
    np.save(npy, np.zeros((8,8)))
    svg = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    html = b'<!DOCTYPE html>\n<html><head><title>Not found</title></head><body>404</body></html>'
    text = b'This is a text about cans and bottles.\n'*4
    dng = tiff(np.zeros((8,8,3), np.uint8), 2, tags={254:(4,1), 50706:(3,1)}.items())
    rng = np.random.default_rng(0)
    noise = b'\x07\x9c' + rng.integers(0, 256, 3000, dtype=np.uint8).tobytes()
    bomb = png(np.zeros((4,4), np.uint8), 8, 0, size=(100_000,100_000))
    return {
        'empty.jpg': ('empty', b''),
        'text.jpg': ('text', text),
        'text.heic': ('text', text),
        'text_utf16.png': ('text', 'Dosen und Flaschen'.encode('utf-16')),
        'truncated.jpg': ('truncated', _cut(jpg)),
        'truncated_progressive.jpg': ('truncated', _cut(encode(im, 'JPEG', progressive=True), .7)),
        'truncated_zero_filled.jpg': ('truncated', _cut(jpg).ljust(len(jpg), b'\0')),
        'cut_in_header.jpg': ('truncated', jpg[:120]),
        'header_only.jpg': ('truncated', jpg[:jpg.index(b'\xff\xda')+14]),
        'three_bytes.jpg': ('truncated', jpg[:3]),
        'truncated.png': ('truncated', _cut(pg)),
        'header_only.png': ('truncated', pg[:33]),
        'no_end.png': ('truncated', pg[:-12]),
        'truncated.webp': ('truncated', _cut(webp)),
        'truncated.gif': ('truncated', _cut(gif)),
        'truncated.bmp': ('truncated', _cut(bmp)),
        'truncated.tif': ('truncated', _cut(tif)),
        'truncated_lzw.tif': ('truncated', _cut(lzw)),
        'truncated.jp2': ('truncated', _cut(jp2)),
        'truncated.ppm': ('truncated', _cut(encode(im, 'PPM'))),
        'truncated.qoi': ('truncated', _cut(encode(im, 'QOI'))),
        'truncated.avif': ('truncated', _cut(avif)),
        'truncated.heic': ('truncated', _cut(_heic())),
        'random.jpg': ('noise', noise),
        'noise_after_magic.jpg': ('damaged', jpg[:20] + noise),
        'zeros.jpg': ('zeros', bytes(4096)),
        'page.png': ('web page', html),
        'drawing.svg': ('svg', svg),
        'drawing.png': ('svg', svg),
        'document.jpg': ('pdf', b'%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF'),
        'archive.jpg': ('zip', b'PK\x03\x04\x14\0\0\0\0\0' + bytes(40)),
        'film.jpg': ('video', mp4),
        'array.png': ('npy', npy.getvalue()),
        'lfs.jpg': ('git lfs', b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n'),
        'layers.psd': ('photoshop', b'8BPS\0\1' + bytes(60)),
        'sensor.dng': ('raw', dng),
        'bomb.png': ('bomb', bomb),
        'bomb.bmp': ('bomb', bmp[:18] + struct.pack('<ii', 2**30, 2**30) + bmp[26:]),
        'bomb.gif': ('bomb', b'GIF89a' + struct.pack('<HH', 65535, 65535) + gif[10:]),
        'negative.bmp': ('bomb', bmp[:18] + struct.pack('<ii', -96, 64) + bmp[26:]),
        'zero_size.png': ('damaged', png(np.zeros((4,4), np.uint8), 8, 0, size=(0,4))),
        'zero_size.jpg': ('damaged', (i := jpg.index(b'\xff\xc0')) and jpg[:i+5] + b'\0\0\0\0' + jpg[i+9:]),
        'bad_checksum.png': ('damaged', _flip(pg, 29)),
        'bad_data.png': ('damaged', _flip(pg, idat+20, 40)),
        'broken.gif': ('damaged', gif[:-40] + b'!\xff\xff\xff;' if gif[10] & 128 == 0 else gif[:13] + b'\x99'*20 + b';'),
        'broken_ifd.tif': ('damaged', tif[:4] + struct.pack('<I', 8) + struct.pack('<H', 9) + b'\xff'*108 + bytes(200)),
        'broken.webp': ('damaged', webp[:30] + bytes(len(webp)-30)),
        '<img src=x onerror=alert(1)>.jpg': ('text', text),
        'two\nlines \U0001f5d1 & "quotes".jpg': ('text', text),
        'UPPER.JPG': ('text', text),
    }

def make_bad_files(folder, links=True):
    "Write the bad files into `folder`; returns {name: kind}. `links=False` leaves out all that is no plain file, for copying and zipping"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {}
    for name,(kind,data) in _bytes_files().items():
        (folder/name).write_bytes(data)
        kinds[name] = kind
    if not links: return kinds
    (folder/'dangling.jpg').symlink_to('gone.jpg')
    (folder/'loop.jpg').symlink_to('loop.jpg')
    (folder/'folder.jpg').mkdir()
    os.mkfifo(folder/'pipe.jpg')
    kinds |= {'dangling.jpg':'dangling', 'loop.jpg':'loop', 'folder.jpg':'folder', 'pipe.jpg':'pipe'}
    odd = os.path.join(os.fsencode(folder), b'not_utf8_\xff\xfe.jpg')
    try:
        with open(odd, 'wb') as f: f.write(b'text')
        kinds[os.fsdecode(os.path.basename(odd))] = 'text'
    except OSError: pass # Not every file system takes such a name
    (folder/'locked.jpg').write_bytes(encode(picture(), 'JPEG'))
    (folder/'locked.jpg').chmod(0)
    if os.access(folder/'locked.jpg', os.R_OK): (folder/'locked.jpg').unlink() # The administrator reads it all the same
    else: kinds['locked.jpg'] = 'locked'
    return kinds
