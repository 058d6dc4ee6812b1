"""Finds the ids that lead to the headings of a web page. Knows elements, not Markdown."""

import lxml.html


def heading_ids(region: lxml.html.HtmlElement) -> list[tuple[str, str]]:
    """Words and id of each heading in `region`, in order; the id is empty where none leads there.

    An id is the heading's own, or one of something in it, or of an empty anchor right before it,
    or of the element that begins with it, as sections do.
    """
    return [
        (" ".join(heading.text_content().split()), _id(heading))
        for heading in region.iter("h1", "h2", "h3", "h4", "h5", "h6")
    ]


def _id(heading: lxml.html.HtmlElement) -> str:
    for element in heading.iter("*"):
        if anchor := _of(element):
            return anchor
    for element in heading.itersiblings("*", preceding=True):
        if not _is_empty(element):
            return ""
        if element.tag == "a" and (anchor := _of(element)):
            return anchor
    parent = heading.getparent()
    return "" if parent is None or (parent.text or "").strip() else _of(parent)


def _of(element: lxml.html.HtmlElement) -> str:
    anchor = element.get("id") or (element.get("name") if element.tag == "a" else "") or ""
    return anchor if not any(map(str.isspace, anchor)) else ""


def _is_empty(element: lxml.html.HtmlElement) -> bool:
    return not element.text_content().strip() and not (element.tail or "").strip()
