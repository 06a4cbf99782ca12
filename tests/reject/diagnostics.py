"""On which lines of a C file a compiler finds errors."""
import os
import re
import subprocess

DIAGNOSTIC = re.compile(r"(.+?):(\d+):\d+: (?:fatal )?(error|warning|note): (.*)")
OPTIONS = {"gcc": ["-fmax-errors=0", "-fno-diagnostics-show-caret", "-fdiagnostics-color=never"],
           "clang": ["-ferror-limit=0", "-fno-caret-diagnostics", "-fno-color-diagnostics"]}


def compile_file(compiler, flags, path):
    """Exit status and messages of a syntax check; compiler is (id, [command])."""
    command = compiler[1] + flags + OPTIONS[compiler[0]] + ["-fsyntax-only", path]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace",
                         env=dict(os.environ, LC_ALL="C"))
    return run.returncode, run.stderr


def error_lines(messages, path):
    """Lines of path with errors: {line: text}, and errors elsewhere that no macro in path explains.

    An error in a macro of a header counts on the line that uses the macro, which a note names.
    """
    lines, elsewhere, pending = {}, [], None
    for message in messages.splitlines():
        match = DIAGNOSTIC.match(message)
        if not match:
            continue
        where, line, kind, text = match[1], int(match[2]), match[3], match[4]
        if kind in ("error", "warning"):
            if pending:
                elsewhere.append(pending)
            pending = None
        if kind == "error" and where == path:
            lines.setdefault(line, text)
        elif kind == "error":
            pending = message
        elif kind == "note" and pending and where == path and "macro" in text:
            lines.setdefault(line, pending)
            pending = None
    if pending:
        elsewhere.append(pending)
    return lines, elsewhere


def parse_arguments(arguments):
    """ID COMMAND... -- FLAG... -- REST... as ((id, command), flags, rest)."""
    first = arguments.index("--")
    second = arguments.index("--", first + 1)
    return (arguments[0], arguments[1:first]), arguments[first + 1:second], arguments[second + 1:]


class Tap:
    def __init__(self, planned):
        self.count, self.failed = 0, False
        print(f"1..{planned}")

    def report(self, problems, name):
        self.count += 1
        for problem in problems[:20]:
            print(f"# {problem}")
        if len(problems) > 20:
            print(f"# and {len(problems) - 20} more")
        print(f"{'not ok' if problems else 'ok'} {self.count} - {name}", flush=True)
        self.failed |= bool(problems)
