"""Markdown to man(7): what the documents of this project use of it, no more.

Headings, paragraphs, lists, fenced code, tables, definitions (a term, then a line that begins with ":   "), and within
a line `code`, *emphasis*, **strong** and [links](target).
"""

import re

WIDTH = 100
CODE = re.compile(r"^```[^\n`]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`` ?(?P<code2>.+?) ?``|`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|(?<![\w*])\*(?P<em>[^*\s][^*]*)\*|\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
ITEM = re.compile(r"^(?P<mark>[-*]|\d+\.) +")


def escape(text, literal=False):
    """Text as roff shall show it; literal: what somebody may copy, with a real hyphen and straight quotes."""
    text = text.replace("\\", "\\e")
    if literal:
        for plain, name in (("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti")):
            text = text.replace(plain, name)
    return text


WHOLE = "\x01"  # in a word that must not be broken


def literal(text):
    """The same within a paragraph."""
    return " ".join(WHOLE + word for word in escape(text, literal=True).split(" "))


def unbroken(word):
    return "\\%" + word.replace(WHOLE, "") if WHOLE in word else word


def guarded(line):
    """A line that begins as a request does is none."""
    return "\\&" + line if line.startswith((".", "'")) else line


class Writer:
    def __init__(self, reference):
        self.reference = reference  # reference(text, target): what stands for a link, in Markdown
        self.out = []

    # Within a line.
    def inline(self, text):
        parts, last = [], 0
        for match in SPAN.finditer(text):
            parts.append(escape(text[last : match.start()]))
            last = match.end()
            code = match["code2"] or match["code"]
            if code is not None:
                parts.append(f"\\fB{literal(code)}\\fR")
            elif match["strong"] is not None:
                parts.append(f"\\fB{literal(match['strong'])}\\fR")
            elif match["em"] is not None:
                parts.append(f"\\fI{literal(match['em'])}\\fR")
            else:
                parts.append(self.inline(self.reference(match["text"], match["target"])))
        parts.append(escape(text[last:]))
        return "".join(parts)

    def filled(self, text):
        """A paragraph, in lines of a fair length; how they are filled is roff's business."""
        lines, line = [], ""
        for word in map(unbroken, self.inline(" ".join(text.split())).split(" ")):
            if line and len(line) + 1 + len(word) > WIDTH:
                lines.append(guarded(line))
                line = word
            else:
                line = f"{line} {word}" if line else word
        self.out += lines + [guarded(line)]

    def term(self, text):
        return guarded(self.inline(text).replace(WHOLE, ""))

    # Blocks.
    def code(self, text):
        self.out += [".PP", ".RS 4", ".EX"]
        self.out += [guarded(escape(line, literal=True)) for line in text.rstrip("\n").split("\n")]
        self.out += [".EE", ".RE"]

    def definition(self, term, text):
        self.out += [".TP", self.term(term)]
        first, *others = re.split(r"\n\s*\n", text)
        self.filled(first)
        if others:
            self.out.append(".RS")
            self.blocks("\n\n".join(others))
            self.out.append(".RE")

    def table(self, lines):
        """As definitions: cells next to each other are too narrow in a terminal."""
        rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
        head, rows = rows[0], rows[2:]
        for row in rows:
            if len(head) <= 3:  # what a row is about, then the last column says of it
                self.definition(": ".join(cell for cell in row[:-1] if cell), row[-1] or "\\&")
                continue
            self.out += [".TP", self.term(row[0])]
            for i, (name, cell) in enumerate(zip(head[1:], row[1:])):
                self.out += [".br"] if i else []
                self.filled(f"{name}: {cell}")

    def items(self, lines):
        """A list, with what belongs to its items indented; lists in it are written within it."""
        items = []
        for line in lines:
            match = ITEM.match(line)
            if match:
                items.append([match["mark"], [line[match.end() :]]])
            else:
                items[-1][1].append(re.sub(r"^ {1,4}", "", line))
        for mark, text in items:
            self.out.append(".IP \\(bu 2" if mark in "-*" else f".IP {mark} 4")
            inner = next((i for i, line in enumerate(text) if i and ITEM.match(line)), len(text))
            self.filled(" ".join(text[:inner]))
            if inner < len(text):
                self.out.append(".RS 4")
                self.items(text[inner:])
                self.out.append(".RE")

    def blocks(self, text):
        codes = []

        def stow(match):
            codes.append(match[1])
            return f"\n\n\x00{len(codes) - 1}\n\n"

        text = CODE.sub(stow, text)
        for block in re.split(r"\n\s*\n", text.strip("\n")):
            lines = block.split("\n")
            if not block.strip():
                continue
            if block.startswith("\x00"):
                self.code(codes[int(block[1:])])
            elif match := re.match(r"^(#+) (.+)$", lines[0]):
                self.heading(len(match[1]), match[2])
                if lines[1:]:
                    self.blocks("\n".join(lines[1:]))
            elif len(lines) > 1 and re.match(r"^\|[-| :]+\|$", lines[1]):
                self.table(lines)
            elif len(lines) > 1 and lines[1].startswith(":   "):
                self.definitions(lines)
            elif ITEM.match(lines[0]):
                self.items(lines)
            else:
                if not self.out[-1:] or not self.out[-1].startswith((".SH", ".SS")):
                    self.out.append(".PP")
                self.filled(block)

    def definitions(self, lines):
        """Terms and their texts. A line of "    ." alone parts paragraphs of one text."""
        entries = []
        for line in lines:
            if line.startswith(":   "):
                entries[-1][1].append(line[4:])
            elif line.startswith("    ") and entries:
                entries[-1][1].append("" if line.strip() == "." else line[4:])
            else:
                entries.append((line, []))
        for term, text in entries:
            self.definition(term, "\n".join(text))

    def heading(self, level, text):
        text = re.sub(r"[`*]", "", text)
        self.out.append(f".SH {escape(text).upper()}" if level <= 2 else f".SS {escape(text)}")
