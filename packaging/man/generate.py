"""
Write the man pages and the shell completions of darner below a directory, as they lie below C{/usr/share}.

    python packaging/man/generate.py DIRECTORY

They come from what C{--help} comes from: the commands of the program (Click), the options of the server (Twisted), and
C{docs/darner.toml}, which has each setting with its default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

import darner
from darner.cli.options import Options
from darner.commands import exits
from darner.commands.program import SECTIONS, make_program

ROOT = Path(__file__).resolve().parent.parent.parent
COMPLETIONS = (
    ("bash-completion/completions/darner", BashComplete),
    ("zsh/vendor-completions/_darner", ZshComplete),
    ("fish/vendor_completions.d/darner.fish", FishComplete),
)
STATUSES = {
    exits.DONE: "All is done.",
    exits.FAILED: "It failed; a line on standard error says why.",
    exits.USAGE: "The command line or a file of settings is wrong.",
    exits.NOTHING: "There was no item.",
    exits.UNREACHABLE: "No server could be reached.",
    exits.IN_DOUBT: "The connection broke before the reply: it may be done, or not.",
    exits.NOT_ALLOWED: "The user may not do this, or could not log in.",
    exits.INTERRUPTED: "Interrupted by SIGINT.",
    exits.BROKEN_PIPE: "Nobody read standard output to its end.",
    exits.TERMINATED: "Ended by SIGTERM.",
}


def escaped(text: str) -> str:
    """@return: a line of text as roff shows it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + text if text.startswith(".") else text


def heading(title: str, section: int, summary: str) -> Iterator[str]:
    yield f'.TH "{escaped(title)}" {section} "" "darner {darner.__version__}" "darner"'
    yield ".SH NAME"
    yield f"{escaped(title)} \\- {escaped(summary)}"


def prose(text: str) -> Iterator[str]:
    """Paragraphs, of which those that begin with C{\\b} keep their lines, as Click has it."""
    for index, paragraph in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        lines = paragraph.strip("\n").splitlines()
        if index:
            yield ".PP"
        if lines and lines[0].strip() == "\b":
            yield from verbatim(lines[1:])
        else:
            yield escaped(" ".join(line.strip() for line in lines))


def verbatim(lines: Iterable[str]) -> Iterator[str]:
    yield from (".RS 4", ".nf")
    yield from (escaped(line) for line in lines)
    yield from (".fi", ".RE")


def entry(term: str, text: str) -> Iterator[str]:
    yield from (".TP", f"\\fB{escaped(term)}\\fR", escaped(" ".join(text.split())))


def see_also(*pages: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ", ".join(f"\\fB{escaped(page.partition('(')[0])}\\fR({page[-2]})" for page in pages)


def options_of(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield from entry(*record)


def program_page() -> Iterator[str]:
    """C{darner(1)}."""
    program = make_program()
    context = click.Context(program, info_name="darner", max_content_width=100)
    yield from heading("darner", 1, "work with servers of darner, the durable message queue")
    yield from (".SH SYNOPSIS", "\\fBdarner\\fR [\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]")
    yield from (".SH DESCRIPTION", *prose(program.help or ""))
    yield from (".SH OPTIONS", "These may also stand behind the name of a command.", *options_of(program, context))
    yield ".SH COMMANDS"
    for names in SECTIONS.values():
        for name in names:
            command = program.get_command(context, name)
            assert command is not None
            below = click.Context(command, info_name=name, parent=context)
            usage = " ".join(["darner", name, *command.collect_usage_pieces(below)])
            yield from (f".SS {escaped(name)}", f"\\fB{escaped(usage)}\\fR", ".PP", *prose(command.help or ""))
            yield from options_of(command, below)
    yield ".SH EXIT STATUS"
    for status, meaning in STATUSES.items():
        yield from entry(str(status), meaning)
    yield ".SH ENVIRONMENT"
    for parameter in program.params:
        if isinstance(parameter.envvar, str):
            yield from entry(parameter.envvar, f"In place of the option {parameter.opts[-1]}.")
    yield from entry("DARNER_PASSWORD", "The password itself.")
    yield ".SH FILES"
    yield from entry("~/.config/darner/client.toml", "Defaults for the options.")
    yield from see_also("darner-serve(8)", "darner.toml(5)")


def server_page() -> Iterator[str]:
    """C{darner-serve(8)}."""
    options = Options()
    yield from heading("darner-serve", 8, "the durable message queue server")
    yield from (".SH SYNOPSIS", "\\fBdarner serve\\fR [\\fIoptions\\fR]", ".br")
    yield from ("\\fBpython3 \\-m darner\\fR [\\fIoptions\\fR]", ".br")
    yield "\\fBtwistd\\fR [\\fItwistd's options\\fR] \\fBdarner\\fR [\\fIoptions\\fR]"
    yield from (".SH DESCRIPTION", *prose(options.longdesc), ".PP")
    yield escaped(
        "The server runs in the foreground until it gets SIGTERM or SIGINT.  On SIGHUP it reads the settings of queues "
        "again.  Options override the file that --config names; darner.toml(5) has every setting."
    )
    yield ".SH OPTIONS"
    short = {long: name for name, long in options.synonyms.items() if len(name) == 1}
    for found in sorted(options.longOpt):
        name = found.rstrip("=")
        if options.synonyms[name] != name:
            continue
        term = (f"-{short[name]}, " if name in short else "") + f"--{name}" + "=VALUE" * found.endswith("=")
        yield from entry(term, options.docs.get(name) or "")
    yield ".SH EXIT STATUS"
    yield from entry("0", "It was told to stop.")
    yield from entry("1", "It could not run; a line on standard error says why.")
    yield from entry("2", "The command line is wrong.")
    yield ".SH ENVIRONMENT"
    yield from entry("NOTIFY_SOCKET", "Where the server says that it serves, reloads or stops; see sd_notify(3).")
    yield from entry("WATCHDOG_USEC", "How long it may say nothing there, in microseconds: it does so twice as often.")
    yield from entry("LISTEN_FDS", "How many sockets it inherits; --listen=systemd:domain=INET6:index=0 is the first.")
    yield from see_also("darner(1)", "darner.toml(5)", "twistd(1)")


def settings_page() -> Iterator[str]:
    """C{darner.toml(5)}, from the sample: blocks of comments, and settings with the comment before them."""
    yield from heading("darner.toml", 5, "settings of the server darner and of its queues")
    yield ".SH DESCRIPTION"
    text = (ROOT / "docs" / "darner.toml").read_text()
    for index, block in enumerate(re.split(r"\n\n+", text.strip("\n"))):
        lines = block.splitlines()
        comment = [line[2:] for line in lines if line == "#" or line.startswith("# ")]
        settings = [line[1:] for line in lines if re.match(r"#[a-z\[]", line)]
        if settings and settings[0].startswith("["):
            if settings[0] != "[aliases]":  # the comment before it has its heading
                yield f".SH {escaped(settings[0].strip('[]').upper())}"
        elif settings:
            for setting in settings[:-1]:
                yield from (".TP", f"\\fB{escaped(setting)}\\fR", ".TQ")
            yield from (*([".TP"] if len(settings) == 1 else []), f"\\fB{escaped(settings[-1])}\\fR")
        elif index:
            title = re.match(r"The (server|queues)\.|(Aliases):", comment[0])
            yield f".SH {(title[1] or title[2]).upper()}" if title else ".PP"
        yield from commented(comment)
    yield from see_also("darner-serve(8)", "darner(1)")


def commented(lines: list[str]) -> Iterator[str]:
    """The words of a comment, and the examples among them."""
    for example, group in groupby((line for line in lines if line), lambda line: line.startswith("    ")):
        if example:
            yield from verbatim(line[4:] for line in group)
        else:
            yield escaped(" ".join(" ".join(group).split()))


PAGES = (
    ("man/man1/darner.1", program_page),
    ("man/man8/darner-serve.8", server_page),
    ("man/man5/darner.toml.5", settings_page),
)


def generate(share: Path) -> None:
    """Write all below C{share}."""
    for place, make in PAGES:
        write(share / place, "\n".join(make()) + "\n")
    program = make_program()
    for place, kind in COMPLETIONS:
        write(share / place, completion(kind(program, {}, "darner", "_DARNER_COMPLETE")))


def completion(shell: BashComplete | ZshComplete | FishComplete) -> str:
    """@return: what the shell runs.  Click would first look for a bash that is new enough, on this machine."""
    return shell.source_template % shell.source_vars()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").strip())
    generate(Path(sys.argv[1]))
