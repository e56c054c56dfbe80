#!/usr/bin/env python3
"""kernel_table.py on small traces made up here: what it takes for a step, adds up, and compares."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kernel_table  # noqa: E402

HEADER = "kind,start_ns,end_ns,device,stream,grid,block,bytes,name\n"
K = "void strake::kernels::"
NORM_FORWARD = K + "layer_norm.cu::forward_kernel<__nv_bfloat16, 1, true>(__nv_bfloat16*, float*, long)"
NORM_BACKWARD = K + "layer_norm.cu::norm_backward_kernel<__nv_bfloat16>(__nv_bfloat16*, int)"
PRODUCT = "nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNT"
EMBEDDING = K + "embedding.cu::forward_kernel<__nv_bfloat16>(__nv_bfloat16*, int const*)"
EMBEDDING_BACKWARD = K + "embedding.cu::sum_runs_kernel<__nv_bfloat16>(float*)"
CROSS_ENTROPY = K + "cross_entropy.cu::row_kernel<__nv_bfloat16>(__nv_bfloat16*)"
LOSS = K + "cross_entropy.cu::loss_kernel(float*, float const*, long, double, bool)"
SQUARES = K + "optimizer.cu::square_sums_kernel<__nv_bfloat16>(double*)"
ADAMW = K + "optimizer.cu::adamw_kernel<__nv_bfloat16>(float*, float*)"
LAYERS = 3


class Trace:
    """Lines of a trace; a clock for each stream."""

    def __init__(self):
        self.lines, self.now = [], 1_000_000

    def add(self, name, us, gap_us=1.0, stream=7, kind="kernel", size=""):
        begin = self.now + int(gap_us * 1e3)
        self.now = begin + int(us * 1e3)
        grid = "8x1x1" if kind == "kernel" else ""
        self.lines.append(f'{kind},{begin},{self.now},0,{stream},{grid},{grid},{size},"{name}"\n')

    def beside(self, name, us, stream=9):
        self.lines.append(f'kernel,{self.now},{self.now + int(us * 1e3)},0,{stream},1x1x1,1x1x1,,"{name}"\n')

    def text(self, lost=0, lines=None):
        # CUPTI delivers in no order of time.
        shuffled = self.lines[1::2] + self.lines[0::2]
        return HEADER + "".join(shuffled) + f"end,{lost},0,0,0,,,{len(self.lines) if lines is None else lines},\n"


def our_step(trace, micro_batches=1):
    for _ in range(micro_batches):
        trace.add(EMBEDDING, 5)
        for _ in range(LAYERS):
            trace.add(NORM_FORWARD, 10)
            trace.add(PRODUCT, 100)
        trace.add(CROSS_ENTROPY, 50)
        trace.add(LOSS, 2)
        for _ in range(LAYERS):
            trace.add(PRODUCT, 200)
            trace.beside("ncclDevKernel_AllReduce_Sum_bf16(ncclDevKernelArgs)", 900)
            trace.add(NORM_BACKWARD, 20)
        trace.add(EMBEDDING_BACKWARD, 8)
    trace.add("memset", 1, kind="memset", size=4)
    trace.add(SQUARES, 10)
    trace.add(ADAMW, 90)
    trace.add("memcpy DtoH", 1, kind="memcpy", size=4)
    trace.add("memcpy DtoH", 1, kind="memcpy", size=4)


def our_trace(steps=6, micro_batches=1):
    trace = Trace()
    for _ in range(40):  # products that are timed before the first step, longer than all steps compute
        trace.add("void probe_kernel()", 50)
        trace.add("void probe_kernel()", 900, stream=3)
    for _ in range(steps):
        our_step(trace, micro_batches)
        trace.now += 3000  # the host
    trace.add("memcpy DtoH", 40, kind="memcpy", size=4096)  # the end of the program
    return trace


def peer_trace(steps=6):
    trace = Trace()
    for _ in range(steps):
        for _ in range(LAYERS):
            trace.add("triton_red_fused_native_layer_norm_0", 12)
            trace.add(PRODUCT, 110)
        trace.add("triton_red_fused__log_softmax_nll_loss_forward_3", 60)
        for _ in range(2 * LAYERS):
            trace.add(PRODUCT, 105)
            trace.add("triton_poi_fused_gelu_gelu_backward_5", 7)
        for _ in range(9):  # alike, one behind the other, more often than steps are looked at
            trace.add("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4> >(int)", 10)
    return trace


FORWARD_MS = (5 + LAYERS * (10 + 100 + 2) + 50 + 2 + 3) / 1e3  # with the gaps before each
BACKWARD_MS = (LAYERS * (200 + 20 + 2) + 8 + 1 + 1 + 1) / 1e3  # the memset lies before the norm
OPTIMIZER_MS = (10 + 90 + 1 + 1 + 4) / 1e3


def bench(forward=FORWARD_MS + 3e-3, backward=BACKWARD_MS, optimizer=OPTIMIZER_MS, ranks=1):
    return {"format": "strake-bench-step-1", "steps": 2, "repeats": 2, "ranks": [{}] * ranks,
            "step_ms": {"median": FORWARD_MS + 3e-3 + BACKWARD_MS + OPTIMIZER_MS},
            "breakdown_ms": {"forward": forward, "h2d": 0.0, "data_wait": 0.0, "host_gap": 0.0, "backward": backward,
                             "exposed_comm": 0.0, "optimizer": optimizer}}


class KernelTable(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, content):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    def run_main(self, *arguments):
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = kernel_table.main(list(arguments))
        return code, out.getvalue(), errors.getvalue()

    def table(self, trace, steps=4, **more):
        return kernel_table.table_of(self.write("trace.csv", trace.text()), steps, **more)

    def test_adds_up_the_kernels_of_a_step(self):
        table = self.table(our_trace())
        self.assertEqual(table["steps"], 4)
        step = table["found"][0]
        self.assertIn("embedding.cu", step[0].name, "a step begins behind the optimizer and its copies")
        self.assertEqual(step[-1].name, "memcpy DtoH")
        kernels = {row["kernel"]: row for row in table["kernels"]}
        product = kernels[PRODUCT]
        self.assertEqual(product["calls"], 2 * LAYERS)
        self.assertAlmostEqual(product["ms"], 0.9)
        self.assertEqual(table["kernels"][0], product, "longest first")
        self.assertEqual(kernels["layer_norm.cu::forward_kernel"]["calls"], LAYERS)
        self.assertNotIn("ncclDevKernel_AllReduce_Sum_bf16", kernels, "another stream")
        self.assertAlmostEqual(table["step_ms"], FORWARD_MS + BACKWARD_MS + OPTIMIZER_MS + 3e-3)
        self.assertAlmostEqual(sum(table["parts"].values()), table["busy_ms"])
        self.assertAlmostEqual(table["busy_ms"] + table["idle_ms"], table["step_ms"])
        self.assertEqual(table["gaps_over_1us"], 1, "where the host is")
        self.assertAlmostEqual(table["parts"]["norm"], LAYERS * 0.03)
        self.assertAlmostEqual(table["parts"]["cross-entropy"], 0.052)

    def test_finds_steps_of_another_program(self):
        table = self.table(peer_trace())
        self.assertEqual(table["activities"], 2 * LAYERS + 1 + 4 * LAYERS + 9)
        self.assertIn("layer_norm", table["found"][0][0].name)
        self.assertAlmostEqual(table["parts"]["optimizer"], 0.09)
        self.assertAlmostEqual(table["parts"]["activation"], 2 * LAYERS * 0.007)

    def test_says_if_there_are_no_such_steps(self):
        with self.assertRaisesRegex(kernel_table.BadTrace, "no 9 steps"):
            self.table(our_trace(steps=6), steps=9)
        trace = Trace()
        for i in range(8):
            our_step(trace)
            trace.add(f"another_kernel_{i}", 1)
        with self.assertRaisesRegex(kernel_table.BadTrace, "no 4 steps"):
            self.table(trace)
        self.assertEqual(len(self.table(our_trace(), marker="adamw")["found"]), 4)
        with self.assertRaises(kernel_table.BadTrace):
            self.table(our_trace(), marker="no such kernel")
        with self.assertRaisesRegex(kernel_table.BadTrace, "no kernel ran"):
            self.table(our_trace(), stream=4)

    def test_takes_whole_traces_only(self):
        whole = our_trace().text()
        lines = whole.splitlines(keepends=True)
        bad = {
            "the last line is missing": "".join(lines[:-1]),
            "2 activities were lost": our_trace().text(lost=2),
            "of 9 lines": our_trace().text(lines=9),
            "header": whole.replace("stream", "queue", 1),
            "fields instead of 9": whole.replace(",0,7,", ",0,", 1),
            "invalid literal": whole.replace("kernel,", "kernel,x", 1),
        }
        for said, text in bad.items():
            code, _, errors = self.run_main(self.write("bad.csv", text))
            self.assertEqual(code, 2, said)
            self.assertIn(said, errors)
            self.assertEqual(errors.count("\n"), 1)
        for cut in range(0, len(whole) - 2, 997):
            code, _, errors = self.run_main(self.write("torn.csv", whole[:cut]))
            self.assertEqual(code, 2, errors)
        self.assertEqual(self.run_main(str(self.folder / "nowhere.csv"))[0], 2)

    def test_compares_the_account(self):
        trace = self.write("trace.csv", our_trace().text())
        code, out, errors = self.run_main(trace, "--bench", self.write("bench.json", bench()))
        self.assertEqual(code, 0, out + errors)
        self.assertEqual(out.count("| agree |"), 4)
        for wrong in (bench(forward=1.1 * FORWARD_MS), bench(backward=0.95 * BACKWARD_MS),
                      bench(optimizer=OPTIMIZER_MS + 0.03)):
            code, out, _ = self.run_main(trace, "--bench", self.write("bench.json", wrong))
            self.assertEqual(code, 1)
            self.assertEqual(out.count("| DIFFER |"), 1, out)
        for text in ("", "{}", '{"format": "strake-bench-comm-1"}'):
            self.assertEqual(self.run_main(trace, "--bench", self.write("bench.json", text))[0], 2)

    def test_compares_the_account_of_several_micro_batches(self):
        found = self.table(our_trace(micro_batches=2))["found"]
        classes = kernel_table.classes_of(found)
        without_memset = BACKWARD_MS - 2e-3
        self.assertAlmostEqual(classes["forward"], 2 * FORWARD_MS + 3e-3)
        self.assertAlmostEqual(classes["backward"], without_memset + BACKWARD_MS)

    def test_puts_a_peer_beside(self):
        code, out, errors = self.run_main(self.write("ours.csv", our_trace().text()), "--steps", "4", "--peer",
                                          self.write("peer.csv", peer_trace().text()), "--peer-name", "torch",
                                          "--json", str(self.folder / "out.json"))
        self.assertEqual(code, 0, errors)
        self.assertIn("torch ms | difference |", out)
        self.assertIn("| matrix products | 0.900 |", out)
        self.assertRegex(out, r"\| activation \| 0\.000 \| 0\.0 % \| 0\.042 \| -0\.042 \|")
        written = json.loads((self.folder / "out.json").read_text())
        self.assertAlmostEqual(written["peer"]["parts"]["matrix products"], LAYERS * 0.11 + 2 * LAYERS * 0.105)

    def test_knows_the_rates_of_our_operations(self):
        operations = [
            {"operation": "layer_norm_forward", "calls": LAYERS, "bytes": 20e6, "flops": 0},
            {"operation": "layer_norm_backward", "calls": LAYERS, "bytes": 30e6, "flops": 0},
            {"operation": "cross_entropy_forward_backward", "calls": 1, "bytes": 100e6, "flops": 0},
            {"operation": "accumulate_loss", "calls": 1, "bytes": 1e3, "flops": 0},
            {"operation": "adamw", "calls": 1, "bytes": 180e6, "flops": 0},
            {"operation": "linear_forward", "calls": LAYERS, "bytes": 1, "flops": 50e9},
            {"operation": "linear_backward_input", "calls": LAYERS, "bytes": 1, "flops": 100e9},
        ]
        table = self.table(our_trace())
        kernel_table.add_rates(table, {"operations": operations})
        rate = {row["kernel"]: row["gb_per_s"] for row in table["kernels"]}
        self.assertAlmostEqual(rate["layer_norm.cu::forward_kernel"], 2000)
        self.assertAlmostEqual(rate["layer_norm.cu::norm_backward_kernel"], 1500)
        self.assertAlmostEqual(rate["cross_entropy.cu::row_kernel"], 2000)
        self.assertAlmostEqual(rate["optimizer.cu::adamw_kernel"], 2000)
        self.assertAlmostEqual(table["products_tflops"], LAYERS * 150e9 / 0.9e-3 / 1e12)

    def test_knows_kernels_by_name(self):
        for name, part in (
                (PRODUCT, "matrix products"), (NORM_BACKWARD, "norm"), (ADAMW, "optimizer"),
                ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7", "attention"),
                ("void cudnn::fusion::compute_dot_do_o_specialized<true>(int)", "attention"),
                ("void cublasLt::splitKreduce_kernel<32, 16>(int)", "matrix products"),
                ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", "communication"),
                (K + "swiglu.cu::backward_kernel<float>(float*)", "activation"),
                ("memset", "copies and memsets"), ("triton_poi_fused_add_7", "other")):
            self.assertEqual(kernel_table.part_of(name), part, name)
        self.assertEqual(kernel_table.short("void at::copy<int, f(int)>(int) [clone]"), "at::copy [clone]")


if __name__ == "__main__":
    unittest.main()
