"""The member of a typed id is touched, and an id made, in src/ir only.

The compiler cannot refuse x.id or (buf_q){7}, so this reads the sources: in every file that sees the
IR, a use of a member called id, and a compound literal or initialiser of an id type, is a finding,
unless the file is listed below with the reason.

usage: members.py SOURCE_ROOT
"""
import pathlib
import re
import sys

from diagnostics import Tap

ALLOWED = {
    "src/backend/cpu/cpu_internal.h": "its macros hand ids to buffers.c",
    "src/backend/cpu/cpu_backend.h": "CPU_BUFFER hands the ids of inputs and results to buffers.c",
}

SEES_IR = re.compile(r'#\s*include\s+"(ir|model|backend)/')
MEMBER = re.compile(r"(?:\.|->)\s*id\b(?!\s*\()")
ID_TYPE = r"\b(?:(?:buf|wt)_\w+|state_(?:kv|kv_ready|conv|delta))"
MADE = re.compile(r"\(\s*(?:const\s+)?(?:struct\s+)?" + ID_TYPE + r"\s*\)\s*\{\s*[^}\s]")
DECLARED = re.compile(ID_TYPE + r"\s+\w+\s*=\s*\{\s*(?!0?\s*\})")
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'", re.S)


def findings(text):
    """(line, what) of each use; comments and literals are blanked first."""
    includes = [line for line in text.splitlines() if SEES_IR.search(line)]
    code = NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    if not includes:
        return []
    found = []
    for pattern, what in ((MEMBER, "touches the member id"), (MADE, "makes an id"),
                          (DECLARED, "makes an id")):
        found += [(code.count("\n", 0, m.start()) + 1, what) for m in pattern.finditer(code)]
    return sorted(found)


# Lines that must be found, and lines that must not.
PLANTED = ["f(x.id);", "p->id = 3;", "g(& x . id);", "y = (buf_q){7};", "(const wt_norm) { w }",
           "state_kv kv = {1};", "buf_rms_in x = { .id = 4 };"]
HARMLESS = ["x.idle", "a->ids[3]", '"x.id"', "/* x.id */", "// p->id", "buf_rope_table table = {0};",
            "buf_q q = {};", "PUSH(g, embed, .ids = ids)", "(struct state_layout){.n = 1}",
            "buf_q q = f();", "struct op_conv c = {x};", "operand_id(n)"]


def self_test():
    head = '#include "ir/graph.h"\n'
    problems = [f"missed: {line}" for line in PLANTED if not findings(head + line)]
    problems += [f"wrongly found: {line}" for line in HARMLESS if findings(head + line)]
    return problems + (["a file without the IR"] if findings("x.id") else [])


def main():
    root = pathlib.Path(sys.argv[1])
    problems, unused, seen = [], set(ALLOWED), 0
    for folder in ("src", "apps"):
        for path in sorted((root / folder).rglob("*.[ch]")):
            name = path.relative_to(root).as_posix()
            if name.startswith("src/ir/"):
                continue
            found = findings(path.read_text(encoding="utf-8"))
            seen += 1
            if name in ALLOWED:
                unused -= {name} if found or not path.exists() else set()
            else:
                problems += [f"{name}:{line}: {what}" for line, what in found]
    unused = {name for name in unused if (root / name).exists()}
    tap = Tap(3)
    tap.report(self_test(), "planted uses are found and harmless lines are not")
    tap.report(problems if seen > 10 else ["no sources were read"],
               f"{seen} files outside src/ir leave ids alone")
    tap.report([f"{name} needs no exception" for name in sorted(unused)],
               "every exception is needed")
    sys.exit(tap.failed)


main()
