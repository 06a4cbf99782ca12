"""
Fails where the documents and the project have come apart: a path that does not exist, a link or
section that leads nowhere, a command that does not run or prints something else, a row of the
design's tables that names no role or op, the library example of README.md that does not compile or
run. With --self-test: documents with one fault each, which must all be found.
"""
import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOPS = {"src", "apps", "examples", "include", "tests", "tools", "docs", "models", ".ci"}
# First words of commands that only a reader can run here.
NOT_RUN = {"git", "cc", "python3"}
TIMEOUT = 300

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.M)
PATH = re.compile(r"[\w.*-]+(/[\w.*<>-]+)+/?|[A-Z]\w+\.md")
TABLE = re.compile(r"^### (\w+) \((\d+)\)\n(.*?)(?=^#|\Z)", re.M | re.S)


class Doc:
    def __init__(self, root, name, text):
        self.folder = (root / name).parent
        self.root = root
        self.name = name
        self.text = text
        self.blocks = [(m[2], re.sub(f"^{m[1]}", "", m[3], flags=re.M)) for m in FENCE.finditer(text)]
        self.prose = FENCE.sub("", text)


def anchors(text):
    """The anchors that GitHub gives the headings of a document."""
    words = (re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in HEADING.findall(text))
    return set(words)


def check_links(doc):
    for target in LINK.findall(doc.prose):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        if not (doc.folder / file).exists():
            yield f"link to {target}: there is no such file"
            continue
        text = (doc.folder / file).read_text(encoding="utf-8") if anchor and file else doc.text
        if anchor and anchor not in anchors(text):
            yield f"link to {target}: there is no such section"


def check_paths(doc):
    for text in INLINE.findall(doc.prose):
        if not PATH.fullmatch(text) or text.split("/")[0] not in TOPS and not text.endswith(".md"):
            continue
        pattern = re.sub(r"<\w+>", "*", text.rstrip("/"))
        if not any(doc.root.glob(pattern)):
            yield f"`{text}`: there is no such file"


def verbs(root):
    return set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))


class Shell:
    """A folder in which the commands of one document run, one after the other."""

    def __init__(self, root, program, folder):
        self.folder = folder
        bin_folder = folder / ".bin"
        bin_folder.mkdir()
        (bin_folder / "sluice").symlink_to(program)
        for name in ("models", "tests"):
            (folder / name).symlink_to(root / name)
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path}

    def run(self, command):
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=self.folder, env=self.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False)
        return done.returncode, done.stdout.decode("utf-8", "replace")


def check_command(doc, shell, command):
    words = shlex.split(command, comments=True)
    if words and words[0] == "make":
        for word in words[1:]:
            if "=" not in word and word not in verbs(doc.root):
                yield f"{command}: the Makefile has no verb {word}"
    elif "sluice" in words:
        code, out = shell.run(command)
        if code != 0:
            yield f"{command}: exit status {code}\n{out}"
    elif words and words[0] not in NOT_RUN:
        yield f"{command}: neither run here nor known"


def same_output(want, got):
    """A line of dots in want stands for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in want)
    return re.fullmatch(pattern, got if got.endswith("\n") else got + "\n") is not None


def check_console(shell, text):
    for entry in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, *want = entry.splitlines()
        _, got = shell.run(command)
        if not same_output(want, got):
            yield f"{command}: prints\n{got}"


def check_commands(doc, program):
    with tempfile.TemporaryDirectory(prefix="sluice-docs-") as folder:
        shell = Shell(doc.root, program, pathlib.Path(folder))
        for kind, text in doc.blocks:
            if kind == "sh":
                for command in text.replace("\\\n", " ").splitlines():
                    yield from check_command(doc, shell, command)
            elif kind == "console":
                yield from check_console(shell, text)
            elif kind != "c":
                yield f"a block is marked '{kind}', not sh, console or c"


def cells(row):
    return [INLINE.findall(cell) for cell in row.strip("|").split("|")]


def check_tables(doc):
    """Tables under '### What (N)': N names on the left, names of src/ir on the right."""
    known = set(re.findall(r"\w+", "".join(
        (doc.root / "src" / "ir" / name).read_text()
        for name in ("role.def", "weight.def", "op.def", "role.h"))))
    for title, count, body in TABLE.findall(doc.prose):
        rows = [cells(line) for line in body.splitlines() if line.startswith("|")][2:]
        left = [name for row in rows for name in row[0]]
        if len(left) != int(count) or len(set(left)) != len(left):
            yield f"{title}: {len(set(left))} different names in {len(left)}, not {count}"
        for row in rows:
            for name in row[1]:
                if name not in known:
                    yield f"{title}: `{name}` is not in src/ir"


# What design.md says of a number, and what is counted: rows of a table in src/ir.
COUNTS = [
    (r"(\d+) roles in `src/ir/role.def`", "role.def", r"\bR\(\w+, \w+, \w+,"),
    (r"(\d+) such unions", "role.def", r"\bU\(\w+\)"),
    (r"with (\d+) conversions", "role.def", r"\bC\(\w+, \w+\)"),
    (r"(\d+) roles in `src/ir/weight.def`", "weight.def", r"\bWR\(\w+, \w+,"),
]


def check_counts(doc):
    prose = re.sub(r"\s+", " ", doc.prose)
    for claim, file, row in COUNTS:
        table = (doc.root / "src" / "ir" / file).read_text()
        n = len(re.findall(row, re.sub(r"/\*.*?\*/", "", table, flags=re.S)))
        for said in re.findall(claim, prose):
            if int(said) != n:
                yield f"'{claim}': it says {said}, {file} has {n}"


def check_example(doc, options):
    """The one C block of a document compiles without warnings, and runs if there is a library."""
    sources = [text for kind, text in doc.blocks if kind == "c"]
    if not sources:
        yield "there is no C example"
    for source in sources:
        with tempfile.TemporaryDirectory(prefix="sluice-docs-") as folder:
            folder = pathlib.Path(folder)
            (folder / "story.c").write_text(source)
            (folder / "models").symlink_to(doc.root / "models")
            lib = [f"{options.library}", f"-Wl,-rpath,{options.library.parent}"] if options.library else []
            compile_only = [] if lib else ["-fsyntax-only"]
            command = [*options.cc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                       f"-I{doc.root / 'include'}", *compile_only, "story.c", "-o", "story", *lib]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                yield f"the C example does not compile\n{done.stderr}"
            elif lib:
                ran = subprocess.run(["./story"], cwd=folder, capture_output=True, text=True,
                                     timeout=TIMEOUT, check=False)
                if ran.returncode != 0 or len(ran.stdout) < 40:
                    yield f"the C example: exit status {ran.returncode}\n{ran.stdout}{ran.stderr}"


def checks(doc, options):
    """(what is checked, complaints) of one document."""
    yield "links", check_links(doc)
    yield "paths", check_paths(doc)
    yield "commands", check_commands(doc, options.sluice)
    if doc.name == "docs/design.md":
        yield "tables", check_tables(doc)
        yield "counts", check_counts(doc)
    if doc.name == "README.md":
        yield "example", check_example(doc, options)


def documents(root):
    return sorted([*root.glob("*.md"), *root.glob("docs/*.md"), root / "tests/reference/README.md"])


# name of the document, check that must complain, its text
FAULTS = [
    ("README.md", "links", "[a](docs/none.md)"),
    ("README.md", "links", "[a](docs/tour.md#none)"),
    ("docs/a.md", "links", "[a](#none)\n# Other"),
    ("docs/a.md", "paths", "see `src/none.c`"),
    ("docs/a.md", "paths", "see `src/ir/none_*.c`"),
    ("docs/a.md", "paths", "see `NONE.md`"),
    ("docs/a.md", "commands", "```sh\nmake none\n```"),
    ("docs/a.md", "commands", "```sh\nsluice none\n```"),
    ("docs/a.md", "commands", "```sh\nsluice help none | cat\n```"),
    ("docs/a.md", "commands", "1. a\n\n   ```sh\n   sluice run --none\n   ```"),
    ("docs/a.md", "commands", "```sh\nlaunch\n```"),
    ("docs/a.md", "commands", "```bash\nsluice --version\n```"),
    ("docs/a.md", "commands", "```console\n$ echo 1 | sluice tokenize\nwrong\n```"),
    ("docs/a.md", "commands", "```console\n$ sluice --version\n...\nmore\n```"),
    ("docs/design.md", "tables", "### Ops (1)\n| a | here |\n|---|---|\n| `A` | `no_such_op` |\n"),
    ("docs/design.md", "tables", "### Ops (2)\n| a | here |\n|---|---|\n| `A` | `embed` |\n"),
    ("docs/design.md", "tables", "### Ops (2)\n| a | here |\n|---|---|\n| `A`, `A` | `embed` |\n"),
    ("docs/design.md", "counts", "There are 5 roles in `src/ir/role.def`."),
    ("docs/design.md", "counts", "1 such unions\nwith 2\nconversions"),
    ("docs/design.md", "counts", "5 roles in\n`src/ir/weight.def`"),
    ("README.md", "example", "none"),
    ("README.md", "example", "```c\n#include <sluice/sluice.h>\nint main(void) { return sluice(); }\n```"),
    ("README.md", "example", "```c\nint main(void) { return 1; }\n```"),
]
FINE = [
    ("docs/a.md", "see [a](tour.md), [b](#b) and `src/ir/push_*.c`, `a/b`, `tests/unit/<layer>_*.c`\n# B"),
    ("docs/a.md", "```sh\nmake test T=unit\nsluice --version # prints it\n```"),
    ("docs/a.md", "```console\n$ echo 1 | sluice detokenize --none\n...\n$ sluice --version\nsluice 0.1.0\n```"),
    ("docs/design.md", "### Ops (2)\n| a | here |\n|---|---|\n| `A`, `B` | `embed`, none |\n"),
    ("README.md", "```c\n#include <stdio.h>\nint main(void) { return printf(\"%50d\\n\", 1) < 0; }\n```"),
]


def self_test(options, report):
    for name, wanted, text in FAULTS:
        if wanted == "example" and "return 1" in text and not options.library:
            continue
        found = {check: list(bad) for check, bad in checks(Doc(ROOT, name, text), options)}
        report(f"finds the fault in {text!r}", [] if found[wanted] else ["nothing was found"])
    for name, text in FINE:
        all_found = checks(Doc(ROOT, name, text), options)
        bad = [line for check, lines in all_found if check != "example" or "```c" in text
               for line in lines]
        report(f"finds no fault in {text!r}", bad)


class Report:
    """Prints TAP."""

    def __init__(self):
        self.n = 0
        self.failed = 0

    def __call__(self, name, complaints):
        self.n += 1
        self.failed += bool(complaints)
        print(f"{'not ok' if complaints else 'ok'} {self.n} - {name}".replace("#", r"\#"))
        for complaint in complaints:
            print("# " + complaint.rstrip().replace("\n", "\n# "))
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sluice", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--library", type=pathlib.Path, help="libsluice.so, to run the example")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("cc", nargs="+", help="the compiler")
    options = parser.parse_args()
    options.sluice = options.sluice.resolve()
    options.library = options.library and options.library.resolve()
    report = Report()
    if options.self_test:
        self_test(options, report)
    else:
        for path in documents(ROOT):
            name = str(path.relative_to(ROOT))
            for check, complaints in checks(Doc(ROOT, name, path.read_text(encoding="utf-8")), options):
                report(f"{name}: {check}", list(complaints))
    print(f"1..{report.n}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
