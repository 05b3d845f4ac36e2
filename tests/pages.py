"""A page as a browser reads it, as far as tests ask: what nests, what links where, what it says."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}
BLOCKS = {"p", "div", "ul", "ol", "dl", "table", "section", "article", "figure", "h1", "h2", "h3", "pre", "details"}


class Page(HTMLParser):
    """Raises AssertionError for elements that are not nested, paragraphs that hold blocks, ids that are there twice,
    links that lead nowhere or elsewhere, and anything that runs or is fetched.

    `ids` are all of them, `text` is what is read, `images` the addresses of pictures, `headings` (tag, text), `tables`
    hold rows of texts, `items` the texts of list items.
    """

    def __init__(self, html: str):
        super().__init__()
        assert html.startswith("<!DOCTYPE html>")
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", html)
        html.encode()
        self.open, self.ids, self.links, self.images, self.read = [], [], [], [], []
        self.headings, self.tables, self.items = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open
        assert len(set(self.ids)) == len(self.ids)
        assert {link[1:] for link in self.links} <= set(self.ids)
        self.text = " ".join(" ".join(self.read).split())

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        assert len(told) == len(attributes) and tag not in ("script", "iframe", "object", "link", "base", "form")
        assert not any(name.startswith("on") for name in told)
        assert not (tag in BLOCKS and "p" in self.open), f"<{tag}> in a paragraph"
        self.ids += [told["id"]] if "id" in told else []
        for name in ("href", "xlink:href", "src", "srcset", "action", "poster"):
            if name in told:
                if tag == "a":
                    assert told[name].startswith("#"), told[name]
                    self.links.append(told[name])
                else:
                    assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*", told[name]), told[name][:80]
                    self.images.append(told[name])
        if tag == "img":
            assert told["alt"] and int(told["width"]) > 0 and int(told["height"]) > 0
        if tag not in VOID:
            self.open.append(tag)
            if tag in ("h1", "h2", "h3"):
                self.headings.append((tag, ""))
            elif tag == "table":
                self.tables.append([])
            elif tag == "tr":
                self.tables[-1].append([])
            elif tag in ("td", "th"):
                self.tables[-1][-1].append("")
            elif tag == "li":
                self.items.append("")

    def handle_startendtag(self, tag, attributes):
        assert "svg" in self.open or tag in VOID, tag
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open[-3:])

    def handle_data(self, data):
        if "style" in self.open:
            assert "@import" not in data and "url(" not in data
            return
        self.read.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            tag, text = self.headings[-1]
            self.headings[-1] = tag, text + data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if "li" in self.open:
            self.items[-1] = " ".join((self.items[-1] + data).split())
