#!/usr/bin/python3
"""Makes the man pages in docs/man of docs/man/source and of what the programs say about themselves; see scripts/man.

A source is Markdown, with these on lines of their own:

    {{options: NAME, NAME}}   those options, as the program's -h has them. Indented lines behind it are added to the last
    {{options: others}}       all options that the page names nowhere else
    {{internal}}              the names of the options between Einhorn's own processes
    {{help: HEADING}}         that part of `einhorn -h`
    {{commands}}              the commands of a master, as `help` has them
    {{keys}}                  what `einhorn --config-schema` says of the keys of a config file, by kind
    {{document: FILE}}        that document, without its title
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from help_table import commands_of, help_of, is_internal, options_of
from markdown_man import Writer

SECTIONS = {"1": "User Commands", "5": "File Formats", "7": "Miscellaneous"}
# The page that a document is, or is mostly in.
PAGES = {
    "command-line.md": "**einhorn**(1)",
    "einhornsh.md": "**einhornsh**(1)",
    "agent.md": "**einhorn-agent**(1)",
    "config.md": "**einhorn.yaml**(5)",
    "protocol.md": "**einhorn-protocol**(7)",
    "preload.md": "**einhorn-preload**(7)",
}


def reference(text, target):
    """What a link is on paper: the page or the file it leads to."""
    path = target.partition("#")[0]
    if not path:
        return text
    if re.match(r"[a-z]+:", target):
        return text if text in target else f"{text} ({target})"
    name = os.path.basename(path)
    if name in PAGES:
        return PAGES[name] if text in PAGES[name] else f"{text} ({PAGES[name]})"
    return text if text == name else f"{text} (*{name}*)"


def sentence(text):
    """With a capital letter, unless it begins with a value that is to be typed, and a full stop."""
    return (text if ", the default" in text[:20] else text[:1].upper() + text[1:]) + ("" if text.endswith((".", "?", "!", ":")) else ".")


def marked(text, values=()):
    """A text of the help in Markdown: options in bold, the names of values in italics."""
    parts = re.split(r"(`[^`]*`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<![\w{-])(--?[a-zA-Z][a-z-]*)(?![\w+])", r"`\1`", parts[i])
        for value in values:
            parts[i] = re.sub(rf"(?<![\w`*-])({value})(?![\w`*])", r"*\1*", parts[i])
    return "".join(parts)


class Page:
    def __init__(self, root, source, bin_dir):
        self.root, self.source, self.bin_dir = root, source, bin_dir
        self.name, self.section = source.name.removesuffix(".md").rsplit(".", 1)
        text = source.read_text()
        self.program = bin_dir / (self.name if (bin_dir / self.name).exists() else "einhorn")
        self.options = {}
        if "{{options" in text:
            self.options = {option.name: option for option in options_of(self.program)}
        self.named = {name for names in re.findall(r"^\{\{options: (.*)\}\}$", text, re.MULTILINE) for name in names.split(", ")}
        unknown = self.named - set(self.options) - {"others"}
        if unknown:
            raise SystemExit(f"{source}: {self.program.name} has no option {', '.join(sorted(unknown))}")
        self.text = text

    # What stands for the lines in braces.
    def put_options(self, names):
        if names == "others":
            wanted = [o for o in self.options.values() if o.name not in self.named and not is_internal(o)]
        else:
            wanted = [self.options[name] for name in names.split(", ")]
        lines = []
        for option in wanted:
            names = ", ".join(f"`{n}`" for n in ([f"-{option.letter}"] if option.letter else []) + [f"--{option.name}"])
            values = sorted(set(re.findall(r"[A-Z][A-Z_]*", option.value)), key=len, reverse=True)
            lines.append(names + (f" *{option.value}*" if option.value else ""))
            lines.append(":   " + marked(sentence(option.text), values))
        return "\n".join(lines)

    def put_internal(self, _):
        return ", ".join(f"`--{o.name}`" for o in self.options.values() if is_internal(o))

    def put_help(self, heading):
        text = help_of(self.bin_dir / "einhorn")
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
        if not found:
            raise SystemExit(f"{self.source}: einhorn -h has no part {heading}")
        return "\n\n".join(self.help_block(block) for block in re.split(r"\n\n", found[1].strip("\n")))

    @staticmethod
    def help_block(block):
        """Paragraphs stay; indented lines in two columns are definitions, others are code."""
        if not block.startswith("    "):
            return marked(block)
        lines = [line[4:] for line in block.split("\n")]
        if not re.match(r"^\S.*? {2,}\S", lines[0]):
            return "```\n" + "\n".join(lines) + "\n```"
        entries = []
        for line in lines:
            match = re.match(r"^(\S.*?)(?: {2,}(\S.*))?$", line)
            if match:
                entries.append([match[1], match[2] or ""])
            else:
                entries[-1][1] += " " + line.strip()
        return "\n".join(f"`{term}`\n:   {marked(sentence(text.strip()))}" for term, text in entries)

    def put_commands(self, _):
        lines = []
        for name, text in commands_of(self.root):
            text, _, arguments = text.partition(" (args: ")
            arguments = f" *{arguments.rstrip(').')}*" if arguments else ""
            lines += [f"`{name}`{arguments}", ":   " + marked(sentence(text))]
        return "\n".join(lines)

    def put_keys(self, _):
        schema = json.loads(subprocess.run([self.bin_dir / "einhorn", "--config-schema"], capture_output=True, text=True, check=True).stdout)
        kinds = {"true or false": [], "a number of seconds": [], "a number or an expression": [], "one value": [], "one value or a list": [], "a map": []}
        for key, rule in schema["properties"].items():
            one = rule.get("type")
            if "anyOf" in rule:
                kind = "one value or a list"
            elif one == "object":
                kind = "a map"
            elif one == "boolean":
                kind = "true or false"
            elif one == "number":
                kind = "a number of seconds"
            elif isinstance(one, list) and "integer" in one:
                kind = "a number or an expression"
            else:
                kind = "one value"
            kinds[kind].append(f"`{key}`")
        return "\n".join(f"{sentence(kind).rstrip('.')}\n:   {', '.join(keys)}" for kind, keys in kinds.items() if keys)

    def put_document(self, name):
        text = (self.root / name).read_text()
        text = re.sub(r"^```(\w+) (skip|wait)$", r"```\1", text, flags=re.MULTILINE)
        # What comes before the first heading is the description; its headings are this page's.
        return re.sub(r"\A# .*\n+", "", text)

    def markdown(self):
        def put(match):
            made = getattr(self, f"put_{match[1]}")(match[2] or "")
            return made + "\n"

        return re.sub(r"^\{\{(options|internal|help|commands|keys|document)(?:: (.*))?\}\}\n", put, self.text, flags=re.MULTILINE)

    def man(self, version):
        writer = Writer(reference)
        text = re.sub(r"\A# .*\n+", "", self.markdown())
        name, rest = re.match(r"\A## Name\n\n(.*?)\n\n(.*)\Z", text, re.DOTALL).groups()
        writer.blocks(rest)
        who, _, what = name.partition(" - ")
        head = [f'.\\" Made by scripts/man of {self.source.relative_to(self.root)}: change that, or what the program says of itself.']
        head.append(f'.TH {self.name.upper()} {self.section} "" "Einhorn {version}" "{SECTIONS[self.section]}"')
        head += [".SH NAME", f"{who} \\- {what}"]
        return "\n".join(head + writer.out) + "\n"


def main():
    arguments = sys.argv[1:]
    root = Path(__file__).resolve().parents[1]
    check = "--check" in arguments
    bin_dir = Path(next((a.split("=", 1)[1] for a in arguments if a.startswith("--bin-dir=")), root / "build/release/bin")).absolute()
    for program in ("einhorn", "einhornsh", "einhorn-agent"):
        if not (bin_dir / program).exists():
            print(f"{bin_dir / program}: not built", file=sys.stderr)
            return 1
    version = re.search(r"project\(einhorn VERSION ([\d.]+)", (root / "CMakeLists.txt").read_text())[1]
    pages = {p.name.removesuffix(".md"): p for p in sorted((root / "docs/man/source").glob("*.md"))}
    stale = [page for page in sorted((root / "docs/man").glob("*.[1-8]")) if page.name not in pages]
    for page in stale:
        print(f"{page}: has no source in docs/man/source", file=sys.stderr)
    for name, source in pages.items():
        target = root / "docs/man" / name
        made = Page(root, source, bin_dir).man(version)
        if target.exists() and target.read_text() == made:
            continue
        if check:
            stale.append(target)
            print(f"{target}: not what scripts/man makes of it; run scripts/man", file=sys.stderr)
        else:
            target.write_text(made)
            print(f"{target.relative_to(root)}: written")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
