#!/usr/bin/python3
"""Completions for bash, zsh and fish, made of what the programs' -h says.

    completions.py BIN_DIR OUT     writes OUT/bash/PROGRAM, OUT/zsh/_PROGRAM and OUT/fish/PROGRAM.fish
"""

import sys
from pathlib import Path

from help_table import commands_of, is_internal, options_of

PROGRAMS = ("einhorn", "einhornsh", "einhorn-agent")
SIGNALS = "USR2 TERM QUIT INT HUP USR1 WINCH ABRT"
WORDS = {"ack-mode": "manual notify listen", "stop-signal": SIGNALS, "log-format": "text json"}
COMMANDS = " ".join(["history", *(name for name, _ in commands_of(Path(__file__).resolve().parents[1]))])
FILES = ("PATH", "FILE", "PIDFILE", "LOCKFILE", "CMDLINE")


def kind(option):
    """What completes its value: words, "files", "directories", or None."""
    if option.name in WORDS:
        return WORDS[option.name]
    value = option.value.strip("[]")
    if value == "DIR":
        return "directories"
    return "files" if value in FILES else None


def bash(program, options):
    names = " ".join(
        n for o in options for n in ([f"-{o.letter}"] if o.letter else []) + [f"--{o.name}"]
    )
    cases = []
    for option in options:
        if not option.value or option.optional:
            continue
        pattern = "|".join(([f"-{option.letter}"] if option.letter else []) + [f"--{option.name}"])
        reply = {"files": 'compgen -f -- "$word"', "directories": 'compgen -d -- "$word"', None: "true"}.get(
            kind(option), f'compgen -W "{kind(option)}" -- "$word"'
        )
        cases.append(f"    {pattern}) mapfile -t COMPREPLY < <({reply}); return ;;")
    behind = {
        "einhorn": 'compgen -c -- "$word"',
        "einhornsh": "true",
    }.get(program, "true")
    if program == "einhornsh":
        cases.insert(0, f'    -e|--execute) mapfile -t COMPREPLY < <(compgen -W "{COMMANDS}" -- "$word"); return ;;')
        cases = [c for i, c in enumerate(cases) if i == 0 or not c.startswith("    -e|")]
    function = "_" + program.replace("-", "_")
    return (
        f"# bash completion of {program}\n{function}() {{\n"
        '  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n  COMPREPLY=()\n'
        '  case $before in\n' + "\n".join(cases) + "\n  esac\n"
        '  if [[ $word == -* ]]; then\n'
        f'    mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$word")\n'
        f"  else\n    mapfile -t COMPREPLY < <({behind})\n  fi\n}}\n"
        f"complete -o filenames -F {function} {program}\n"
    )


def quoted(text):
    return text.replace("'", "'\\''")


def brief(option):
    """The first part of its text."""
    return option.text.split(";")[0].split(". ")[0]


def zsh(program, options):
    def description(option):
        text = brief(option)
        for special in "\\[]:":
            text = text.replace(special, "\\" + special)
        return quoted(text)

    lines = []
    for option in options:
        action = ""
        if option.value:
            what = {"files": "_files", "directories": "_files -/", None: " "}.get(kind(option), f"({kind(option)})")
            if program == "einhornsh" and option.name == "execute":
                what = f"({COMMANDS})"
            value = option.value.replace(":", "\\:").strip("[]").replace("[", "\\[").replace("]", "\\]")
            action = f":{'' if not option.optional else ':'}{value}:{what}"
        star = "*" if "may be" in option.text else ""
        for name in ([f"-{option.letter}"] if option.letter else []) + [f"--{option.name}"]:
            lines.append(f"  '{star}{name}[{description(option)}]{action}'")
    rest = "  '*::program: _normal'" if program == "einhorn" else "  '*:name: '"
    return f"#compdef {program}\n_arguments -s -S \\\n" + " \\\n".join(lines + [rest]) + "\n"


def fish(program, options):
    lines = [f"# fish completion of {program}", f"complete -c {program} -f"]
    for option in options:
        words = [f"complete -c {program}", f"-l {option.name}"]
        words += [f"-s {option.letter}"] if option.letter else []
        what = kind(option)
        if program == "einhornsh" and option.name == "execute":
            what = COMMANDS
        if option.value and not option.optional:
            words.append("-r -F" if what == "files" else "-x")
            if what == "directories":
                words.append("-a '(__fish_complete_directories)'")
            elif what not in (None, "files"):
                words.append(f"-a '{what}'")
        words.append(f"-d '{quoted(brief(option))}'")
        lines.append(" ".join(words))
    if program == "einhorn":
        lines.append("complete -c einhorn -a '(__fish_complete_subcommand)'")
    return "\n".join(lines) + "\n"


def main(bin_dir, out):
    for program in PROGRAMS:
        path = Path(bin_dir) / program
        if not path.exists():
            continue
        options = [option for option in options_of(path) if not is_internal(option)]
        for shell, name, make in (("bash", program, bash), ("zsh", f"_{program}", zsh), ("fish", f"{program}.fish", fish)):
            folder = Path(out) / shell
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(make(program, options))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
