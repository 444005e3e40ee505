#!/usr/bin/env python3
"""Tests run.py: a mutation that can't be used is told clearly, and what a search says is understood."""

import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

import run

SOURCE = "int one(int a) {\n  return f(a,\n           1) + 2;\n}\nint two() { return 2; }\n"
HEAD = "breaks: it\nfile: src/a.cpp\n"


class Check(unittest.TestCase):
    def check(self, text):
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            (root / "src").mkdir()
            (root / "src" / "a.cpp").write_text(SOURCE)
            (root / "m").mkdir()
            (root / "m" / "name.mutation").write_text(text)
            try:
                for mutation in run.read_all(root / "m", []):
                    run.mutate(mutation, root)
            except run.Wrong as wrong:
                return 1, str(wrong)
            return 0, ""

    def test_one_that_applies_however_the_source_is_broken_into_lines(self):
        self.assertEqual(self.check(HEAD + "- return f( a, 1)\n- + 2;\n+ return 0;\n"), (0, ""))

    def test_one_that_does_not_apply_any_more(self):
        code, said = self.check(HEAD + "- return g(a);\n+ return 0;\n")
        self.assertEqual(code, 1)
        self.assertIn("name: in src/a.cpp this is found 0 times instead of once: return g(a);", said)

    def test_one_that_applies_twice(self):
        code, said = self.check(HEAD + "- return\n+ return 0;\n")
        self.assertEqual(code, 1)
        self.assertIn("found 2 times", said)

    def test_one_that_changes_nothing(self):
        code, said = self.check(HEAD + "- return 2;\n+ return  2;\n")
        self.assertEqual(code, 1)
        self.assertIn("changes nothing", said)

    def test_one_whose_file_is_gone(self):
        code, said = self.check("breaks: it\nfile: src/b.cpp\n- x\n+ y\n")
        self.assertEqual(code, 1)
        self.assertIn("there is no file src/b.cpp any more", said)

    def test_malformed_ones(self):
        for text in ("", "breaks: it\n", "file: src/a.cpp\n- x\n", HEAD, HEAD + "+ x\n", "what\n",
                     HEAD + "- x\n+ y\n- z\n"):
            self.assertEqual(self.check(text)[0], 1, text)

    def test_an_unknown_name(self):
        done = subprocess.run([sys.executable, run.__file__, "--check", "no-such-one"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no mutation is called no-such-one", done.stderr)


class Judge(unittest.TestCase):
    SAID = "seed 5 holds\nseed 6 holds\n"

    def test_an_invariant(self):
        found = run.judge(1 << 8, self.SAID + "\ncapacity does not hold: too few\n"
                          "replay: scripts/sim --seed 7\n", 5)
        self.assertEqual((found.kind, found.by, found.what, found.seed, found.lives),
                         ("invariant", "capacity", "too few", 7, 3))

    def test_a_check(self):
        found = run.judge(int(signal.SIGABRT), self.SAID + "einhorn: CHECK failed: due at pool.cpp:1\n"
                          "aborted; replay: scripts/sim --seed 7\n", 5)
        self.assertEqual((found.kind, found.seed, found.lives), ("check", 7, 3))

    def test_a_crash_is_told_apart(self):
        found = run.judge(int(signal.SIGSEGV), self.SAID, 5)
        self.assertEqual((found.kind, found.by, found.seed), ("crash", "SIGSEGV", 7))
        self.assertEqual(run.judge(int(signal.SIGABRT), self.SAID, 5).kind, "crash")
        self.assertEqual(run.judge(3 << 8, self.SAID, 5).by, "status 3")

    def test_nothing(self):
        found = run.judge(int(signal.SIGXCPU), self.SAID, 5)
        self.assertEqual((found.kind, found.lives), ("nothing", 2))

    def test_a_row_that_came_to_its_end(self):
        found = run.judge(0, self.SAID, 5)
        self.assertEqual((found.kind, found.lives), ("nothing", 2))

    def test_a_life_that_never_ends_is_not_found(self):
        self.assertEqual(run.judge(int(signal.SIGXCPU), "", 5).kind, "nothing")


if __name__ == "__main__":
    unittest.main()
