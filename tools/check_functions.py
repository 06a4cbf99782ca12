#!/usr/bin/env python3
"""Fails when a function is longer than 100 lines or a source file longer than 1200 (needs ctags)."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

MAX_FUNCTION = 100
MAX_FILE = 1200
SKIPPED = 77


def sources(root):
    return sorted(str(p.relative_to(root)) for top in ("src", "apps", "include", "tests")
                  for p in (root / top).rglob("*.[ch]") if "node_modules" not in p.parts)


def functions(root, files):
    out = subprocess.run(["ctags", "--output-format=json", "--fields=+ne", "--kinds-C=f",
                          "--languages=C", "--langmap=C:+.h", "-f", "-", "-L", "-"], cwd=root,
                         input="\n".join(files), capture_output=True, text=True, check=True).stdout
    for row in map(json.loads, out.splitlines()):
        if "end" in row:
            yield row["path"], row["line"], row["name"], row["end"] - row["line"] + 1


def violations(root):
    files = sources(root)
    for name in files:
        n = (root / name).read_bytes().count(b"\n")
        if n > MAX_FILE:
            yield f"{name}: {n} lines, more than {MAX_FILE}"
    for path, line, name, n in functions(root, files):
        if n > MAX_FUNCTION:
            yield f"{path}:{line}: '{name}' has {n} lines, more than {MAX_FUNCTION}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."))
    root = parser.parse_args().root
    if not shutil.which("ctags"):
        print("skipped: ctags is not installed (package universal-ctags)")
        return SKIPPED
    found = list(violations(root))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
