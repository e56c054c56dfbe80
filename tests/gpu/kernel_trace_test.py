#!/usr/bin/env python3
"""kernel_trace_test.py LIBRARY STAND_IN: what kernel_trace.cc writes of what a stand-in of CUPTI delivers."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kernel_table  # noqa: E402

LIBRARY, STAND_IN = sys.argv.pop(1), sys.argv.pop(1)


class KernelTrace(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "trace.csv"

    def trace(self, end="", **environment):
        """Lines of a program that CUDA has loaded the library into, and what it said."""
        program = f"import ctypes; ctypes.CDLL({LIBRARY!r}).InitializeInjection(); {end}"
        environment = {"STRAKE_KERNEL_TRACE": str(self.path), **environment}
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60,
                              env={**os.environ, **environment, "LD_PRELOAD": STAND_IN}, check=True)
        return done.stderr

    def test_writes_all_that_is_delivered_up_to_the_end(self):
        self.assertEqual(self.trace(), "")
        activities = kernel_table.read_trace(self.path)
        self.assertEqual([each.kind for each in activities], ["memset", "kernel", "memcpy", "kernel", "kernel"])
        self.assertEqual([each.start_ns for each in activities], [100, 200, 300, 500, 600])
        self.assertEqual([each.bytes for each in activities], [4, 0, 1 << 20, 0, 0])
        self.assertEqual(activities[1].grid, "132x1x1")
        self.assertTrue(activities[1].name.startswith("void strake::kernels::layer_norm.cu::forward_kernel<"),
                        activities[1].name)
        self.assertEqual(kernel_table.short(activities[1].name), "layer_norm.cu::forward_kernel")
        self.assertEqual(activities[2].name, "memcpy HtoD")
        self.assertEqual(activities[2].stream, 13)
        self.assertEqual(activities[3].name, 'plain "C" name, with a comma')
        self.assertEqual(activities[4].name, "?")

    def test_says_what_is_lost(self):
        self.assertIn("6 activities were lost", self.trace(STRAKE_STAND_IN_LOST="3"))
        with self.assertRaisesRegex(kernel_table.BadTrace, "6 activities were lost"):
            kernel_table.read_trace(self.path)

    def test_a_program_that_is_killed_leaves_no_whole_trace(self):
        self.trace(end="import os; os._exit(0)")
        with self.assertRaisesRegex(kernel_table.BadTrace, "the last line is missing|the header is another"):
            kernel_table.read_trace(self.path)

    def test_names_the_file_by_process_and_goes_on_where_it_cannot_be_written(self):
        self.trace(STRAKE_KERNEL_TRACE=str(self.path.parent / "trace-%p.csv"))
        (written,) = self.path.parent.iterdir()
        self.assertRegex(written.name, r"^trace-\d+\.csv$")
        self.assertEqual(len(kernel_table.read_trace(written)), 5)
        self.assertIn("No such file", self.trace(STRAKE_KERNEL_TRACE="/nowhere/trace.csv"))


if __name__ == "__main__":
    unittest.main()
