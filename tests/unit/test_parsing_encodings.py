"""Which encoding the bytes of a text are in. The sentences are of the kind that documents have."""
# ruff: noqa: RUF001  # letters of other scripts do look like Latin ones

import pytest

from indexer.errors import DocumentUnusable
from indexer.parsing.decoding import decode
from tests.unit.parsing_samples import parsed

SENTENCES = {
    "Arabic": "يقوم النظام بتحديث الفهرس كل ليلة، والبحث سريع والنتائج دقيقة.",
    "Chinese": "这个系统每天晚上更新索引，搜索速度很快，结果也很准确。\n请参阅安装指南。",
    "Czech": "Systém aktualizuje rejstřík každou noc. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "English": "The café serves naïve résumés to the façade. It costs “five”, not six.",
    "French": "Le système met à jour l’index chaque nuit ; la recherche est rapide.",
    "German": "Die Größe der Straße in Köln überrascht viele. „Schön“, sagte er, für 5 €.",
    "Greek": "Το σύστημα ενημερώνει το ευρετήριο κάθε βράδυ, η αναζήτηση είναι γρήγορη.",
    "Hebrew": "המערכת מעדכנת את האינדקס בכל לילה, החיפוש מהיר והתוצאות מדויקות.",
    "Hungarian": "A rendszer minden éjjel frissíti az indexet. Árvíztűrő tükörfúrógép,",
    "Japanese": "日本語の文章をここに書きます。データベースの索引は、毎晩更新されます。",
    "Korean": "이 시스템은 매일 밤 색인을 갱신하며, 검색이 빠르고 결과가 정확합니다.",
    "Polish": "System aktualizuje indeks każdej nocy, a wyniki są dokładne. Źdźbło i łódź też.",
    "Portuguese": "O sistema atualiza o índice todas as noites; não há exceções.",
    "Russian": "Система обновляет индекс каждую ночь, поиск работает быстро, а результаты точны.",
    "Spanish": "El sistema actualiza el índice cada noche; ¿dónde está el niño pequeño?",
    "Swedish": "Systemet uppdaterar registret varje natt, sökningen är snabb. Här får du läsa mer.",
    "Taiwanese": "這個系統每天晚上更新索引，搜尋速度很快，結果也很準確。\n請參閱安裝指南。",
    "Thai": "ระบบจะปรับปรุงดัชนีทุกคืน การค้นหารวดเร็ว และผลลัพธ์ถูกต้อง",
    "Turkish": "Sistem dizini her gece günceller, arama hızlıdır ve sonuçlar doğrudur.",
}
LEGACY = [
    ("Arabic", "cp1256"),
    ("Chinese", "gb18030"),
    ("Chinese", "gbk"),
    ("Czech", "cp1250"),
    ("English", "cp1252"),
    ("French", "cp1252"),
    ("German", "cp1252"),
    ("Greek", "cp1253"),
    ("Greek", "iso8859_7"),
    ("Hebrew", "cp1255"),
    ("Hungarian", "cp1250"),
    ("Hungarian", "iso8859_2"),
    ("Japanese", "cp932"),
    ("Japanese", "euc_jp"),
    ("Japanese", "iso2022_jp"),
    ("Korean", "euc_kr"),
    ("Polish", "cp1250"),
    ("Polish", "iso8859_2"),
    ("Portuguese", "cp1252"),
    ("Russian", "cp1251"),
    ("Russian", "koi8_r"),
    ("Spanish", "cp1252"),
    ("Swedish", "cp1252"),
    ("Taiwanese", "big5"),
    ("Thai", "cp874"),
    ("Turkish", "cp1254"),
]
UNICODE = ["utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32"]


@pytest.mark.parametrize(("language", "encoding"), LEGACY)
@pytest.mark.parametrize("times", [1, 40], ids=["short", "long"])
def test_a_text_in_a_legacy_encoding_is_read(language: str, encoding: str, times: int) -> None:
    text = "\n".join([SENTENCES[language]] * times)

    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_unicode_is_read_with_and_without_a_mark(language: str, encoding: str) -> None:
    text = SENTENCES[language]

    assert decode(text.encode(encoding)) == text


def test_a_mark_of_the_big_endian_order_is_no_text() -> None:
    assert decode("\ufeffwörd".encode("utf-16-be")) == "wörd"


def test_a_short_ascii_text_in_utf_16_is_no_binary() -> None:
    assert decode("Hello, this is plain ASCII.".encode("utf-16-le")).startswith("Hello, this")


def test_utf_8_with_a_damaged_place_stays_utf_8() -> None:
    text = SENTENCES["Russian"]

    assert decode(text.encode()[:-3] + b"\xff" + b".") == f"{text[:-2]}\ufffd."


def test_one_latin_letter_among_many_of_utf_8_does_not_spoil_the_rest() -> None:
    data = ("Größe und Maß. " * 20).encode() + "für".encode("cp1252")

    assert decode(data).startswith("Größe und Maß. Größe")


@pytest.mark.parametrize(
    ("declared", "language", "encoding"),
    [
        ("", "Japanese", "cp932"),
        ("shift_jis", "Japanese", "cp932"),
        ("x-unheard-of", "Japanese", "cp932"),
        ("utf-8", "Japanese", "cp932"),
        ("utf-8", "German", "cp1252"),
        ("iso-8859-1", "Russian", "cp1251"),
        ("windows-1252", "Greek", "cp1253"),
        ("iso-8859-1", "Japanese", "euc_jp"),
        ("iso-8859-1", "German", "cp1252"),
        ("iso-8859-1", "Swedish", "utf_8"),
        ("shift_jis", "Swedish", "utf_8"),
        ("windows-1251", "Russian", "utf_16"),
        ("gb2312", "Chinese", "gb18030"),
        ("us-ascii", "French", "cp1252"),
        ("ks_c_5601-1987", "Korean", "cp949"),
    ],
)
@pytest.mark.parametrize(
    "head",
    ['<meta charset="{}">', "<meta http-equiv=Content-Type content='text/html; charset={}'>"],
    ids=["charset", "http-equiv"],
)
def test_what_a_page_declares_is_believed_as_far_as_it_can_be_true(
    head: str, declared: str, language: str, encoding: str
) -> None:
    page = f"<html><head>{head.format(declared)}</head><main><p>{SENTENCES[language]}</p></main>"

    text = parsed(page.encode(encoding), ".html").text

    assert " ".join(text.split()) == " ".join(SENTENCES[language].split())


def test_a_short_text_is_read_as_the_page_declares_where_statistics_would_only_guess() -> None:
    page = "<meta charset='windows-1257'><main><p>Ačiū, žmogau</p></main>"

    assert parsed(page.encode("cp1257"), ".html").text.strip() == "Ačiū, žmogau"


def test_an_xml_declaration_counts_as_well() -> None:
    page = (
        '<?xml version="1.0" encoding="windows-1257"?><html><body><main>Ačiū</main></body></html>'
    )

    assert parsed(page.encode("cp1257"), ".xhtml").text.strip() == "Ačiū"


@pytest.mark.parametrize("declared", ["unicode_escape", "rot13", "hex", "idna", "\0", "x" * 9999])
def test_a_declaration_cannot_name_what_is_no_encoding_of_a_language(declared: str) -> None:
    text = SENTENCES["German"] + r" \u0041"

    assert decode(text.encode("cp1252"), declared) == text


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"\x01\x02\x03\x04abc" * 9, b"a\0b"])
def test_what_is_no_text_is_told_as_such(data: bytes) -> None:
    with pytest.raises(DocumentUnusable, match=r"it is (binary|not text in any known encoding)"):
        decode(data)
