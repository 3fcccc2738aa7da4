from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

class ExitRule:
    """
    At which rung inputs exit: a score and thresholds. Keeps copies of the arrays.
    """

    def __init__(
        self,
        score: str,
        parameter: float,
        thresholds: NDArray[numpy.float64],
        temperatures: NDArray[numpy.float64] | None,
        deferral: NDArray[numpy.float64] | None = None,
    ) -> None:
        """
        score: its name, with its parameter (0 = none). thresholds (1 or n_seqs, n_rungs - 1): NaN = inactive rung.
        temperatures (n_rungs) or None. deferral (n_rungs - 1, 4 + n_classes): weights of the learned score.
        """

    def values(self, rung: int, history: NDArray[numpy.float32]) -> NDArray[numpy.float64]:
        """
        history (n, active rungs so far, n_classes) → scores (n) at an active rung before the last.
        """

class TokenRule:
    """Which tokens layers keep. Keeps copies of the arrays."""

    def __init__(
        self, keep: str, score: str, scale: str, values: NDArray[numpy.float64], vocabulary: NDArray[numpy.bool_] | None
    ) -> None:
        """
        keep: threshold, share or count. score: received, received-from-others or predicted. scale: relative, paper or
        ltp-code. values (L): NaN = no pruning. vocabulary (vocabulary size): which entries are read; None = all.
        """

class kernels:
    """
    Single kernels, for tests and measurements. `name` is an instruction set; arrays are
    float32, indices int32. Results are new matrices.
    """

    @staticmethod
    def names() -> list[str]:
        """Instruction sets that run here, those for tests included."""

    @staticmethod
    def agrees_with_scalar(name: str) -> bool:
        """Whether the set computes what the scalar kernels compute."""

    class Linear:
        """A linear map y = W x + b, packed for one instruction set."""

        def __init__(
            self, name: str, weight: NDArray[numpy.float32], bias: NDArray[numpy.float32] | None, dtype: str
        ) -> None:
            """weight (out, in), bias (out), dtype f32, bf16 or i8."""

        @property
        def panel(self) -> int:
            """Columns of y that are computed together."""

        def __call__(
            self, x: NDArray[numpy.float32], finish: str = "none", index: NDArray[numpy.int32] | None = None
        ) -> NDArray[numpy.float32]:
            """
            finish(W x + b) of x (n, in), or of its rows index (m) → (n or m, out).
            """

        def into(
            self,
            y: NDArray[numpy.float32],
            x: NDArray[numpy.float32],
            finish: str,
            start: int,
            stop: int,
            index: NDArray[numpy.int32] | None = None,
        ) -> None:
            """The same, into columns start … stop of y, whole panels."""

        def seconds(self, x: NDArray[numpy.float32], finish: str, repeats: int) -> tuple[float, float]:
            """
            Processor seconds of `repeats` multiplications, and of as many preparations of x (n, in).
            """

    @staticmethod
    def peak(name: str, dtype: str, rounds: int) -> tuple[float, float]:
        """
        Operations and processor seconds of products that never leave the registers.
        """

    @staticmethod
    def team(threads: int, tasks: int, failing: int = -1) -> tuple[int, bool, int]:
        """
        Runs tasks on a new team; task `failing` throws → tasks done, whether the exception arrived, threads.
        """

    @staticmethod
    def attend(
        name: str, qkv: NDArray[numpy.float32], heads: int, from_others: bool = False
    ) -> tuple[NDArray[numpy.float32], NDArray[numpy.float32]]:
        """
        qkv (n, 3 heads width) → context (n, heads width), received attention (heads, n).
        """

    @staticmethod
    def attend_seconds(name: str, qkv: NDArray[numpy.float32], heads: int, scored: bool, repeats: int) -> float:
        """
        Processor seconds of `repeats` attentions, all heads; `scored`: with received attention.
        """

    @staticmethod
    def attend_first(
        name: str, query: NDArray[numpy.float32], key_value: NDArray[numpy.float32], heads: int
    ) -> NDArray[numpy.float32]:
        """
        query (1, heads width), key_value (n, 2 heads width) → context (1, heads width).
        """

    @staticmethod
    def add_norm(
        name: str,
        y: NDArray[numpy.float32],
        residual: NDArray[numpy.float32] | None,
        gain: NDArray[numpy.float32],
        shift: NDArray[numpy.float32],
        epsilon: float,
        index: NDArray[numpy.int32] | None = None,
    ) -> NDArray[numpy.float32]:
        """
        LayerNorm of y (n, d) + residual (n, d), or its rows index (n); gain and shift (d).
        """

    @staticmethod
    def embed(
        name: str,
        tables: Sequence[NDArray[numpy.float32]],
        ids: Sequence[NDArray[numpy.int32]],
        gain: NDArray[numpy.float32],
        shift: NDArray[numpy.float32],
        epsilon: float,
    ) -> NDArray[numpy.float32]:
        """
        LayerNorm of the sums of rows ids (n) of three tables (rows, d): words, positions, segments → (n, d).
        """

class StaticTier:
    """
    A static tier. Refers to the arrays, which are C-contiguous and not converted.
    """

    def __init__(
        self,
        weights: NDArray[numpy.int16],
        scales: NDArray[numpy.float32],
        bias: NDArray[numpy.float32],
        kinds: NDArray[numpy.uint8],
    ) -> None:
        """
        weights (2^bits, n_classes), scales (n_classes), bias (n_classes), kinds (vocabulary): 0 = starts a word,
        1 = continues one, 2 = special.
        """

    @property
    def n_classes(self) -> int: ...
    def logits(self, tokens: NDArray[numpy.int64], cu_seqlens: NDArray[numpy.int64]) -> NDArray[numpy.float32]:
        """
        tokens (n, 2): token and segment ids; cu_seqlens (n_texts + 1) → logits (n_texts, n_classes).
        """

class BilstmTier:
    """
    A BiLSTM tier. Refers to embedding and segments, packs the other arrays.
    """

    def __init__(
        self,
        vocabulary: NDArray[numpy.int16],
        embedding: NDArray[numpy.float32],
        segments: NDArray[numpy.float32],
        first: NDArray[numpy.float32],
        second: NDArray[numpy.float32],
        hidden: NDArray[numpy.float32],
        output: NDArray[numpy.float32],
    ) -> None:
        """
        vocabulary (n): rows of embedding (rows, width); segments (2, width); first (2, 4 s, width + s + 1) and second
        (2, 4 s, 3 s + 1): both directions of a layer with state s; hidden (h, 2 s + 1); output (n_classes, h + 1).
        The last column of a matrix is its bias.
        """

    @property
    def n_classes(self) -> int: ...
    def logits(self, tokens: NDArray[numpy.int64], cu_seqlens: NDArray[numpy.int64]) -> NDArray[numpy.float32]:
        """
        tokens (n, 2): token and segment ids; cu_seqlens (n_texts + 1) → logits (n_texts, n_classes).
        """

class Engine:
    """
    A model with its threads and its memory. Calls from several Python threads run one after the other.

    Arrays are C-contiguous and have exactly the given dtype: nothing is converted. n = tokens, d = width,
    L = layers. An argument that does not fit raises TypeError or ValueError, which names it.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        tensors: dict[str, NDArray[numpy.float32]],
        head_layers: Sequence[int],
        dtype: str,
        threads: int,
        instructions: str = "",
    ) -> None:
        """
        spec: fields of EncoderSpec. tensors: float32, by their names in our state dict; embeddings are not copied.
        head_layers: 1 … L - 1, rising. dtype: float32, bfloat16 or int8. instructions: "" = the fastest.
        """

    @property
    def instructions(self) -> str:
        """Name of the instruction set."""

    @property
    def threads(self) -> int:
        """
        The number of threads that compute; before the first call the number that was requested.
        """

    @property
    def n_classes(self) -> int: ...
    @property
    def rung_layers(self) -> list[int]:
        """The layer of each rung: the head layers, then L."""

    @property
    def workspace_bytes(self) -> int:
        """Memory that all calls reuse; it only grows."""

    def embed(self, ids: NDArray[numpy.int64], positions: NDArray[numpy.int64]) -> NDArray[numpy.float32]:
        """
        ids (n, 2): token and segment ids, at positions (n) of their texts → states (n, d).
        """

    def context(
        self,
        layer: int,
        states: NDArray[numpy.float32],
        positions: NDArray[numpy.int64],
        cu_seqlens: NDArray[numpy.int64],
        scored: bool,
        from_others: bool,
    ) -> tuple[NDArray[numpy.float32], NDArray[numpy.float32]]:
        """
        Attention of layer 1 … L: states (n, d), positions (n), cu_seqlens (n_seqs + 1) → context (n, d) and received
        attention (n) with mean 1 over a sequence, or (0) unless `scored`. from_others: without each token's own query.
        """

    def finish(
        self, layer: int, states: NDArray[numpy.float32], context: NDArray[numpy.float32]
    ) -> NDArray[numpy.float32]:
        """
        The rest of the layer: states that entered it (n, d) and their context (n, d) → states (n, d).
        """

    def guess(
        self, layer: int, states: NDArray[numpy.float32], cu_seqlens: NDArray[numpy.int64]
    ) -> NDArray[numpy.float32]:
        """
        Token scores (n) that the layer predicts from the states (n, d) which enter it; mean 1 over a sequence.
        """

    def logits(
        self, rung: int, states: NDArray[numpy.float32], cu_seqlens: NDArray[numpy.int64]
    ) -> NDArray[numpy.float32]:
        """
        The head of a rung, from 0: states (n, d), cu_seqlens (n_seqs + 1) → logits (n_seqs, n_classes).
        """

    def answer(
        self,
        ids: NDArray[numpy.int64],
        positions: NDArray[numpy.int64],
        cu_seqlens: NDArray[numpy.int64],
        original: NDArray[numpy.int64],
        batches: NDArray[numpy.int64],
        exits: ExitRule,
        tokens: TokenRule | None,
    ) -> tuple[NDArray[numpy.float32], NDArray[numpy.int64], NDArray[numpy.float64], NDArray[numpy.int64]]:
        """
        Runs whole inputs until they exit: ids (n, 2), positions (n), cu_seqlens (n_seqs + 1), original (n_seqs):
        tokens before any pruning, batches (n_batches + 1): boundaries of batches among the sequences.

        Returns logits (n_seqs, n_classes) and rungs (n_seqs) of the exits, seconds (n_seqs) from the start of the
        batch, kept (n_seqs, L + 1): tokens that entered layer 1, then tokens after each layer, 0 = it did not run.
        """

    def run(
        self,
        ids: NDArray[numpy.int64],
        positions: NDArray[numpy.int64],
        cu_seqlens: NDArray[numpy.int64],
        original: NDArray[numpy.int64],
        exits: ExitRule,
        tokens: TokenRule | None,
        last: int,
    ) -> tuple[
        NDArray[numpy.float32],
        NDArray[numpy.int64],
        NDArray[numpy.float64],
        NDArray[numpy.int64],
        NDArray[numpy.float32],
        tuple[NDArray[numpy.float32], NDArray[numpy.int64], NDArray[numpy.int64], NDArray[numpy.int64]],
    ]:
        """
        Runs whole inputs as one batch through layers 1 … last. Returns what `answer` returns (rung -1, NaN logits and
        seconds for inputs that still run), history (n_seqs, n_rungs, n_classes): logits of the active rungs so far, and
        of the sequences that still run states (m, d), positions (m), cu_seqlens and their indices among the inputs.
        """

    def resume(
        self,
        states: NDArray[numpy.float32],
        positions: NDArray[numpy.int64],
        cu_seqlens: NDArray[numpy.int64],
        original: NDArray[numpy.int64],
        history: NDArray[numpy.float32],
        exits: ExitRule,
        tokens: TokenRule | None,
        first: int,
        last: int,
    ) -> tuple[
        NDArray[numpy.float32],
        NDArray[numpy.int64],
        NDArray[numpy.float64],
        NDArray[numpy.int64],
        NDArray[numpy.float32],
        tuple[NDArray[numpy.float32], NDArray[numpy.int64], NDArray[numpy.int64], NDArray[numpy.int64]],
    ]:
        """
        Continues `run`: from the states (n, d) before layer `first` through layers first … last, with the history
        (n_seqs, n_rungs, n_classes) of the sequences. Returns what `run` returns.
        """

def instructions() -> list[str]:
    """
    Names of the instruction sets that this processor can run, the fastest first.
    """
