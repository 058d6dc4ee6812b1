"""Small documents in binary formats, written byte by byte where no library writes them."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import openpyxl
import pptx

from indexer.documents import Content, Document
from indexer.parsing import parse

BILLION_LAUGHS = (
    '<!DOCTYPE laughs [<!ENTITY l0 "ha">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)
SECRET = "words of this file"
EXTERNAL_ENTITY = f'<!DOCTYPE x [<!ENTITY secret SYSTEM "file://{__file__}">]>'

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def parsed(data: bytes | str, suffix: str) -> Document:
    return parse(Content(data=data.encode() if isinstance(data, str) else data, format=suffix))


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def docx(body: str, doctype: str = "") -> bytes:
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/>'
        "</w:style>"
        for name in ("Title", "heading 1", "heading 2", "HTML Preformatted")
    )
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship '
            f'Id="r1" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="r1" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
            "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{styles}</w:styles>',
            "word/document.xml": f'<?xml version="1.0" encoding="UTF-8"?>{doctype}'
            f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
        }
    )


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{properties}<w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def xlsx(sheets: Mapping[str, Sequence[Sequence[object]]], hidden: Sequence[str] = ()) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
        for row in rows:
            sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def with_part(archive: bytes, name: str, old: str, new: str) -> bytes:
    """`archive` with `old` replaced by `new` in one of its parts."""
    with zipfile.ZipFile(io.BytesIO(archive)) as parts:
        contents = {part: parts.read(part) for part in parts.namelist()}
    assert old.encode() in contents[name]
    contents[name] = contents[name].replace(old.encode(), new.encode())
    return zipped(contents)


def slides(*texts: tuple[str, str], notes: str = "") -> bytes:
    """One slide for each title and body, whose lines are its points."""
    presentation = pptx.Presentation()
    for title, body in texts:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    buffer = io.BytesIO()
    presentation.save(buffer)
    return buffer.getvalue()


def epub(
    chapters: Mapping[str, str], *, title: str = "Book", extra: Mapping[str, str] = {}
) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for n, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:'
            'container"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf">'
            f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title>'
            '</metadata><manifest><item id="toc" href="toc.xhtml" properties="nav"/>'
            f'{items}</manifest><spine><itemref idref="toc"/>{spine}</spine></package>',
            "OEBPS/toc.xhtml": "<html><body>Contents list</body></html>",
            **{f"OEBPS/text/{name}": html for name, html in chapters.items()},
            **extra,
        }
    )


def text_page(*lines: tuple[float, float, str], font: str = "F1") -> bytes:
    """The content of a page: each line with its size, its distance from the bottom, its text."""
    shown = [
        f"/{font} {size} Tf 1 0 0 1 72 {bottom} Tm ({line}) Tj" for size, bottom, line in lines
    ]
    return f"BT {' '.join(shown)} ET".encode("cp1252")


def pdf(*pages: bytes, trailer: str = "", title: str = "", packed: bytes = b"") -> bytes:
    """With Helvetica as F1 and Courier as F2; `packed` is deflated content for every page."""
    kids = " ".join(f"{5 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        (
            b"<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding"
            b" >> /F2 << /Type /Font /Subtype /Type1 /BaseFont /Courier >> >>"
        ),
        f"<< /Title ({title}) >>".encode(),
    ]
    for n, page in enumerate(pages):
        stream = packed or zlib.compress(page)
        objects += [
            (
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {6 + 2 * n} 0 R"
                " /Resources << /Font 3 0 R >> >>"
            ).encode(),
            b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    file = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = len(file)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    file += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    file += f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R {trailer} >>\n".encode()
    return bytes(file + f"startxref\n{table}\n%%EOF".encode())
