#!/usr/bin/env python3
"""
Fails on what no file of the project may hold: trailing blanks, tabs, invisible characters,
forbidden functions in C, unfinished work, the same file name twice under src/, a public header
that includes more than C and its own kind.
"""
import argparse
import collections
import pathlib
import re
import sys

TOPS = ("src", "apps", "include", "tests", "tools", "docs", ".ci")
TEXT = {".c", ".h", ".def", ".build", ".py", ".sh", ".md", ".txt", ".ini", ".js", ".mjs", ".1", ""}
TAB_FILES = {"Makefile"}
ODD_TEXT_FILES = {"samples.mjs"}  # texts that are hard to tokenize, on purpose
LONG_LINE_SUFFIXES = {".c", ".h"}  # tables stay unwrapped
MAX_COLUMNS = 100

# Zero-width and bidirectional controls, soft hyphen, exotic blanks, byte order mark.
INVISIBLE = re.compile("[\u00a0\u00ad\u061c\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\ufeff]")
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
UNSAFE = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|gets|alloca)\s*\(")
PRINTING = re.compile(
    r"\b(printf|puts|putchar|perror|exit|_exit|abort)\s*\(|\bfprintf\s*\(\s*(stdout|stderr)\b")
GETENV = re.compile(r"\b(secure_)?getenv\s*\(")
GETENV_FILES = {"log.c", "cpu.c", "engine.c"}
PUBLIC_INCLUDE = re.compile(r'#\s*include\s+(<(?:std\w+|string|math)\.h>|"sluice/[\w.]+")')


def text_files(root):
    yield from (p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    for top in TOPS:
        yield from (p for p in (root / top).rglob("*") if p.is_file())


def checked(root):
    for path in sorted(text_files(root)):
        name = path.relative_to(root)
        if path.suffix in TEXT and not {"node_modules", "reference", "corpus"} & set(name.parts):
            yield name, path


def check_text(name, text):
    for n, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip():
            yield f"{name}:{n}: trailing blanks"
        if "\t" in line and name.name not in TAB_FILES:
            yield f"{name}:{n}: a tab"
        if INVISIBLE.search(line) and name.name not in ODD_TEXT_FILES:
            yield f"{name}:{n}: an invisible character"
        if UNFINISHED.search(line):
            yield f"{name}:{n}: unfinished work is marked"
        if len(line) > MAX_COLUMNS and name.suffix in LONG_LINE_SUFFIXES:
            yield f"{name}:{n}: {len(line)} columns, more than {MAX_COLUMNS}"
    if text and not text.endswith("\n"):
        yield f"{name}: no newline at the end"


def code_only(text):
    """text with comments and literals blanked, line by line as before."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def check_code(name, text):
    rules = []
    if name.parts[0] != "tests":
        rules.append((UNSAFE, "is forbidden"))
    if name.parts[0] == "src":
        rules.append((PRINTING, "has no place in the library"))
        if name.name not in GETENV_FILES:
            rules.append((GETENV, "reads the environment"))
    for n, line in enumerate(code_only(text).splitlines(), 1):
        for pattern, why in rules:
            match = pattern.search(line)
            if match:
                yield f"{name}:{n}: {match[0].rstrip('( ')} {why}"


def check_public(name, text):
    for n, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") and "include" in line and not PUBLIC_INCLUDE.search(line):
            yield f"{name}:{n}: a public header includes the C library and sluice/ alone"


def check_names(names):
    places = collections.defaultdict(list)
    for name in names:
        if name.parts[0] == "src" and name.suffix in (".c", ".h", ".def"):
            places[name.name].append(str(name))
    for name, paths in places.items():
        if len(paths) > 1:
            yield f"{name}: one name for {' and '.join(paths)}"


def violations(root):
    names = []
    for name, path in checked(root):
        names.append(name)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as problem:
            yield f"{name}: not UTF-8 (byte {problem.start})"
            continue
        yield from check_text(name, text)
        if name.suffix in (".c", ".h", ".def"):
            yield from check_code(name, text)
        if name.parts[0] == "include":
            yield from check_public(name, text)
    yield from check_names(names)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."))
    found = list(violations(parser.parse_args().root))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
