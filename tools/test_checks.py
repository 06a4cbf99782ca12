#!/usr/bin/env python3
"""Proves that the checks can fail: each gets a tree with one fault, and the same tree without it."""
import pathlib
import subprocess
import sys
import tempfile

TOOLS = pathlib.Path(__file__).parent
LONG_FUNCTION = "int f(void);\nint f(void)\n{\n" + "    f();\n" * 120 + "    return 0;\n}\n"
GUARD = "#ifndef A_H\n#define A_H\n{}\n#endif\n"
CLEAN = {"src/base/good.h": "/* a */\n", "src/ir/good.c": '#include "base/good.h"\n'}

# name of the check, words its message must hold, the fault: path -> text
FAULTS = [
    ("layers", "ir may not include 'model/x.h'", {"src/ir/a.c": '#include "model/x.h"\n'}),
    ("layers", "apps may not include 'engine/x.h'", {"apps/a.c": '#include "engine/x.h"\n'}),
    ("layers", "climbs out", {"src/ir/a.c": '#include "../base/x.h"\n'}),
    ("layers", "has no row", {"src/novel/a.c": "int a;\n"}),
    ("layers", "kernel may not include 'base/err.h'", {"src/kernel/a.c": '#include "base/err.h"\n'}),
    ("style", "trailing blanks", {"src/ir/a.c": "int a; \n"}),
    ("style", "a tab", {"src/ir/a.c": "\tint a;\n"}),
    ("style", "invisible", {"docs/a.md": "a\u200bb\n"}),
    ("style", "no newline", {"docs/a.md": "a"}),
    ("style", "unfinished", {"docs/a.md": "TO" + "DO: more\n"}),
    ("style", "101 columns", {"src/ir/a.c": "/*" + "a" * 97 + "*/\n"}),
    ("style", "strcpy is forbidden", {"apps/a.c": "strcpy(a, b);\n"}),
    ("style", "abort has no place", {"src/ir/a.c": "abort();\n"}),
    ("style", "fprintf(stderr has no place", {"src/ir/a.c": 'fprintf(stderr, "a");\n'}),
    ("style", "getenv reads", {"src/ir/a.c": 'getenv("A");\n'}),
    ("style", "one name for", {"src/ir/a.c": "int a;\n", "src/base/a.c": "int b;\n"}),
    ("style", "a public header", {"include/sluice/a.h": '#include "base/err.h"\n'}),
    ("style", "not UTF-8", {"docs/a.md": b"\xff\n"}),
    ("functions", "'f' has 124 lines", {"src/ir/a.c": LONG_FUNCTION}),
    ("functions", "1201 lines", {"src/ir/a.c": "int a;\n" * 1201}),
    ("headers", "does not compile alone as c", {"src/ir/a.h": GUARD.format("size_t a;")}),
    ("headers", "does not compile alone as c", {"src/ir/a.h": "enum a { A };\n"}),
    ("headers", "as c++", {"include/sluice/a.h": GUARD.format("int new;")}),
]
# What looks like a fault and is none.
FINE = [
    ("layers", {"src/ir/a.c": '#include "format/dtype.h"\n#include "sluice/sluice.h"\n'}),
    ("style", {"src/ir/a.c": '/* abort() */ char a[] = "printf(";\nint snprintf(void);\n'}),
    ("style", {"src/ir/a.c": 'fprintf(file, "a");\n'}),
    ("functions", {"src/ir/a.c": LONG_FUNCTION.replace("    f();\n" * 30, "")}),
    ("headers", {"src/ir/a.h": GUARD.format("struct a;")}),
]


def write_tree(root, tree):
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def run_check(check, fault):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write_tree(root, {**CLEAN, **fault})
        extra = ["--cxx", "c++", "--", "cc"] if check == "headers" else []
        return subprocess.run([sys.executable, TOOLS / f"check_{check}.py", "--root", root, *extra],
                              capture_output=True, text=True)


def symbols_of(source, folder):
    obj = folder / "a.o"
    subprocess.run(["cc", "-x", "c", "-c", "-", "-o", obj], input=source, text=True, check=True)
    return subprocess.run([sys.executable, TOOLS / "check_symbols.py", "nm", obj],
                          capture_output=True, text=True).returncode


def loops_of(body, folder):
    obj = folder / "a.o"
    source = f"volatile long kept; void loop_a(long n) {{ long x = 1; for (long i = 0; i < n; i++) {body} }}"
    subprocess.run(["cc", "-O1", "-x", "c", "-c", "-", "-o", obj], input=source, text=True, check=True)
    return subprocess.run([sys.executable, TOOLS / "check_loops.py", "objdump", obj],
                          capture_output=True, text=True).returncode


def count_of(rows, folder):
    log = folder / "log.json"
    log.write_text(rows)
    run = subprocess.run([sys.executable, TOOLS / "count_tests.py", log], capture_output=True, text=True)
    return run.returncode, run.stdout.strip()


def cases():
    for check, words, fault in FAULTS:
        run = run_check(check, fault)
        yield f"{check}: {words}", run.returncode == 77 or (run.returncode == 1 and words in run.stdout)
    for check, tree in FINE:
        yield f"{check}: fine", run_check(check, tree).returncode in (0, 77)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        yield "symbols: public", symbols_of("int sluice_a;", folder) == 0
        yield "symbols: a strange one", symbols_of("int sluice_a, b;", folder) == 1
        yield "symbols: none", symbols_of("static int a;", folder) == 1
        yield "loops: in registers", loops_of('__asm__ volatile("" : "+r"(x));', folder) == 0
        yield "loops: in memory", loops_of("kept += x;", folder) == 1
        yield "loops: none", loops_of("return;", folder) == 1
        tap = '{"result": "%s", "stdout": "1..3\\nok 1 - a\\n%sok 2 - b\\nok 3 # SKIP c\\n"}\n'
        yield "count: passed", count_of(tap % ("OK", ""), folder) == (0, "2 passed, 0 failed, 1 skipped")
        yield "count: failed", count_of(tap % ("FAIL", "not "), folder) == (
            1, "1 passed, 1 failed, 1 skipped")
        yield "count: died", count_of(tap % ("ERROR", ""), folder) == (
            1, "2 passed, 1 failed, 1 skipped")
        yield "count: without TAP", count_of('{"result": "OK", "stdout": "fine"}\n', folder) == (
            0, "1 passed, 0 failed, 0 skipped")
        yield "count: nothing ran", count_of("", folder) == (1, "0 passed, 0 failed, 0 skipped")


def main():
    results = list(cases())
    print(f"1..{len(results)}")
    for n, (name, good) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {n} - {name.replace('#', '')}")
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
