"""
Other x86 processors, as qemu shows them: which instruction set is chosen, and that nothing in the
program needs more than that.
"""
import platform
import shutil

import harness

QEMU = shutil.which("qemu-x86_64")
MODEL = harness.REFERENCES / "tied"
IDS = (5, 17, 200, 3, 88, 41)
# Model of processor, its features. One without AVX, one without AVX2, one with all of it from either
# maker, and that one with a part missing: in the last case the system does not save the registers.
PROCESSORS = [
    ("Nehalem", "scalar"),
    ("SandyBridge", "scalar"),
    ("Haswell", "streams avx2"),
    ("EPYC-Rome", "avx2"),
    ("Haswell,-fma", "scalar"),
    ("Haswell,-f16c", "scalar"),
    ("Haswell,-avx2", "scalar"),
    ("Haswell,-xsave", "scalar"),
]


class Emulated(harness.Sluice):
    def __init__(self, path, processor):
        super().__init__(path)
        self.processor = processor

    def argv(self, args):
        return [QEMU, "-cpu", self.processor, *super().argv(args)]


def check_processor(tap, sluice, processor, features, want):
    with tap.case(f"{processor}: {features}, and the same text") as complaints:
        emulated = Emulated(sluice.path, processor)
        info = emulated.run("inspect", MODEL, "--json").json
        if info["cpu_features"] != features:
            complaints.append(info["cpu_features"])
        run = emulated.run("run", MODEL, "--ids", "-", "--print-ids", "--temperature", 0,
                           "--ignore-eos", "-n", len(want), "--precision", "exact",
                           stdin=harness.id_text(IDS))
        if [int(word) for word in run.out.split()] != want:
            complaints.append(run)


def tests(tap, sluice):
    if not QEMU or platform.machine() != "x86_64":
        tap.skip("other processors", "qemu-x86_64 is not here" if not QEMU else "not on x86-64")
        return
    want = sluice.greedy(MODEL, IDS, 12, "--precision", "exact")
    for processor, features in PROCESSORS:
        check_processor(tap, sluice, processor, features, want)


if __name__ == "__main__":
    harness.main(tests)
