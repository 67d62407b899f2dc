"Names of classes: twins, folders of their own, and the encodings in which archives bring them"
import unicodedata, warnings

import pytest
from hypothesis import given, settings, strategies as st

from garbage_fastai.archives import decode_names, likely_pages
from garbage_fastai.layout import folder_names, plain_name, safe_name, twin_names, warn_twins

quick = settings(max_examples=150, deadline=None)

# ---- twins

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

@quick
@given(st.lists(st.text(max_size=6), max_size=8))
def test_twins_are_whatever_is_plainly_the_same(names):
    twins = twin_names(names)
    told = {o for t in twins for o in t}
    for n in set(names): assert (n in told) == any(plain_name(n)==plain_name(o) for o in set(names)-{n})
    assert all(plain_name(plain_name(o))==plain_name(o) for o in names)

# ---- folders

names = st.one_of(st.text(max_size=8), st.text('aAéE\u0301 ._/\\:-2', max_size=6), st.sampled_from(['CON','con','Aux','nul.txt','COM1','LPT¹','a/b','a:b','a_b','a_b-2','..','.','','-','~']))

@quick
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

# ---- encodings

LANGUAGES = {  # names of classes, and the code pages that Windows and older tools write there
    'German': (['Glas grün','Glas weiß','Metall','Pappe','Papier','Restmüll','Kunststoff'], 'cp850 cp437 cp1252'),
    'German, few': (['Glas grün','Metall','Papier'], 'cp850 cp437 cp1252'),
    'French': (['métal','verre','papier','carton','plastique','déchets'], 'cp850 cp437 cp1252'),
    'French, few': (['verre','métal','papier'], 'cp850 cp437 cp1252'),
    'Spanish': (['vidrio','cartón','metal','plástico','papel','orgánico'], 'cp850 cp437 cp1252'),
    'Spanish, few': (['cartón','latas','pequeños'], 'cp850 cp437 cp1252'),
    'Portuguese': (['vidro','papelão','metal','plástico','orgânico','não reciclável'], 'cp850 cp1252'),
    'Italian': (['vetro','metallo','carta','plastica','umidità'], 'cp850 cp437 cp1252'),
    'Swedish': (['glas','metall','papper','hushållsavfall','färgat glas','övrigt'], 'cp850 cp437 cp1252'),
    'Danish': (['glas','metal','papir','småt brændbart','køkkenaffald'], 'cp850 cp865 cp1252'),
    'Finnish': (['lasi','metalli','paperi','sekajäte'], 'cp850 cp437 cp1252'),
    'Polish': (['szkło','metal','papier','tworzywa sztuczne','zmieszane','śmieci'], 'cp852 cp1250'),
    'Polish, few': (['szkło','metal','papier'], 'cp852 cp1250'),
    'Czech': (['sklo','kov','papír','plast','směsný odpad','nápojové kartony'], 'cp852 cp1250'),
    'Hungarian': (['üveg','fém','papír','műanyag','szemét'], 'cp852 cp1250'),
    'Romanian': (['sticlă','metal','hârtie','plastic'], 'cp852 cp1250'),
    'Croatian': (['staklo','metal','papir','miješani otpad','smeće'], 'cp852 cp1250'),
    'Lithuanian': (['stiklas','metalas','popierius','šiukšlės'], 'cp775 cp1257'),
    'Russian': (['стекло','металл','бумага'], 'cp866 cp1251'),
    'Russian, more': (['Стекло','Металл','Бумага','Пластик','Картон','Прочее'], 'cp866 cp1251'),
    'Ukrainian': (['скло','метал','папір','пластик'], 'cp1251'),
    'Bulgarian': (['стъкло','метал','хартия'], 'cp866 cp1251'),
    'Greek': (['γυαλί','μέταλλο','χαρτί','πλαστικό'], 'cp737 cp869 cp1253'),
    'Turkish': (['cam','metal','kağıt','plastik','karışık çöp'], 'cp857 cp1254'),
    'Hebrew': (['זכוכית','מתכת','נייר'], 'cp862 cp1255'),
    'Arabic': (['زجاج','معدن','ورق'], 'cp720 cp1256'),
    'Chinese': (['玻璃','金属','纸','塑料','纸板','垃圾'], 'gb18030 gbk gb2312'),
    'Chinese, one': (['glass','metal','纸'], 'gb18030'),
    'Chinese, kinds': (['可回收物','厨余垃圾','有害垃圾','其他垃圾'], 'gb18030'),
    'Taiwan': (['玻璃','金屬','紙類','塑膠'], 'big5 cp950'),
    'Japanese': (['ガラス','金属','紙','プラスチック','段ボール','燃えるごみ'], 'cp932 euc_jp'),
    'Japanese, few': (['ガラス','金属','紙'], 'cp932'),
    'Korean': (['유리','금속','종이','플라스틱'], 'cp949 euc_kr'),
    'Thai': (['แก้ว','โลหะ','กระดาษ','พลาสติก'], 'cp874'),
    # words that the module does not know
    'German, other': (['Zwiebelschälabfälle','Möbel','Töpfe'], 'cp850 cp437 cp1252'),
    'French, other': (['gâteau','crème fraîche','pâtés','œufs'], 'cp1252'),
    'Polish, other': (['gołębie','łódź','książki'], 'cp852 cp1250'),
    'Russian, other': (['Собаки','Кошки','Лошади'], 'cp866 cp1251'),
    'Japanese, other': (['タイヤ','表示板','ソファ'], 'cp932'),  # second bytes that look like a backslash
    'Chinese, other': (['轮胎','沙发','桌子','苹果'], 'gb18030'),
    'Korean, other': (['타이어','소파','의자'], 'cp949')}

CASES = [(k,p) for k,(_,pages) in LANGUAGES.items() for p in pages.split()]

@pytest.mark.parametrize('language,page', CASES)
def test_code_pages(language, page):
    "Right for each of these languages and pages, with file names as cameras give them"
    names = [f'{o}/IMG_{i:04}.jpg' for o in LANGUAGES[language][0] for i in range(3)]
    got,taken = decode_names([o.encode(page) for o in names])
    assert got == names and taken != 'utf-8'

@quick
@given(st.lists(st.text(st.characters(exclude_categories=['Cs']), max_size=12), max_size=6), st.sampled_from('éäåłšñяд€玻ガ유'))
def test_utf8_is_seen(names, one):
    assert decode_names([o.encode() for o in names+[one]]) == (names+[one], 'utf-8')

@pytest.mark.filterwarnings('ignore:Characters')  # of Hypothesis, about signs that two codes stand for
@quick
@given(st.sampled_from('cp437 cp850 cp852 cp866 cp1250 cp1251 cp1252 gb18030 cp950 cp932 cp949 cp737 cp857'.split()), st.data())
def test_a_named_page_is_believed(page, data):
    raw = data.draw(st.lists(st.text(st.characters(codec=page), max_size=8).map(lambda o: o.encode(page)), max_size=5))
    assert decode_names(raw, page) == ([o.decode(page) for o in raw], page)

@quick
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5))
def test_any_bytes_are_read_one_way(raw):
    "Never an error, all names in one page, the same whatever the order, and no two names become one"
    names,page = decode_names(raw)
    assert page == 'utf-8' or [o.encode(page) for o in names] == raw or page in ('cp932','euc_jp','cp950','cp949','gb18030')
    assert len(set(names)) == len(set(raw)) or page in ('cp932','euc_jp','cp950','cp949')
    back = decode_names(raw[::-1])
    assert back == (names[::-1], page)

def test_unknown_encodings():
    with pytest.raises(ValueError, match="'klingon' is not known"): decode_names([b'a'], 'klingon')
    with pytest.raises(ValueError, match="'hex' is not known"): decode_names([b'a'], 'hex')
    with pytest.raises(ValueError, match='is not written in utf-8'): decode_names([b'\xff'], 'utf-8')
    assert [p for p,_ in likely_pages(['Стекло'.encode('cp866')])][:1] == ['cp866']
