"""Each case must compile with -DACCEPT and, without it, fail on exactly the lines marked REJECT.

usage: cases.py ID COMPILER... -- FLAG... -- CASE.c...
"""
import os
import sys

from diagnostics import Tap, compile_file, error_lines, parse_arguments


def problems_of(compiler, flags, path):
    with open(path, encoding="ascii") as source:
        want = {n for n, text in enumerate(source, 1) if "REJECT" in text}
    problems = [] if want else ["no line is marked REJECT"]
    status, messages = compile_file(compiler, flags + ["-DACCEPT"], path)
    if status != 0:
        problems += ["the control does not compile"] + messages.splitlines()
    status, messages = compile_file(compiler, flags, path)
    lines, elsewhere = error_lines(messages, path)
    problems += [f"line {n} compiles" for n in sorted(want - lines.keys())]
    problems += [f"line {n}: {lines[n]}" for n in sorted(lines.keys() - want)]
    return problems + elsewhere


def main():
    compiler, flags, cases = parse_arguments(sys.argv[1:])
    tap = Tap(len(cases))
    for path in cases:
        tap.report(problems_of(compiler, flags, path), os.path.basename(path))
    sys.exit(tap.failed)


main()
